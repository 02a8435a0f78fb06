"""Permutation tests of two samples, by `scipy.stats.permutation_test`.

SciPy finds the null distribution. The p-value is counted here, because values stored as float32 are tied only up to
their rounding, which is more than the rounding of float64 that SciPy allows for.
"""

import math
from collections.abc import Callable

import numpy as np

from cnnjax.stats.spread import ROUNDING

_RESAMPLES = 20_000  # at most; all permutations where they are no more: of 14 pairs, or of two samples of 8


def sign_flip_p(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the two-sided p-value of pairs [n]: of the mean difference, over flips of the differences' signs."""

    def mean_difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return (a - b).mean(axis)

    return _p_value(a, b, mean_difference, "samples", 2 ** len(a), _rounding(a, b))


def exchange_p(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the two-sided p-value of samples [n] and [m]: of Welch's t, over exchanges between the samples.

    The statistic is the angle of the point (standard error, difference), which grows with t and is finite without a
    spread. The rounding of the values turns the point by at most that rounding over its distance from the origin.
    """
    shift = np.concatenate((a, b)).mean()  # smaller numbers lose fewer digits
    a, b, rounding = a - shift, b - shift, _rounding(a, b)

    def point(a: np.ndarray, b: np.ndarray, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
        variances = (x.var(axis, ddof=1) / x.shape[axis] for x in (a, b))
        return a.mean(axis) - b.mean(axis), np.sqrt(sum(variances))

    def angle(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.arctan2(*point(a, b, axis))

    distance = np.hypot(*point(a, b))
    turn = float(rounding / distance) if distance > rounding else math.pi
    return _p_value(a, b, angle, "independent", math.comb(len(a) + len(b), len(a)), turn)


def _p_value(
    a: np.ndarray, b: np.ndarray, statistic: Callable, permutations: str, count: int, tolerance: float
) -> float:
    """Returns twice the smaller share of permutations whose statistic is at least, or at most, the observed one."""
    from scipy.stats import permutation_test

    found = permutation_test(
        (a, b),
        statistic,
        permutation_type=permutations,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(0),
    )
    above = found.null_distribution - found.statistic
    extreme = min((above >= -tolerance).sum(), (above <= tolerance).sum())
    # The observed samples are one of all permutations, and count as one more beside those drawn at random.
    drawn = int(count > _RESAMPLES)
    return min(1.0, 2 * float(extreme + drawn) / (above.size + drawn))


def _rounding(a: np.ndarray, b: np.ndarray) -> float:
    """Returns how far two equal differences of means may be apart by the rounding of the values."""
    return ROUNDING * float(max(np.abs(a).max(), np.abs(b).max()))
