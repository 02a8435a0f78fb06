"""Convolution as a matrix product over patches: the pixels under the kernel, for each output pixel."""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to


def transform(kernel: Float[Array, "K K C F"]) -> Float[Array, "K K C F"]:
    """Returns the kernel as it is."""
    return kernel


def forward(
    images: Float[Array, "N H W C"], kernel: Float[Array, "K K C F"], before: Pair, size: Pair
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    return _patches(images, kernel.shape[0], before, size) @ kernel.reshape(-1, kernel.shape[-1])


def kernel_gradient(
    images: Float[Array, "N H W C"], gradient: Float[Array, "N P Q F"], before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "K K C F"]:
    """Returns the gradient of a kernel from that of the output."""
    patches = _patches(images, kernel_shape[0], before, gradient.shape[1:3])
    product = patches.reshape(-1, patches.shape[-1]).T @ gradient.reshape(-1, kernel_shape[-1])
    return product.reshape(kernel_shape)


def _patches(images: Array, kernel_size: int, before: Pair, size: Pair) -> Array:
    """[N, P, Q, K * K * C], the last axis in the order of a kernel."""
    (batch, _, _, channels), (height, width) = images.shape, size
    padded = pad_to(images, before, (height + kernel_size - 1, width + kernel_size - 1))
    if jax.default_backend() != "cpu":  # where one kernel writes them all
        corners = itertools.product(range(kernel_size), repeat=2)
        return jnp.concatenate([padded[:, y : y + height, x : x + width] for y, x in corners], -1)

    def copy_pixels(place: Array, patches: Array) -> Array:
        row, column = place // kernel_size, place % kernel_size
        under = lax.dynamic_slice(padded, (0, row, column, 0), (batch, height, width, channels))
        return lax.dynamic_update_slice(patches, under, (0, 0, 0, place * channels))

    # A loop, for on a CPU XLA copies what it concatenates twice, and compiles a function for each of the K * K slices.
    places = kernel_size**2
    return lax.fori_loop(0, places, copy_pixels, jnp.zeros((batch, height, width, places * channels), images.dtype))
