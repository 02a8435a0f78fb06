"""What can be said of pixels from how often each of their 256 levels occurs: exact, and read once."""

import math
from typing import NamedTuple

import numpy as np

BLACK = 10  # a pixel of at most this is called black


class PixelStatistics(NamedTuple):
    """Of one channel's pixels; `std` is the population standard deviation."""

    pixels: int
    min: float
    mean: float
    std: float
    max: float


def level_counts(images: np.ndarray) -> np.ndarray:
    """Counts how often each level occurs in each channel.

    Args:
        images: uint8 [N, H, W, C].

    Returns:
        int64 [C, 256].
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 512):  # numpy counts in 8 bytes a pixel
        pixels = images[start : start + 512].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    return counts


def pixel_statistics(counts: np.ndarray, scale: float = 1, shift: float = 0) -> PixelStatistics:
    """Returns the statistics of pixels mapped to `pixel * scale + shift`, scale above 0.

    Args:
        counts: int [256], how often each level occurs; not all zero.
        scale: factor.
        shift: summand.
    """
    present = np.flatnonzero(counts)
    weights, levels = [int(counts[level]) for level in present], [int(level) for level in present]
    count = sum(weights)
    total = sum(w * v for w, v in zip(weights, levels, strict=True))
    squares = sum(w * v * v for w, v in zip(weights, levels, strict=True))
    std = math.sqrt(count * squares - total**2) / count  # of whole numbers: nothing is lost before the root
    low, mean, high = (scale * value + shift for value in (levels[0], total / count, levels[-1]))
    return PixelStatistics(count, low, mean, scale * std, high)


def black_share(counts: np.ndarray) -> float:
    """Returns the share of pixels of at most `BLACK`, of counts [..., 256]."""
    return float(counts[..., : BLACK + 1].sum() / counts.sum())
