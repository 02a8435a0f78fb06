"""Images as 2x2 blocks: four arrays [N, H/2, W/2, C], one for each pixel of a block, in row order.

Two of the fast convolution methods compute their output in blocks. A 2x2 max-pool is the largest of the four arrays.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int8

Blocks = tuple[Array, Array, Array, Array]
Pair = tuple[int, int]  # of rows and columns

NO_WINNER = 4


def split(images_NxHxWxC: Float[Array, "N H W C"]) -> Blocks:
    """Returns the blocks of images; an odd height or width is padded with zeros."""
    _, height, width, _ = images_NxHxWxC.shape
    even = jnp.pad(images_NxHxWxC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    top_left, top_right, low_left, low_right = (even[:, y::2, x::2] for y in (0, 1) for x in (0, 1))
    return top_left, top_right, low_left, low_right


def join(blocks: Blocks) -> Float[Array, "N H W C"]:
    """Returns the images of blocks."""
    batch, height, width, channels = blocks[0].shape
    rows = [jnp.stack(blocks[i : i + 2], 3).reshape(batch, height, 2 * width, channels) for i in (0, 2)]
    return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, channels)


def as_layout(images: Array | Blocks, in_blocks: bool) -> Any:
    """Converts images, or blocks, to blocks if `in_blocks`, else to images."""
    if isinstance(images, tuple):
        return images if in_blocks else join(images)
    return split(images) if in_blocks else images


def pad_to(
    images: Float[Array, "N H W C"], before: Pair, size: Pair, kernel_size: int = 1, fill: float = 0
) -> Float[Array, "N P Q C"]:
    """Pads images, or crops them, to the pixels that `size` output pixels of a convolution read.

    Args:
        images: the images.
        before: rows above and columns left of the images; negative numbers crop.
        size: height and width of the output.
        kernel_size: of the convolution.
        fill: value of the new pixels.
    """
    behind = [
        new + kernel_size - 1 - old - front for new, old, front in zip(size, images.shape[1:3], before, strict=True)
    ]
    rows, columns = ((front, back, 0) for front, back in zip(before, behind, strict=True))
    return lax.pad(images, jnp.array(fill, images.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))


def largest(blocks: Blocks) -> tuple[Float[Array, "N H W C"], Int8[Array, "N H W C"]]:
    """Returns the largest pixel of each block and its index; of equal pixels the first, as in PyTorch's gradient."""
    top_left, top_right, low_left, low_right = blocks
    top, low = jnp.maximum(top_left, top_right), jnp.maximum(low_left, low_right)
    winner = jnp.where(top >= low, jnp.where(top_left >= top_right, 0, 1), jnp.where(low_left >= low_right, 2, 3))
    return jnp.maximum(top, low), winner.astype(jnp.int8)


def largest_positive(blocks: Blocks, bias: Array) -> tuple[Float[Array, "N H W C"], Int8[Array, "N H W C"]]:
    """Returns max(0, largest + bias) of each block and the pixel's index: `NO_WINNER` if the result is 0."""
    value, winner = largest(blocks)
    value = value + bias
    return jnp.maximum(value, 0), jnp.where(value > 0, winner, NO_WINNER).astype(jnp.int8)


def to_winner(grad: Float[Array, "N H W C"], winner: Int8[Array, "N H W C"]) -> Blocks:
    """Returns the gradient of the blocks from the gradient of their largest pixels: the winner gets all of it."""
    first, second, third, fourth = (jnp.where(winner == i, grad, 0) for i in range(4))
    return first, second, third, fourth
