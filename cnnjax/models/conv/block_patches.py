"""Convolution as a product over patches of 2x2 blocks, for inputs of few channels.

The four pixels of a block become channels, of the input and of the output: a product four times as wide, over patches
that overlap less. That is more arithmetic than patches of pixels (by 16/9 for a 3x3 kernel) in a fraction of the
memory traffic, which is what the first layer of a network costs.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.models.conv import patches
from cnnjax.models.conv.blocks import Blocks, Pair, pad_to


def transform(kernel: Float[Array, "K K C F"]) -> Float[Array, "R R 4*C 4*F"]:
    """Returns the kernel between blocks, where R = (K + 1) / 2: for each output pixel of a block one copy of it."""
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


def kernel_gradient(
    images: Float[Array, "N H W C"], gradient: Blocks, before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "R R 4*C 4*F"]:
    """Returns the gradient of a kernel between blocks from that of the output blocks."""
    blocks = _as_channels(images, before, gradient[0].shape[1:3], kernel_shape[0])
    return patches.kernel_gradient(blocks, jnp.concatenate(gradient, -1), (0, 0), kernel_shape)


def floats_per_pixel(size: int, channels: int, features: int) -> int:
    """Returns what is made on the way to a pixel of the output, or 0 where a batch is better made in one piece.

    Patches of a whole batch wait in memory for the gradient of the kernel. In chunks they are made again for it, which
    pays where they are small beside the output.
    """
    patches_floats = (size + 1) ** 2 // 4 * channels
    return patches_floats + features if features >= 2 * patches_floats else 0


def _as_channels(images: Array, before: Pair, size: Pair, reach: int) -> Float[Array, "N P Q 4*C"]:
    """The padded images, a block's pixels as channels, with as many blocks as `size` output blocks see."""
    batch, _, _, channels = images.shape
    rows, columns = size[0] + reach - 1, size[1] + reach - 1
    padded = pad_to(images, before, (2 * rows, 2 * columns)).reshape(batch, rows, 2, columns, 2, channels)
    return padded.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, 4 * channels)
