"""Batches on the device: gathered, augmented and normalized from the resident uint8 images. Pure jax."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

CROP_PADDING = 4  # pixels of zeros (before normalization) around an image that a random crop may show
_ANGLE_BITS = 12
# Degrees, counter-clockwise: the middles of equal parts of [-45, 45]. One step moves the corner of an image of 32x32
# pixels by less than a hundredth of a pixel.
ANGLES = 45 * ((2 * np.arange(2**_ANGLE_BITS) + 1) / 2**_ANGLE_BITS - 1)


@jax.named_scope("augment")
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

    Augmentation only changes which pixel is read, so on a GPU it is part of one gather. On a CPU such a gather would
    take a third of a small network's step, so windows are copied instead.

    Args:
        images_NxHxWxC: the whole split.
        indices_B: of the images in the batch.
        scale_C: factor per channel.
        shift_C: summand per channel.
        augment: any of the following. They are applied in this order, whatever the order of the tuple.
            'crop': a window of the image padded by `CROP_PADDING` zeros; every offset is equally likely.
            'flip': left-right with probability 1/2.
            'flip_all': left-right, every image.
            'flip_vertical_all': upside down, every image.
            'rotate': by one of `ANGLES` about the center, to the nearest pixel. Pixels from outside the image are zero
            after normalization.
        words_B: a random word per image, required if `augment` is not empty. The top bit decides the flip, 15 bits each
            the row and column of the crop (the probabilities of two offsets differ by less than 1 part in 3,600). The
            word seeds the angle.
    """
    if not augment or words_B is None:
        return _normalize(images_NxHxWxC[indices_B], scale_C, shift_C)
    if jax.default_backend() == "cpu" and "rotate" not in augment:
        return _normalize(_cropped_and_flipped(images_NxHxWxC[indices_B], augment, words_B), scale_C, shift_C)
    _, height, width, _ = images_NxHxWxC.shape
    # The source of each pixel, from the last change of the image to the first.
    rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None]
    if "rotate" in augment:
        rows, columns = _rotated(rows, columns, angle_numbers(words_B), height, width)
    in_image = _inside(rows, columns, height, width)
    if "flip_vertical_all" in augment:
        rows = height - 1 - rows
    if "flip_all" in augment:
        columns = width - 1 - columns
    if "flip" in augment:
        flipped = (words_B >> 31)[:, None, None] == 1
        columns = jnp.where(flipped, width - 1 - columns, columns)
    if "crop" in augment:
        down, right = _offsets(words_B)
        rows, columns = rows + down[:, None, None], columns + right[:, None, None]
    pixels = images_NxHxWxC[indices_B[:, None, None], jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
    in_padding = ~_inside(rows, columns, height, width)
    batch = _normalize(jnp.where(in_padding[..., None], 0, pixels), scale_C, shift_C)
    return jnp.where(in_image[..., None], batch, 0) if "rotate" in augment else batch


def angle_numbers(words_B: UInt32[Array, " B"]) -> Int[Array, " B"]:
    """Returns the index in `ANGLES` of each random word."""
    # Fresh random bits, because the word's own bits decide the flip and the crop.
    bits = jax.vmap(lambda word: jax.random.bits(jax.random.key(word)))(words_B)
    return (bits >> (32 - _ANGLE_BITS)).astype(jnp.int32)


def _rotated(rows: Array, columns: Array, numbers_B: Array, height: int, width: int) -> tuple[Array, Array]:
    """Returns the source row and column of each pixel of the rotated images, int32 [B, H, W].

    The arithmetic is Pillow's, in integers of 2^-16 pixel, so that no device or compiler rounds differently.
    """
    cos, sin, row, column = jnp.asarray(_rotations(height, width))[:, numbers_B, None, None]
    return (row + cos * rows + sin * columns) >> 16, (column - sin * rows + cos * columns) >> 16


def _rotations(height: int, width: int) -> np.ndarray:
    """Returns cosine, sine, and the source row and column of the first pixel, by angle: int32 [4, angles], 2^-16."""
    cos, sin = np.cos(np.radians(ANGLES)), np.sin(np.radians(ANGLES))
    down, right = (height - 1) / 2, (width - 1) / 2  # from the center of the first pixel to the center of the image
    row, column = (height / 2 - cos * down - sin * right), (width / 2 + sin * down - cos * right)
    return np.floor(np.stack([cos, sin, row, column]) * 2**16 + 0.5).astype(np.int32)


def _inside(rows: Array, columns: Array, height: int, width: int) -> Bool[Array, "..."]:
    return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


def _offsets(words: UInt32[Array, "..."]) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Returns the offsets of crops down and right, in [-CROP_PADDING, CROP_PADDING], each from 15 bits of a word."""
    choices = 2 * CROP_PADDING + 1
    down, right = (((bits & 0x7FFF) * choices >> 15).astype(jnp.int32) - CROP_PADDING for bits in (words, words >> 15))
    return down, right


def _cropped_and_flipped(images_BxHxWxC: Array, augment: tuple[str, ...], words_B: Array) -> Array:
    """Crops and flips image by image: a CPU copies a window ten times faster than it gathers pixels."""
    shape = images_BxHxWxC.shape[1:]
    if "crop" in augment:
        around = (CROP_PADDING, CROP_PADDING)
        images_BxHxWxC = jnp.pad(images_BxHxWxC, ((0, 0), around, around, (0, 0)))

    def augment_image(image_and_word: tuple[Array, Array]) -> Array:
        image, word = image_and_word
        if "crop" in augment:
            down, right = _offsets(word)
            image = lax.dynamic_slice(image, (CROP_PADDING + down, CROP_PADDING + right, 0), shape)
        if "flip" in augment:
            image = lax.cond(word >> 31 == 1, lambda image: image[:, ::-1], lambda image: image, image)
        rows = -1 if "flip_vertical_all" in augment else 1
        columns = -1 if "flip_all" in augment else 1
        return image[::rows, ::columns]

    return lax.map(augment_image, (images_BxHxWxC, words_B))


def _normalize(pixels: Array, scale_C: Array, shift_C: Array) -> Array:
    return pixels.astype(jnp.float32) * scale_C[None, None, None] + shift_C[None, None, None]
