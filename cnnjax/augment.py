"""Batches on the device: gathered, augmented and normalised from the resident uint8 images. Pure jax."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8, UInt32

CROP_PADDING = 4  # pixels of zeros (before normalisation) around an image that a random crop may show


def gather_batch(
    images_NxHxWxC: UInt8[Array, "N H W C"],
    indices_B: Int[Array, " B"],
    scale_C: Float[Array, " C"],
    shift_C: Float[Array, " C"],
    *,
    augment: tuple[str, ...] = (),
    words_B: UInt32[Array, " B"] | None = None,
) -> Float[Array, "B H W C"]:
    """Returns the images at `indices_B`, augmented, as `pixel * scale + shift`.

    Flip and crop only change which pixel is read, so they are part of the one gather and cost almost nothing beyond
    it.

    Args:
        images_NxHxWxC: the whole split.
        indices_B: which images.
        scale_C: factor per channel.
        shift_C: summand per channel.
        augment: any of 'flip' (left-right with probability 1/2) and 'crop' (a window of the image padded by
            `CROP_PADDING` zeros, every offset equally likely).
        words_B: a random word per image, needed when `augment` is not empty. The top bit decides the flip, 15 bits each
            the row and column of the crop (no offset is likelier than another by more than 1 part in 3,600).
    """
    if not augment or words_B is None:
        return _normalise(images_NxHxWxC[indices_B], scale_C, shift_C)
    (batch,), (_, height, width, _) = indices_B.shape, images_NxHxWxC.shape
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    if "flip" in augment:
        flipped = (words_B >> 31)[:, None] == 1
        columns = jnp.where(flipped, width - 1 - columns, columns)
    if "crop" in augment:
        rows, columns = rows + _offset(words_B), columns + _offset(words_B >> 15)
    rows, columns = (
        jnp.broadcast_to(rows, (batch, height)),
        jnp.broadcast_to(columns, (batch, width)),
    )
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    pixels = images_NxHxWxC[
        indices_B[:, None, None],
        jnp.clip(rows, 0, height - 1)[:, :, None],
        jnp.clip(columns, 0, width - 1)[:, None],
    ]
    return _normalise(jnp.where(inside[..., None], pixels, 0), scale_C, shift_C)


def _offset(words_B: Array) -> Array:
    """An offset in [-CROP_PADDING, CROP_PADDING] from the lowest 15 bits of each word, as a column."""
    choices = 2 * CROP_PADDING + 1
    return ((words_B & 0x7FFF) * choices >> 15).astype(jnp.int32)[:, None] - CROP_PADDING


def _normalise(pixels: Array, scale_C: Array, shift_C: Array) -> Array:
    return pixels.astype(jnp.float32) * scale_C[None, None, None] + shift_C[None, None, None]
