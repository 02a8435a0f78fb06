"""What mattered: main effects and interactions of a grid's axes, and means along them."""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.stats.spread import Interval, interval_around, sum_of_squares, t_quantile, variance


class Effect(NamedTuple):
    """What one axis, or two together beyond what each does alone, explains.

    Attributes:
        axes: their names.
        freedom: degrees of freedom.
        share: of the variance of all trials, as a share of their total sum of squares.
        f: the F statistic against the spread of seeds; nan where no setting has two seeds, or none shows a spread.
        p: its p-value, with no correction for the number of effects.
    """

    axes: tuple[str, ...]
    freedom: int
    share: float
    f: float
    p: float


class Effects(NamedTuple):
    """Main effects and interactions of two axes, the largest share first.

    `higher` is the share of interactions of three and more axes, `seeds` that of seeds within settings; in a complete
    grid of equally many seeds all shares add up to 1.
    """

    effects: tuple[Effect, ...]
    higher: float
    seeds: float
    trials: int
    settings: int


class Marginal(NamedTuple):
    """The mean of the settings at one level of an axis (or of several together), each setting counting once.

    `low`..`high`: its 95 % interval over seeds, these settings given; nan where one of them has a single seed, or none
    shows a spread. Each setting has a spread of its own, so that with two or three seeds each it holds the truth in up
    to 98 %.
    `std` is the standard deviation of the settings' means: of hyperparameters, not of seeds.
    """

    levels: tuple[Hashable, ...]
    mean: float
    low: float
    high: float
    std: float
    settings: int
    trials: int


def explain_variance(columns: Mapping[str, Sequence], values: Sequence[float]) -> Effects:
    """Splits the variance of a grid's trials among its axes: a functional analysis of variance, seeds as repetitions.

    The sums of squares are of type II: of an axis beyond all others, of two together beyond all that lacks them both;
    in a complete grid of equally many seeds that is the classical analysis. An axis that varies only with another
    (momentum, that only sgd has) explains what that other leaves.

    Args:
        columns: the level of each axis in each trial; an axis with one level explains nothing. A data frame's columns
            will do.
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
    settings = _joint_codes(list(codes.values()))
    total = sum_of_squares(y)
    within = sum(sum_of_squares(y[settings == s]) for s in range(settings.max() + 1))
    seed_freedom = len(y) - (int(settings.max()) + 1)
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
    return Effects(tuple(found), higher, seeds, len(y), int(settings.max()) + 1)


def marginal_means(
    columns: Mapping[str, Sequence], values: Sequence[float], axes: Sequence[str]
) -> tuple[Marginal, ...]:
    """Averages settings along an axis, or along several for their interaction.

    Args:
        columns: the level of each axis of the grid in each trial; equal levels of all make a setting.
        values: the measure of each trial.
        axes: those whose levels are told apart.

    Returns:
        One mean for each combination of their levels that there is, in order of appearance; nan is the level None.
    """
    y = np.asarray(values, np.float64)
    settings = _joint_codes([_codes(columns[name]) for name in columns])
    levels: dict[tuple, list[int]] = {}
    for place, level in enumerate(zip(*(map(_key, columns[name]) for name in axes), strict=True)):
        levels.setdefault(level, []).append(place)
    found = []
    for level, places in levels.items():
        samples = [y[places][settings[places] == s] for s in np.unique(settings[places])]
        means = np.array([sample.mean() for sample in samples])
        low, high = _interval(samples)
        std = float(means.std(ddof=1)) if len(means) > 1 else math.nan
        found.append(Marginal(level, float(means.mean()), low, high, std, len(samples), len(places)))
    return tuple(found)


def _interval(samples: list[np.ndarray]) -> Interval:
    """The t interval of the mean of samples' means, each with a variance of its own (Welch and Satterthwaite)."""
    if min(map(len, samples)) < 2:
        return Interval(math.nan, math.nan)
    parts = np.array([variance(sample) / len(sample) for sample in samples])
    freedoms = np.array([len(sample) - 1 for sample in samples])
    mean = float(np.mean([sample.mean() for sample in samples]))
    error = math.sqrt(parts.sum()) / len(samples)
    freedom = parts.sum() ** 2 / (parts**2 / freedoms).sum() if error else math.nan
    return interval_around(mean, t_quantile(freedom) * error)


def _codes(column: Sequence) -> np.ndarray:
    """Numbers equal levels alike, in order of appearance; None and nan are levels."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(_key(level), len(numbers)) for level in column])


def _key(level: Hashable) -> Hashable:
    """A level by which to find it again: one nan does not equal another."""
    return None if isinstance(level, float) and math.isnan(level) else level


def _joint_codes(codes: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.stack(codes), axis=1, return_inverse=True)[1].reshape(-1)


def _indicators(codes: list[np.ndarray]) -> np.ndarray:
    joint = _joint_codes(codes)
    return (joint[:, None] == np.arange(joint.max() + 1)).astype(np.float64)


def _residual(y: np.ndarray, blocks: list[np.ndarray]) -> tuple[float, int]:
    """The squares that the levels leave unexplained, and how many free parameters explain the rest."""
    design = np.concatenate([np.ones((len(y), 1)), *blocks], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=1e-9)
    return float(((y - design @ solution) ** 2).sum()), int(rank)
