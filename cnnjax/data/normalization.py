"""Exact statistics of pixels, and the affine maps that normalize them."""

import math
from typing import NamedTuple

import numpy as np

from cnnjax.data.dataset import Dataset
from cnnjax.utils.errors import RequestError, one_of


def normalization_map(dataset: Dataset, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the affine map that normalizes the pixels of a data set, see `affine_map`."""
    return affine_map(dataset.mean, dataset.std, kind)


def affine_map(mean: np.ndarray, std: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the affine map that normalizes pixels.

    Args:
        mean: float32 [C], mean of the training pixels in 0..1.
        std: float32 [C], standard deviation of the training pixels in 0..1.
        kind: `unit` (x/255), `half` ((x/255 - .5)/.5), `standard` ((x/255 - mean)/std; a channel
            with std 0 is only centered) or `none` (x).

    Returns:
        (scale, shift), float32 [C]: a pixel of 0..255 becomes `pixel * scale + shift`.

    Raises:
        RequestError: `kind` is unknown.
    """
    channels = len(mean)
    if kind == "standard":
        mean, std = mean.astype(np.float64), np.where(std > 0, std, 1).astype(np.float64)
    else:
        affine = {"unit": (0.0, 1.0), "half": (0.5, 0.5), "none": (0.0, 1 / 255)}
        if kind not in affine:
            raise RequestError("data.normalization", kind, one_of(kind, [*affine, "standard"]))
        mean, std = np.full(channels, affine[kind][0]), np.full(channels, affine[kind][1])
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


BLACK = 10  # the highest level of a black pixel


class PixelStatistics(NamedTuple):
    """Statistics of the pixels of a channel; `std` is the population standard deviation."""

    pixels: int
    min: float
    mean: float
    std: float
    max: float


def level_counts(images: np.ndarray) -> np.ndarray:
    """Counts each level in each channel of images uint8 [N, H, W, C]: int64 [C, 256]."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 512):  # bincount takes 8 bytes per pixel
        pixels = images[start : start + 512].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    return counts


def pixel_statistics(counts: np.ndarray, scale: float = 1, shift: float = 0) -> PixelStatistics:
    """Returns the statistics of `pixel * scale + shift` for positive scale; counts int [256] are per level."""
    levels = np.flatnonzero(counts)
    count, total, squares = (int((counts[levels] * levels**power).sum()) for power in range(3))
    std = math.sqrt(count * squares - total**2) / count  # exact up to the root
    low, mean, high = (scale * value + shift for value in (int(levels[0]), total / count, int(levels[-1])))
    return PixelStatistics(count, low, mean, scale * std, high)


def black_share(counts: np.ndarray) -> float:
    """Returns the fraction of pixels of at most `BLACK`, from counts [..., 256]."""
    return float(counts[..., : BLACK + 1].sum() / counts.sum())
