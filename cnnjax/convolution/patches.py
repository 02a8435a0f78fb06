"""Convolution as a matrix product over patches: the pixels under the kernel, for each output pixel."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.convolution.blocks import pad_to

Pair = tuple[int, int]


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
    height, width = size
    padded = pad_to(images, before, (height + kernel_size - 1, width + kernel_size - 1))
    offsets = range(kernel_size)
    return jnp.concatenate([padded[:, y : y + height, x : x + width] for y in offsets for x in offsets], axis=-1)
