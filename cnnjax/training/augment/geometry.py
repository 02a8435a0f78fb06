"""Flips, crops and rotations: changes of where a pixel is read."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt8, UInt32

from cnnjax.study.augmentation import NAMES

GEOMETRY = NAMES[: NAMES.index("alternating_flip") + 1]
_ANGLE_BITS = 12
# Degrees, counter-clockwise: the middles of equal parts of [-45, 45]. One step moves the corner of an image of 32x32
# pixels by less than a hundredth of a pixel.
ANGLES = 45 * ((2 * np.arange(2**_ANGLE_BITS) + 1) / 2**_ANGLE_BITS - 1)
Asked = Mapping[str, tuple]  # the arguments of each augmentation by its name
_FLIPS = {"flip", "alternating_flip"}  # of both the top bit of the word decides


def gather_moved(
    images_NxHxWxC: UInt8[Array, "N H W C"], indices_B: Int[Array, " B"], asked: Asked, words_B: UInt32[Array, " B"]
) -> tuple[UInt8[Array, "B H W C"], Bool[Array, "B H W"] | None]:
    """Returns the images at `indices_B`, cropped, flipped and rotated, and which of their pixels a rotation kept.

    The changes only decide which pixel is read, so on a GPU they are part of one gather. On a CPU such a gather would
    take a third of a small network's step, so windows are copied instead.
    """
    if jax.default_backend() == "cpu" and "rotate" not in asked:
        return _cropped_and_flipped(images_NxHxWxC[indices_B], asked, words_B), None
    _, height, width, _ = images_NxHxWxC.shape
    # The source of each pixel, from the last change of the image to the first.
    rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None]
    if "rotate" in asked:
        rows, columns = _rotated(rows, columns, angle_numbers(words_B), height, width)
    in_image = _inside(rows, columns, height, width)
    if "flip_vertical_all" in asked:
        rows = height - 1 - rows
    if "flip_all" in asked:
        columns = width - 1 - columns
    if _FLIPS & set(asked):
        flipped = (words_B >> 31)[:, None, None] == 1
        columns = jnp.where(flipped, width - 1 - columns, columns)
    if "crop" in asked:
        padding, reflects = asked["crop"]
        down, right = _offsets(words_B, padding)
        rows, columns = rows + down[:, None, None], columns + right[:, None, None]
        if reflects:
            rows, columns = _reflected(rows, height), _reflected(columns, width)
    pixels = images_NxHxWxC[indices_B[:, None, None], jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
    in_padding = ~_inside(rows, columns, height, width)
    return jnp.where(in_padding[..., None], 0, pixels), in_image if "rotate" in asked else None


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


def _reflected(places: Array, count: int) -> Array:
    """Returns the places that an image shows at those outside of it when it is reflected at its outermost pixels."""
    return count - 1 - jnp.abs(count - 1 - jnp.abs(places))


def _offsets(words: UInt32[Array, "..."], padding: int) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Returns the offsets of crops down and right, in [-padding, padding], each from 15 bits of a word."""
    choices = 2 * padding + 1
    down, right = (((bits & 0x7FFF) * choices >> 15).astype(jnp.int32) - padding for bits in (words, words >> 15))
    return down, right


def _cropped_and_flipped(images_BxHxWxC: Array, asked: Asked, words_B: Array) -> Array:
    """Crops and flips image by image: a CPU copies a window ten times faster than it gathers pixels."""
    shape = images_BxHxWxC.shape[1:]
    padding, reflects = asked.get("crop", (0, False))
    if padding:
        around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        images_BxHxWxC = jnp.pad(images_BxHxWxC, around, mode="reflect" if reflects else "constant")

    def change(image_and_word: tuple[Array, Array]) -> Array:
        image, word = image_and_word
        if padding:
            down, right = _offsets(word, padding)
            image = lax.dynamic_slice(image, (padding + down, padding + right, 0), shape)
        if _FLIPS & set(asked):
            image = lax.cond(word >> 31 == 1, lambda image: image[:, ::-1], lambda image: image, image)
        rows = -1 if "flip_vertical_all" in asked else 1
        columns = -1 if "flip_all" in asked else 1
        return image[::rows, ::columns]

    return lax.map(change, (images_BxHxWxC, words_B))
