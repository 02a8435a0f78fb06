"""Whether settings are compared seed by seed: only where a common seed makes their values alike."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax.stats.comparison import Values
from cnnjax.stats.spread import LEVEL, as_sample, deviations, t_quantile

_CHANCE = 0.01  # risk of taking a correlation of chance for one of the seeds


def have_same_seeds(groups: Mapping[Any, Values]) -> bool:
    """Whether all settings have the same seeds."""
    first = next(iter(groups.values())).keys()
    return all(values.keys() == first for values in groups.values())


def pairing_helps(groups: Mapping[Any, Values]) -> bool:
    """Decides, once for all settings of a study, whether their comparisons are paired by seed.

    Pairing takes the spread that settings share by seed out of their difference, and costs half of the degrees of
    freedom: it makes intervals shorter where the correlation rho exceeds `break_even(n)`, 0.58 of three seeds and 0.14
    of ten. So settings are paired where they have the same seeds, the correlation pooled over all of them exceeds that,
    and the F test of a common effect of the seeds refutes (p < 0.01) that it is one of chance. Otherwise they are
    compared by Welch's test, which any correlation that a common seed brings makes stricter.

    Two settings that are equal are called different in at most 5 % of studies, or as seldom as by Welch's test, also
    though the values themselves decide: a correlation of chance, of pairs whose spread is small by luck, passes for a
    real one too seldom to count. The rule knows no p-value of a comparison, and is the same for all of them.

    Args:
        groups: the values of each setting by seed.
    """
    n, count = len(next(iter(groups.values()))), len(groups)
    if count < 2 or n < 2 or not have_same_seeds(groups):
        return False
    seeds = next(iter(groups.values()))
    values = np.array([as_sample([of[seed] for seed in seeds]) for of in groups.values()])
    rho, p = seed_correlation(values)
    return rho > break_even(n) and p < _CHANCE


def seed_correlation(values: np.ndarray) -> tuple[float, float]:
    """Returns the correlation of settings over their common seeds, and the p-value that there is none.

    Args:
        values: of each setting and seed, [settings, seeds], at least two of each.

    Returns:
        The mean covariance of two settings over the mean variance of one, and the p-value of the F test of the seeds'
        effect in the two-way layout; (nan, nan) without a spread.

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
    """Returns the correlation above which pairing n seeds makes the interval of a difference shorter."""
    return 1 - (t_quantile(2 * n - 2, LEVEL) / t_quantile(n - 1, LEVEL)) ** 2
