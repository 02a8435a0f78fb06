"""Convolution as a matrix product over patches of 2x2 blocks, for inputs with few channels.

The four pixels of a block become channels of the input and of the output. The product is four times as wide, and the
patches overlap less. Compared with patches of pixels it needs more arithmetic (16/9 for a 3x3 kernel) and a fraction
of the memory traffic, which limits the first layer of a network.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.models.conv import patches
from cnnjax.models.conv.blocks import Blocks, Pair, pad_to


def transform(kernel: Float[Array, "K K C F"]) -> Float[Array, "R R 4*C 4*F"]:
    """Returns the kernel between blocks, R = (K + 1) / 2: one copy of the kernel for each output pixel of a block."""
    size, _, channels, features = kernel.shape
    reach = (size + 1) // 2
    places = [jnp.pad(kernel, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0))) for y in (0, 1) for x in (0, 1)]
    between = jnp.stack(places, 3).reshape(reach, 2, reach, 2, channels, 4 * features)
    return between.transpose(0, 2, 1, 3, 4, 5).reshape(reach, reach, 4 * channels, 4 * features)


def forward(images: Float[Array, "N H W C"], kernel: Float[Array, "R R 4*C 4*F"], before: Pair, size: Pair) -> Blocks:
    """Returns `size` output blocks of images with `before` zeros above and left."""
    output = patches.forward(_as_channels(images, before, size, len(kernel)), kernel, (0, 0), size)
    top_left, top_right, low_left, low_right = jnp.split(output, 4, axis=-1)
    return top_left, top_right, low_left, low_right


def kernel_grad(
    images: Float[Array, "N H W C"], grad: Blocks, before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "R R 4*C 4*F"]:
    """Returns the gradient of a kernel between blocks from the gradient of the output blocks."""
    blocks = _as_channels(images, before, grad[0].shape[1:3], kernel_shape[0])
    return patches.kernel_grad(blocks, jnp.concatenate(grad, -1), (0, 0), kernel_shape)


def floats_per_pixel(places: int, channels: int, features: int) -> int:
    """Returns the number of intermediate floats per output pixel, or 0 if a batch should not be cut into chunks.

    The patches of a whole batch stay in memory for the gradient of the kernel. Chunks compute them again for the
    gradient, which pays if the patches are small compared with the output.
    """
    patches_floats = (math.isqrt(places) + 1) ** 2 // 4 * channels
    return patches_floats + features if features >= 2 * patches_floats else 0


def _as_channels(images: Array, before: Pair, size: Pair, reach: int) -> Float[Array, "N P Q 4*C"]:
    """Returns the padded images with a block's pixels as channels, for `size` output blocks."""
    batch, _, _, channels = images.shape
    rows, columns = size[0] + reach - 1, size[1] + reach - 1
    padded = pad_to(images, before, (2 * rows, 2 * columns)).reshape(batch, rows, 2, columns, 2, channels)
    return padded.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, 4 * channels)
