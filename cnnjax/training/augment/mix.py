"""Cutout of an image, and mixtures of two images and their labels."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32
from scipy.special import betaincinv

from cnnjax.training.augment.draws import draw, draw_bits, whole

_PARTS = 2**12


def cut_out(images: Float[Array, "B H W C"], words_B: UInt32[Array, " B"], side: int) -> Float[Array, "B H W C"]:
    """Sets a square of each image to zero (DeVries & Taylor 2017, arXiv:1708.04552).

    The images are normalized. Each pixel is the center with the same probability; the border cuts squares.
    """
    _, height, width, _ = images.shape
    row, column = draw(words_B, "cutout", 2)
    inside = _box(whole(row, height), whole(column, width), side, side, height, width)
    return jnp.where(inside[..., None], 0, images)


def mix_up(
    images: Float[Array, "B H W C"], targets: Float[Array, "B K"], words_B: UInt32[Array, " B"], alpha: float
) -> tuple[Float[Array, "B H W C"], Float[Array, "B K"]]:
    """Returns weight * image + (1 - weight) * partner, and the labels likewise (Zhang et al. 2018, arXiv:1710.09412).

    The partners are a random permutation of the batch. Each image has a weight of its own, from Beta(alpha, alpha).
    """
    weight, *_ = draw(words_B, "mixup", 1)
    weights, partners = _beta(alpha, weight), _partners(words_B, "mixup")
    mixed = _blend(images, partners, weights[:, None, None, None])
    return mixed, _blend(targets, partners, weights[:, None])


def cut_mix(
    images: Float[Array, "B H W C"], targets: Float[Array, "B K"], words_B: UInt32[Array, " B"], alpha: float
) -> tuple[Float[Array, "B H W C"], Float[Array, "B K"]]:
    """Replaces a box of each image by that of its partner (Yun et al. 2019, arXiv:1905.04899).

    The box has the share 1 - weight of the image, with the weight from Beta(alpha, alpha), and the image's proportions.
    Each pixel is its center with the same probability. The border cuts boxes: the weights of the labels are the shares
    of the pixels. The partners are those of a random permutation.
    """
    _, height, width, _ = images.shape
    weight, row, column = draw(words_B, "cutmix", 3)
    side = jnp.sqrt(1 - _beta(alpha, weight))
    tall, wide = ((side * size).astype(jnp.int32) for size in (height, width))
    inside = _box(whole(row, height), whole(column, width), tall, wide, height, width)
    partners = _partners(words_B, "cutmix")
    mixed = jnp.where(inside[..., None], images[partners], images)
    return mixed, _blend(targets, partners, 1 - inside.mean((1, 2))[:, None])


def _box(
    rows: Int[Array, " B"], columns: Int[Array, " B"], tall: Array | int, wide: Array | int, height: int, width: int
) -> Bool[Array, "B H W"]:
    """Returns which pixels are in a box of `tall` by `wide` around a center."""

    def inside(centers: Array, size: Array | int, count: int) -> Array:
        first = centers - size // 2
        places = jnp.arange(count)
        return (places >= first[:, None]) & (places < (first + size)[:, None])

    return inside(rows, tall, height)[:, :, None] & inside(columns, wide, width)[:, None]


def _partners(words_B: Array, name: str) -> Int[Array, " B"]:
    # The last of the image's own words: the first ones decide other things.
    return jnp.argsort(draw_bits(words_B, name, 4)[:, 3])


def _blend(values: Array, partners: Array, weights: Array) -> Array:
    return weights * values + (1 - weights) * values[partners]


def _beta(alpha: float, uniform: Float[Array, " B"]) -> Float[Array, " B"]:
    """Returns numbers from Beta(alpha, alpha): its quantiles in the middles of equal parts of [0, 1]."""
    return jnp.asarray(_quantiles(alpha))[(uniform * _PARTS).astype(jnp.int32)]


@functools.cache
def _quantiles(alpha: float) -> np.ndarray:
    return betaincinv(alpha, alpha, (np.arange(_PARTS) + 0.5) / _PARTS).astype(np.float32)
