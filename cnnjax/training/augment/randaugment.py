"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719): torchvision's operations and magnitudes, in Pillow's arithmetic.

All operations take and return pixels of 0..255 as int32 [H, W, C]. In the tests each equals Pillow's.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, UInt8, UInt32

from cnnjax.study.augmentation import MAGNITUDES
from cnnjax.training.augment.draws import draw_bits, uniform, whole

OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
_MOVES = OPERATIONS[1:6]
_BLENDS = OPERATIONS[6:10]
_SIGNED = (*_MOVES, *_BLENDS)
Pixels = Int[Array, "H W C"]


def rand_augment(
    images: UInt8[Array, "B H W C"], words_B: UInt32[Array, " B"], count: int, magnitude: int
) -> UInt8[Array, "B H W C"]:
    """Applies `count` operations to each image, each drawn anew with the same probability.

    Args:
        images: with pixels of 0..255.
        words_B: a random word per image.
        count: of operations.
        magnitude: 0 to 30. It sets the angle, factor or threshold of an operation; half of those with a direction go
            the other way.
    """
    bits = draw_bits(words_B, "randaugment", 2 * count)

    def change(image_and_bits: tuple[Array, Array]) -> Array:
        image, bits = image_and_bits
        image = image.astype(jnp.int32)
        for number in range(count):
            operation, sign = whole(uniform(bits[2 * number]), len(OPERATIONS)), bits[2 * number + 1] >> 31
            image = apply_operation(image, operation, sign, magnitude)
        return image.astype(jnp.uint8)

    # A CPU computes the drawn operations only, one image after another. Elsewhere all images side by side are faster.
    if jax.default_backend() == "cpu":
        return lax.map(change, (images, bits))
    return jax.vmap(change)((images, bits))


def apply_operation(image: Pixels, operation: Int[Array, ""], sign: Array, magnitude: int) -> Pixels:
    """Applies the operation with a number in `OPERATIONS`; a sign of 1 reverses it if it has a direction."""
    strength = magnitude / (MAGNITUDES - 1)
    height, width, _ = image.shape
    moves, factor = jnp.asarray(_moves(strength, height, width)), 0.9 * strength
    factor = jnp.where(sign == 1, 1 - factor, 1 + factor).astype(jnp.float32)
    branches: list[Callable[[Pixels], Pixels]] = [
        lambda image: image,
        lambda image: _moved(image, moves[sign.astype(jnp.int32), operation - OPERATIONS.index(_MOVES[0])]),
        lambda image: _blended(jnp.zeros_like(image), image, factor),
        lambda image: _blended(_gray(image), image, factor),
        lambda image: _blended(_rounded_mean(_gray(image)), image, factor),
        lambda image: _blended(_smoothed(image), image, factor),
        functools.partial(_posterized, bits=8 - round(strength * 4)),
        functools.partial(_solarized, threshold=255 * (1 - strength)),
        _autocontrasted,
        _equalized,
    ]
    # The moves are one branch.
    first, last = (OPERATIONS.index(_MOVES[at]) for at in (0, -1))
    branch = jnp.where(operation <= last, jnp.minimum(operation, first), operation - last + first)
    return lax.switch(branch, branches, image)


@functools.cache
def _moves(strength: float, height: int, width: int) -> np.ndarray:
    """Returns, for both signs and each of `_MOVES`, the map from a pixel to its source in units of 2^-16: [2, 5, 6].

    A pixel (x, y) is read at column (a x + b y + c) >> 16 and row (d x + e y + f) >> 16.
    """
    tables = []
    for sign in (1, -1):
        shear, angle = sign * 0.3 * strength, -math.radians(sign * 30 * strength)
        right, down = (math.trunc(sign * 150 / 331 * size * strength) for size in (width, height))
        cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
        x, y = width / 2, height / 2  # the center of the rotation
        tables.append(
            [
                [1, shear, 0, 0, 1, 0],
                [1, 0, 0, shear, 1, 0],
                [1, 0, -right, 0, 1, 0],
                [1, 0, 0, 0, 1, -down],
                [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y],
            ]
        )
    maps = np.array(tables).reshape(2, len(_MOVES), 2, 3)
    maps[..., 2] += maps[..., :2].sum(-1) / 2  # from the corner of the first pixel to its center
    return np.floor(maps.reshape(2, len(_MOVES), 6) * 2**16 + 0.5).astype(np.int32)


def _moved(image: Pixels, move: Int[Array, " 6"]) -> Pixels:
    """Reads each pixel at its source, the nearest pixel; those from outside the image are 0."""
    height, width, _ = image.shape
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    columns, rows = (a * x + b * y + c >> 16 for a, b, c in (move[:3], move[3:]))
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return jnp.where(inside[..., None], image[rows.clip(0, height - 1), columns.clip(0, width - 1)], 0)


def _blended(other: Pixels, image: Pixels, factor: Array) -> Pixels:
    """Returns other + factor * (image - other), clipped and cut to whole numbers."""
    return jnp.clip(other + factor * (image - other), 0, 255).astype(jnp.int32)


def _gray(image: Pixels) -> Pixels:
    """Returns the gray image in every channel: ITU-R 601 for three channels, else the rounded mean of the channels."""
    channels = image.shape[-1]
    if channels == 3:
        gray = (image * jnp.array([19595, 38470, 7471])).sum(-1, keepdims=True) + 2**15 >> 16
    else:
        gray = (image.sum(-1, keepdims=True) + channels // 2) // channels
    return jnp.broadcast_to(gray, image.shape)


def _rounded_mean(gray: Pixels) -> Pixels:
    count = gray[..., 0].size
    return jnp.broadcast_to((2 * gray[..., 0].sum() + count) // (2 * count), gray.shape)


def _smoothed(image: Pixels) -> Pixels:
    """Returns means of 3x3 pixels in which the center counts 5 times, rounded; the border stays."""
    height, width, _ = image.shape
    shifts = [image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    inner = (2 * (sum(shifts) + 4 * image[1:-1, 1:-1]) + 13) // 26
    return image.at[1:-1, 1:-1].set(inner)


def _posterized(image: Pixels, bits: int) -> Pixels:
    return image & (256 - 2 ** (8 - bits))


def _solarized(image: Pixels, threshold: float) -> Pixels:
    return jnp.where(image < threshold, image, 255 - image)


def _autocontrasted(image: Pixels) -> Pixels:
    """Stretches each channel to 0..255."""
    least, most = image.min((0, 1)), image.max((0, 1))
    return jnp.where(most > least, (image - least) * 255 // jnp.maximum(most - least, 1), image)


def _equalized(image: Pixels) -> Pixels:
    """Equalizes the histogram of each channel."""
    return jnp.stack([_equalized_channel(image[..., channel]) for channel in range(image.shape[-1])], axis=-1)


def _equalized_channel(values: Int[Array, "H W"]) -> Int[Array, "H W"]:
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    step = (values.size - counts[values.max()]) // 255
    table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(table, 255)[values], values)
