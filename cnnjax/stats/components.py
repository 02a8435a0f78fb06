"""Variance components of a crossed study of random streams."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.stats.spread import LEVEL, deviations

_DRAWS = 4000
RESIDUAL = "residual"


class Component(NamedTuple):
    """The variance that one source, or the interaction of several, contributes.

    Attributes:
        sources: their names; one for a main effect.
        freedom: degrees of freedom.
        mean_square: of the analysis of variance.
        estimate: unbiased estimate of the variance; it can be negative.
        variance: the estimate, clipped at zero.
        std: square root of the variance.
        low: lower end of the 95 % interval of the variance, clipped at zero.
        high: upper end.
        share: the variance over the sum of all variances; NaN if all values are equal.
        share_low: lower end of the 95 % interval of the share.
        share_high: upper end.
    """

    sources: tuple[str, ...]
    freedom: int
    mean_square: float
    estimate: float
    variance: float
    std: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float


class Components(NamedTuple):
    """All components, main effects first.

    `total` is the sum of their variances: the variance of one trial whose streams are all new. `confounded` is true if
    each combination was trained once. The highest interaction then includes the differences between repetitions of one
    combination, which are zero if training is deterministic.
    """

    components: tuple[Component, ...]
    total: float
    mean: float
    levels: dict[str, int]
    confounded: bool


def variance_components(columns: Mapping[str, Sequence], values: Sequence[float]) -> Components:
    """Estimates the variance components of a crossed study: of each source and of their interactions.

    The model has random effects: the levels of each source, the seeds of a stream, are random draws. The estimates
    equate mean squares with their expectations. The intervals are generalized (fiducial) ones: the same equations of
    mean squares that are divided by chi-squared draws, for normal effects. SciPy and statsmodels have no such analysis;
    statsmodels' `anova_lm` gives the same mean squares.

    Args:
        columns: the level of each source in each trial, for example a data frame's columns. A source with one level is
            left out.
        values: the measure of each trial.

    Returns:
        Every main effect and interaction, and the residual if combinations were trained several times.

    References:
        Searle, Casella and McCulloch, Variance components, section 4.4; Weerahandi, Generalized confidence intervals
        (1993).

    Raises:
        ValueError: no source has two levels, or the combinations are not all present equally often.
    """
    cells, levels = _cross({name: np.asarray(columns[name]) for name in columns}, np.asarray(values, np.float64))
    names, replicates = list(levels), cells.shape[-1]
    squares, freedoms = _analyze(cells, names)
    if not deviations(cells.ravel()).any():  # only rounding
        squares = dict.fromkeys(squares, 0.0)
    subsets = list(squares)
    sizes = dict(zip((*names, RESIDUAL), cells.shape, strict=True))
    # Row S of the equations: the sum of the mean squares of all T that include S, their signs alternating, over the
    # trials at one level of S. The residual lies within the combinations and belongs to the equation of these alone.
    equations = np.zeros((len(subsets), len(subsets)))
    for (row, ours), (column, theirs) in itertools.product(enumerate(subsets), repeat=2):
        if ours <= theirs and (RESIDUAL not in theirs or len(ours) >= len(names)):
            trials = math.prod(size for name, size in sizes.items() if name not in ours)
            equations[row, column] = (-1) ** len(theirs - ours) / trials
    mean_squares = np.array([squares[s] / freedoms[s] for s in subsets])
    estimates = equations @ mean_squares
    variances = np.maximum(estimates, 0)
    generator = np.random.default_rng(0)
    freedom = np.array([freedoms[s] for s in subsets])
    drawn = mean_squares * freedom / generator.chisquare(freedom, (_DRAWS, len(subsets)))
    drawn = np.maximum(drawn @ equations.T, 0)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    sums = drawn.sum(axis=1, keepdims=True)
    nothing = np.full_like(drawn, 0.0 if mean_squares.any() else math.nan)
    drawn_shares = np.divide(drawn, sums, out=nothing, where=sums > 0)
    share_low, share_high = np.quantile(drawn_shares, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    total = float(variances.sum())
    found = tuple(
        Component(
            sources=(RESIDUAL,) if RESIDUAL in subset else tuple(name for name in names if name in subset),
            freedom=int(freedom[i]),
            mean_square=float(mean_squares[i]),
            estimate=float(estimates[i]),
            variance=float(variances[i]),
            std=math.sqrt(variances[i]),
            low=float(low[i]),
            high=float(high[i]),
            share=float(variances[i] / total) if total else math.nan,
            share_low=float(share_low[i]),
            share_high=float(share_high[i]),
        )
        for i, subset in enumerate(subsets)
    )
    return Components(found, total, float(cells.mean()), levels, replicates == 1)


def _cross(columns: dict[str, np.ndarray], values: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Returns the values, an axis for each source that varies and one for repetitions, and the numbers of levels."""
    codes = {name: np.unique(column, return_inverse=True)[1] for name, column in columns.items()}
    levels = {name: int(code.max()) + 1 for name, code in codes.items() if len(code) and code.max() > 0}
    if not levels or not np.isfinite(values).all():
        raise ValueError("a crossed study has finite values, and two levels of some source")
    shape = tuple(levels.values())
    places = np.ravel_multi_index([codes[name] for name in levels], shape)
    counts = np.bincount(places, minlength=math.prod(shape))
    if counts.min() != counts.max():
        missing = np.unravel_index(int(counts.argmin()), shape)
        where = ", ".join(f"{n} {np.unique(columns[n])[i]}" for n, i in zip(levels, missing, strict=True))
        raise ValueError(f"not crossed: {where} is there {counts.min()} times, another {counts.max()} times")
    return values[np.argsort(places, kind="stable")].reshape(*shape, -1), levels


def _analyze(cells: np.ndarray, names: list[str]) -> tuple[dict[frozenset, float], dict[frozenset, int]]:
    """Returns sums of squares and degrees of freedom of each set of sources, small sets first."""
    effects: dict[frozenset, np.ndarray] = {frozenset(): cells.mean(keepdims=True)}
    squares, freedoms = {}, {}
    for size in range(1, len(names) + 1):
        for chosen in itertools.combinations(range(len(names)), size):
            others = tuple(i for i in range(cells.ndim) if i not in chosen)
            subset = frozenset(names[i] for i in chosen)
            within = [effect for smaller, effect in effects.items() if smaller < subset]
            effects[subset] = cells.mean(axis=others, keepdims=True) - sum(within)
            repeated = cells.size // math.prod(cells.shape[i] for i in chosen)
            squares[subset] = float((effects[subset] ** 2).sum()) * repeated
            freedoms[subset] = math.prod(cells.shape[i] - 1 for i in chosen)
    if cells.shape[-1] > 1:
        residual = frozenset((*names, RESIDUAL))
        squares[residual] = float(((cells - cells.mean(axis=-1, keepdims=True)) ** 2).sum())
        freedoms[residual] = cells.size - cells[..., 0].size
    return squares, freedoms
