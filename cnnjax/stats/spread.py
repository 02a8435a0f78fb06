"""Means, standard deviations and intervals of small samples.

Quantiles come from scipy.special, which imports in a tenth of the time of scipy.stats.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # of every interval
RESAMPLES = 2000  # of every bootstrap, equal in each call
_EVERYWHERE = (-math.inf, math.inf)
ROUNDING = 4 * float(np.finfo(np.float32).eps)  # equal values differ by it, for a run's files hold float32
Sample = Sequence[float] | np.ndarray


class Interval(NamedTuple):
    """A 95 % interval. Both ends are NaN if the spread is unknown or zero."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics of a sample of n values.

    `std` has ddof 1, and `low`..`high` is the 95 % t interval of the mean. `iqm` is the interquartile mean, and
    `iqm_low`..`iqm_high` its 95 % bootstrap interval, NaN with fewer than six values. `std`, `sem` and the intervals
    are NaN with one value. Equal values have no interval either, because it would be a point.
    """

    n: int
    mean: float
    std: float
    sem: float
    min: float
    max: float
    range: float
    low: float
    high: float
    iqm: float
    iqm_low: float
    iqm_high: float


def summarize(values: Sample, bounds: tuple[float, float] = _EVERYWHERE) -> Summary:
    """Returns statistics of a sample, for example of the accuracies of one configuration over its seeds.

    Args:
        values: the sample.
        bounds: the smallest and the largest possible mean. Intervals are clipped to them, which does not change their
            coverage.

    Raises:
        ValueError: the sample is empty, or a value is not finite.
    """
    sample = as_sample(values)
    n, mean, std = len(sample), float(sample.mean()), _std(sample)
    sem = std / math.sqrt(n)
    least, most = float(sample.min()), float(sample.max())
    t = interval_around(mean, t_quantile(n - 1) * sem, bounds)
    bootstrapped = bootstrap_interval([sample], interquartile_mean)
    iqm = float(interquartile_mean(sample))
    return Summary(n, mean, std, sem, least, most, most - least, *t, iqm, *bootstrapped)


def prediction_interval(values: Sample, bounds: tuple[float, float] = _EVERYWHERE) -> Interval:
    """Returns the 95 % prediction interval of one new normal draw: mean -+ t * std * sqrt(1 + 1/n).

    A published single run agrees with a sample if it lies in this interval. `bounds` are as in `summarize`.

    References:
        Hahn and Meeker, Statistical Intervals, section 4.7.

    Raises:
        ValueError: the sample is empty, or a value is not finite.
    """
    sample = as_sample(values)
    n, mean = len(sample), float(sample.mean())
    return interval_around(mean, t_quantile(n - 1) * _std(sample) * math.sqrt(1 + 1 / n), bounds)


def pooled_std(groups: Iterable[Sample]) -> float:
    """Returns the pooled standard deviation within groups: sqrt(sum of squares within / degrees of freedom).

    NaN if no group has two values.
    """
    samples = [as_sample(group) for group in groups]
    squares = sum(map(sum_of_squares, samples))
    freedom = sum(len(sample) - 1 for sample in samples)
    return math.sqrt(squares / freedom) if freedom else math.nan


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half along the last axis: `scipy.stats.trim_mean` with a quarter cut at each end.

    References:
        Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice (2021), section 4.3.
    """
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    return ordered[..., n // 4 : n - n // 4].mean(axis=-1)


def bootstrap_interval(
    groups: Sequence[Sample], statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean
) -> Interval:
    """Returns the 95 % stratified bootstrap interval of a statistic of all values.

    `scipy.stats.bootstrap` is too narrow for few seeds: it draws from all n values, and the variance of a mean is too
    small by the factor (n - 1) / n. Here, each resample of a group omits one value and draws n from the others
    (bootknife), which is unbiased, and the percentiles are widened to those of Student's t with the seeds' degrees of
    freedom. No interval within the range of five values covers 95 %, so at least six are needed. With a few groups of
    three values the coverage is 90 %.

    Args:
        groups: samples, for example the values of each configuration over its seeds.
        statistic: function of an array [resamples, values] along its last axis, with the values in the groups' order.

    Returns:
        The interval; NaN with fewer than six values, with fewer than three in a group, or without a spread.

    References:
        Agarwal et al. (2021), section 4.1 (stratified bootstrap); Hesterberg, Unbiasing the bootstrap: bootknife
        sampling vs. smoothing (2004); Hesterberg, What teachers should know about the bootstrap (2015), section 5.3.

    Raises:
        ValueError: a group is empty, or a value is not finite.
    """
    from scipy.special import ndtr

    samples = [as_sample(group) for group in groups]
    if sum(map(len, samples)) < 6 or min(map(len, samples)) < 3 or not any(deviations(s).any() for s in samples):
        return Interval(math.nan, math.nan)
    resampled = [sample[draw_resamples(len(sample), place)] for place, sample in enumerate(samples)]
    found = statistic(np.concatenate(resampled, axis=-1))
    tail = float(ndtr(-t_quantile(sum(len(sample) - 1 for sample in samples))))
    low, high = np.quantile(found, (tail, 1 - tail))
    return Interval(float(low), float(high))


@functools.lru_cache(64)
def draw_resamples(n: int, stream: int = 0) -> np.ndarray:
    """Returns indices [RESAMPLES, n] of bootknife resamples of n >= 2 values, equal in each call."""
    generator = np.random.default_rng((n, stream))
    left_out = generator.integers(0, n, (RESAMPLES, 1))
    places = generator.integers(0, n - 1, (RESAMPLES, n))
    return places + (places >= left_out)


def deviations(values: np.ndarray, size: float | np.ndarray | None = None) -> np.ndarray:
    """Returns values minus their mean along the last axis; zeros if the values are equal up to float32 rounding.

    Args:
        values: [..., n].
        size: magnitude of the rounded numbers, if the values are their differences. None takes that of the values.
    """
    size = np.abs(values).max(axis=-1) if size is None else size
    found = values - values.mean(axis=-1, keepdims=True)
    return np.where((np.abs(found).max(axis=-1) > ROUNDING * size)[..., None], found, 0.0)


def sum_of_squares(sample: np.ndarray, size: float | None = None) -> float:
    """Returns the sum of the squared `deviations` of a sample."""
    return float((deviations(sample, size) ** 2).sum())


def variance(sample: np.ndarray, size: float | None = None) -> float:
    """Returns the variance, ddof 1, of a sample by its `deviations`; NaN with one value."""
    return sum_of_squares(sample, size) / (len(sample) - 1) if len(sample) > 1 else math.nan


def interval_around(middle: float, half: float, bounds: tuple[float, float] = _EVERYWHERE) -> Interval:
    """Returns `middle` -+ `half`, clipped to bounds; NaN if `half` is NaN or 0."""
    if not half > 0:
        return Interval(math.nan, math.nan)
    low, high = np.clip((middle - half, middle + half), *bounds)
    return Interval(float(low), float(high))


def as_sample(values: Sample) -> np.ndarray:
    """Returns values as float64 [n].

    Raises:
        ValueError: the sample is empty, or a value is not finite.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"not a sample of finite values: {values!r}")
    return sample


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Returns t such that Student's t lies in -t..t with probability `level`; NaN without degrees of freedom."""
    if not freedom > 0:
        return math.nan
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _std(sample: np.ndarray) -> float:
    return math.sqrt(variance(sample))
