"""Main effects and interactions of a grid's axes, and means along them."""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.stats.spread import Interval, interval_around, sum_of_squares, t_quantile, variance


class Effect(NamedTuple):
    """The main effect of one axis, or the interaction of two.

    Attributes:
        axes: their names.
        freedom: degrees of freedom.
        share: of the total sum of squares of all trials.
        f: the F statistic against the variance of seeds; NaN if no configuration has two seeds or a spread.
        p: its p-value, not corrected for the number of effects.
    """

    axes: tuple[str, ...]
    freedom: int
    share: float
    f: float
    p: float


class Effects(NamedTuple):
    """Main effects and interactions of two axes, the largest share first.

    `higher` is the share of interactions of three and more axes, `seeds` that of seeds within configurations. In a
    complete, balanced grid the shares add up to 1.
    """

    effects: tuple[Effect, ...]
    higher: float
    seeds: float
    trials: int
    configurations: int


class Marginal(NamedTuple):
    """The unweighted mean of the configurations at one level of an axis, or of several axes together.

    `low`..`high` is its 95 % interval over seeds, for these configurations; NaN if one of them has a single seed, or
    without a spread. Each configuration has a variance of its own, so that the coverage is up to 98 % with two or three
    seeds each. `std` is the standard deviation of the configurations' means: over hyperparameters, not seeds.
    """

    levels: tuple[Hashable, ...]
    mean: float
    low: float
    high: float
    std: float
    configurations: int
    trials: int


def explain_variance(columns: Mapping[str, Sequence], values: Sequence[float]) -> Effects:
    """Analyzes the variance of a grid's trials by axis, with seeds as repetitions (functional ANOVA).

    The sums of squares are of type II, as those of statsmodels' `anova_lm(typ=2)`: each term is adjusted for all terms
    that do not contain it. In contrast to statsmodels, cells of the grid may be empty and axes may be nested: momentum,
    which only sgd has, explains what the optimizer leaves.

    Args:
        columns: the level of each axis in each trial, for example a data frame's columns. An axis with one level is
            left out.
        values: the measure of each trial.

    References:
        Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance (2014).

    Raises:
        ValueError: no axis has two levels, or a value is not finite.
    """
    from scipy.special import fdtrc

    y = np.asarray(values, np.float64)
    codes = {name: _codes(columns[name]) for name in columns}
    codes = {name: code for name, code in codes.items() if len(code) and code.max() > 0}
    if not codes or not np.isfinite(y).all():
        raise ValueError("a grid has finite values, and two levels of some axis")
    terms = [term for size in (1, 2) for term in itertools.combinations(codes, size)]
    blocks = {term: _indicators([codes[name] for name in term]) for term in terms}
    configurations = _joint_codes(list(codes.values()))
    total = sum_of_squares(y)
    within = sum(sum_of_squares(y[configurations == s]) for s in range(configurations.max() + 1))
    seed_freedom = len(y) - (int(configurations.max()) + 1)
    error = within / seed_freedom if seed_freedom and within > 0 else math.nan
    found = []
    for term in terms:
        others = [blocks[other] for other in terms if not set(term) <= set(other)]
        without, rank_without = _residual(y, others)
        with_it, rank = _residual(y, [*others, blocks[term]])
        if freedom := rank - rank_without:
            squares = max(0.0, without - with_it)
            f = squares / freedom / error
            p = float(fdtrc(freedom, seed_freedom, f)) if seed_freedom else math.nan
            found.append(Effect(term, freedom, squares / total if total else math.nan, f, p))
    left, _ = _residual(y, list(blocks.values()))
    higher, seeds = (max(0.0, left - within) / total, within / total) if total else (math.nan, math.nan)
    found.sort(key=lambda effect: -effect.share)
    return Effects(tuple(found), higher, seeds, len(y), int(configurations.max()) + 1)


def marginal_means(
    columns: Mapping[str, Sequence], values: Sequence[float], axes: Sequence[str]
) -> tuple[Marginal, ...]:
    """Returns the mean of the configurations at each level of an axis, or of several axes for their interaction.

    Args:
        columns: the level of each axis of the grid in each trial. Trials with equal levels are one configuration.
        values: the measure of each trial.
        axes: the axes whose levels are distinguished.

    Returns:
        One mean for each combination of levels that occurs, in order of appearance. NaN stands for the level None.
    """
    y = np.asarray(values, np.float64)
    configurations = _joint_codes([_codes(columns[name]) for name in columns])
    levels: dict[tuple, list[int]] = {}
    for place, level in enumerate(zip(*(map(_key, columns[name]) for name in axes), strict=True)):
        levels.setdefault(level, []).append(place)
    found = []
    for level, places in levels.items():
        samples = [y[places][configurations[places] == s] for s in np.unique(configurations[places])]
        means = np.array([sample.mean() for sample in samples])
        low, high = _interval(samples)
        std = float(means.std(ddof=1)) if len(means) > 1 else math.nan
        found.append(Marginal(level, float(means.mean()), low, high, std, len(samples), len(places)))
    return tuple(found)


def _interval(samples: list[np.ndarray]) -> Interval:
    """Returns the t interval of the mean of samples' means with unequal variances (Welch and Satterthwaite)."""
    if min(map(len, samples)) < 2:
        return Interval(math.nan, math.nan)
    parts = np.array([variance(sample) / len(sample) for sample in samples])
    freedoms = np.array([len(sample) - 1 for sample in samples])
    mean = float(np.mean([sample.mean() for sample in samples]))
    error = math.sqrt(parts.sum()) / len(samples)
    freedom = parts.sum() ** 2 / (parts**2 / freedoms).sum() if error else math.nan
    return interval_around(mean, t_quantile(freedom) * error)


def _codes(column: Sequence) -> np.ndarray:
    """Returns a number for each level, in order of appearance. None and NaN are one level."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(_key(level), len(numbers)) for level in column])


def _key(level: Hashable) -> Hashable:
    """Returns a key of a level: NaN does not equal itself."""
    return None if isinstance(level, float) and math.isnan(level) else level


def _joint_codes(codes: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.stack(codes), axis=1, return_inverse=True)[1].reshape(-1)


def _indicators(codes: list[np.ndarray]) -> np.ndarray:
    joint = _joint_codes(codes)
    return (joint[:, None] == np.arange(joint.max() + 1)).astype(np.float64)


def _residual(y: np.ndarray, blocks: list[np.ndarray]) -> tuple[float, int]:
    """Returns the residual sum of squares of a least-squares fit, and the rank of its design matrix."""
    design = np.concatenate([np.ones((len(y), 1)), *blocks], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=1e-9)
    return float(((y - design @ solution) ** 2).sum()), int(rank)
