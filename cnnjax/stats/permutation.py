"""Permutation tests of two samples: every rearrangement where they are few, else as many drawn at random."""

import itertools
import math

import numpy as np

from cnnjax.stats.spread import ROUNDING

_PERMUTATIONS = 20_000  # all there are, if fewer: of 14 pairs, or of two samples of 8


def sign_flip_p(a: np.ndarray, b: np.ndarray) -> float:
    """Tests pairs [n]: the share of flips of their differences' signs that bring the mean as far from zero or further.

    The observed signs are one of the flips.
    """
    n, gaps, rng = len(a), a - b, np.random.default_rng(0)
    flips = min(2**n, _PERMUTATIONS)
    least = abs(gaps.sum()) - n * _rounding(a, b)
    as_far = 0
    for first in range(0, flips, 1000):  # little memory, also of thousands of seeds
        count = min(1000, flips - first)
        every = np.arange(first, first + count)[:, None] >> np.arange(n) & 1 if flips == 2**n else None
        signs = 1 - 2 * (rng.integers(0, 2, (count, n)) if every is None else every)
        as_far += int((np.abs(signs @ gaps) >= least).sum())
    return _share(as_far, flips, 2**n)


def exchange_p(a: np.ndarray, b: np.ndarray) -> float:
    """Tests samples [n] and [m]: twice the share of exchanges with so large a t or larger; or smaller, if fewer.

    The observed samples are one of the exchanges.

    The difference d and its standard error e are a point whose angle atan2(d, e) grows with t = d / e. The rounding of
    the values moves that point by less than `_rounding`, and turns it by less than that over its distance from (0, 0).
    """
    n, m = len(a), len(b)
    values, rounding, rng = np.concatenate((a, b)), _rounding(a, b), np.random.default_rng(0)
    values = values - values.mean()  # small numbers, to lose no digits
    squares = values**2

    def turn(is_a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The angles, and the distances, where these values [count, n + m] are A's."""
        total, square = is_a @ values, is_a @ squares  # B's total is -total
        variances = (square - total**2 / n) / (n - 1), (squares.sum() - square - total**2 / m) / (m - 1)
        difference, error = total / n + total / m, np.sqrt(np.maximum(variances, 0).T @ (1 / n, 1 / m))
        return np.arctan2(difference, error), np.hypot(difference, error)

    angle, distance = turn(np.arange(n + m)[None] < n)
    every = math.comb(n + m, n)
    exchanges = min(every, _PERMUTATIONS)
    splits = itertools.combinations(range(n + m), n)
    as_high = as_low = 0
    for first in range(0, exchanges, 1000):
        count = min(1000, exchanges - first)
        if exchanges == every:
            is_a = np.zeros((count, n + m), bool)
            np.put_along_axis(is_a, np.array([*itertools.islice(splits, count)]), True, axis=1)
        else:
            is_a = rng.random((count, n + m)).argsort(axis=1) < n
        angles, distances = turn(is_a)
        beyond = (angles - angle) * np.minimum(distances, distance)
        as_high += int((beyond >= -rounding).sum())
        as_low += int((beyond <= rounding).sum())
    return min(1.0, 2 * _share(min(as_high, as_low), exchanges, every))


def _share(extreme: int, tried: int, every: int) -> float:
    """The share of rearrangements; of some that were drawn, with the observed one as one more."""
    return extreme / tried if tried == every else (extreme + 1) / (tried + 1)


def _rounding(a: np.ndarray, b: np.ndarray) -> float:
    """How far two differences of means may be apart and yet be equal, by the rounding of the values."""
    return ROUNDING * float(max(np.abs(a).max(), np.abs(b).max()))
