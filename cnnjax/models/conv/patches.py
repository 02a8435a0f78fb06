"""Convolution as a matrix product over patches: the pixels under the kernel, for each output pixel."""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to


def forward(
    images: Float[Array, "N H W C"], kernel: Float[Array, "K K C F"], before: Pair, size: Pair
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    return _patches(images, kernel.shape[0], before, size) @ kernel.reshape(-1, kernel.shape[-1])


def kernel_grad(
    images: Float[Array, "N H W C"], grad: Float[Array, "N P Q F"], before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "K K C F"]:
    """Returns the gradient of a kernel from the gradient of the output."""
    patches = _patches(images, kernel_shape[0], before, grad.shape[1:3])
    product = patches.reshape(-1, patches.shape[-1]).T @ grad.reshape(-1, kernel_shape[-1])
    return product.reshape(kernel_shape)


def _patches(images: Array, kernel_size: int, before: Pair, size: Pair) -> Array:
    """Returns the patches [N, P, Q, K * K * C]; the last axis has the order of a kernel."""
    (batch, _, _, channels), (height, width) = images.shape, size
    padded = pad_to(images, before, size, kernel_size)
    if jax.default_backend() != "cpu":  # a GPU concatenates in a single kernel
        corners = itertools.product(range(kernel_size), repeat=2)
        return jnp.concatenate([padded[:, y : y + height, x : x + width] for y, x in corners], -1)

    def copy_pixels(place: Array, patches: Array) -> Array:
        row, column = place // kernel_size, place % kernel_size
        under = lax.dynamic_slice(padded, (0, row, column, 0), (batch, height, width, channels))
        return lax.dynamic_update_slice(patches, under, (0, 0, 0, place * channels))

    # On a CPU a loop is faster: XLA copies concatenated arrays twice, and compiles a function for each of the slices.
    places = kernel_size**2
    return lax.fori_loop(0, places, copy_pixels, jnp.zeros((batch, height, width, places * channels), images.dtype))
