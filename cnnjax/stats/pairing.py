"""Whether to compare configurations seed by seed: only if a common seed makes their values similar."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax.stats.comparison import Values
from cnnjax.stats.spread import LEVEL, as_sample, deviations, t_quantile

_CHANCE = 0.01  # risk of taking a chance correlation for an effect of the seeds


def have_same_seeds(groups: Mapping[Any, Values]) -> bool:
    """Returns whether all configurations have the same seeds."""
    first = next(iter(groups.values())).keys()
    return all(values.keys() == first for values in groups.values())


def pairing_helps(groups: Mapping[Any, Values]) -> bool:
    """Decides once for a whole study whether comparisons are paired by seed.

    Pairing removes the variation that configurations share by seed, and halves the degrees of freedom. It makes
    intervals shorter if the correlation exceeds `break_even(n)`: 0.58 for three seeds, 0.14 for ten. So configurations
    are paired if they have the same seeds, their pooled correlation exceeds that, and the F test of a common effect of
    the seeds has p < 0.01. Otherwise Welch's test compares them; a correlation by seed only makes it stricter.

    The values themselves decide here, but the error rate of a comparison stays at 5 % or below: a chance correlation
    passes the F test too rarely to matter, and the rule uses no p-value of a comparison.

    Args:
        groups: the values of each configuration by seed.
    """
    n, count = len(next(iter(groups.values()))), len(groups)
    if count < 2 or n < 2 or not have_same_seeds(groups):
        return False
    seeds = next(iter(groups.values()))
    values = np.array([as_sample([of[seed] for seed in seeds]) for of in groups.values()])
    rho, p = seed_correlation(values)
    return rho > break_even(n) and p < _CHANCE


def seed_correlation(values: np.ndarray) -> tuple[float, float]:
    """Returns the correlation of configurations over their common seeds, and the p-value of no effect of the seeds.

    Args:
        values: [configurations, seeds], at least two of each.

    Returns:
        The mean covariance of two configurations over the mean variance of one, and the p-value of the seeds' F test in
        the two-way layout; (NaN, NaN) without a spread.

    References:
        Shrout and Fleiss, Intraclass correlations (1979), case 3.
    """
    from scipy.special import fdtrc

    count, n = values.shape
    centered = np.array([deviations(row) for row in values])
    shared = deviations(centered.mean(axis=0), np.abs(values).max())
    total, of_seeds = float((centered**2).sum()), count * float((shared**2).sum())
    if not total > 0:
        return math.nan, math.nan
    rho = (of_seeds * count / total - 1) / (count - 1)
    rest = float((deviations(centered - shared, np.abs(values).max()) ** 2).sum())
    if not rest > 0:
        return rho, 0.0
    f = of_seeds * (count - 1) / rest
    return rho, float(fdtrc(n - 1, (n - 1) * (count - 1), f))


def break_even(n: int) -> float:
    """Returns the correlation above which pairing makes the interval of a difference of n seeds shorter."""
    return 1 - (t_quantile(2 * n - 2, LEVEL) / t_quantile(n - 1, LEVEL)) ** 2
