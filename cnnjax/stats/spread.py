"""What a few seeds say: means, spreads and intervals."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # of every interval
RESAMPLES = 2000  # of every bootstrap, drawn alike each time
_EVERYWHERE = (-math.inf, math.inf)
ROUNDING = 4 * float(np.finfo(np.float32).eps)  # a run's files hold float32: what is equal differs in its last digits
Sample = Sequence[float] | np.ndarray


class Interval(NamedTuple):
    """A 95 % interval; both ends are nan where the data say nothing of the spread, or show none."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """A sample of n values; `std` has ddof 1; `low`..`high` is the 95 % t interval of the mean.

    `iqm` is the interquartile mean, `iqm_low`..`iqm_high` its 95 % bootstrap interval, nan of fewer than six values.
    With one value `std`, `sem` and the intervals are nan: one seed says nothing about seeds. Equal values have no
    interval either: it would be a point, and sure of itself.
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


def summarise(values: Sample, bounds: tuple[float, float] = _EVERYWHERE) -> Summary:
    """Summarises a sample, for example one setting's accuracy over its seeds.

    Args:
        values: the sample.
        bounds: the least and the greatest mean that is possible. An interval that leaves them is cut there, which does
            not change how often it holds the true mean.

    Raises:
        ValueError: there is no value, or one is not finite.
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
    """Returns the 95 % interval for ONE new normal draw: mean -+ t * std * sqrt(1 + 1/n).

    A published single run is one draw, not a mean: it agrees with ours when it lies in here. `bounds` are as in
    `summarise`.

    References:
        Hahn and Meeker, Statistical Intervals, section 4.7.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    sample = as_sample(values)
    n, mean = len(sample), float(sample.mean())
    return interval_around(mean, t_quantile(n - 1) * _std(sample) * math.sqrt(1 + 1 / n), bounds)


def pooled_std(groups: Iterable[Sample]) -> float:
    """Returns the standard deviation within groups: sqrt(squares within / degrees of freedom).

    Groups of one value add nothing; nan when there are only such.
    """
    samples = [as_sample(group) for group in groups]
    squares = sum(map(sum_of_squares, samples))
    freedom = sum(len(sample) - 1 for sample in samples)
    return math.sqrt(squares / freedom) if freedom else math.nan


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half along the last axis: a quarter, rounded down, is cut at either end.

    References:
        Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice (2021), section 4.3.
    """
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    return ordered[..., n // 4 : n - n // 4].mean(axis=-1)


def bootstrap_interval(
    groups: Sequence[Sample], statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean
) -> Interval:
    """Returns the 95 % percentile interval of a statistic of all values, resampled within each group.

    Each resample leaves one value of a group out and draws as many as there were from the others, for which the mean's
    variance is unbiased; the percentiles are those of Student's t with the seeds' degrees of freedom. No interval
    within the range of five values holds the truth in 95 %, so of fewer than six none is given; few groups of three
    come to 90 %.

    Args:
        groups: a sample each, for example a setting's values over its seeds.
        statistic: of the values along the last axis of an array [resamples, values], in the groups' order.

    Returns:
        The interval; nan of fewer than six values, where a group has fewer than three, and where none shows a spread.

    References:
        Agarwal et al. (2021), section 4.1 (stratified bootstrap); Hesterberg, Unbiasing the bootstrap: bootknife
        sampling vs. smoothing (2004); Hesterberg, What teachers should know about the bootstrap (2015), section 5.3.

    Raises:
        ValueError: a group has no value, or one is not finite.
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
    """Returns the places [RESAMPLES, n] of bootknife resamples of n >= 2 values, alike in each call."""
    generator = np.random.default_rng((n, stream))
    left_out = generator.integers(0, n, (RESAMPLES, 1))
    places = generator.integers(0, n - 1, (RESAMPLES, n))
    return places + (places >= left_out)


def deviations(values: np.ndarray, size: float | np.ndarray | None = None) -> np.ndarray:
    """Returns values less their mean, along the last axis; all 0 where the values are equal but for rounding.

    Args:
        values: [..., n].
        size: of the numbers whose rounding it is, where the values are differences of such; that of the values if None.
    """
    size = np.abs(values).max(axis=-1) if size is None else size
    found = values - values.mean(axis=-1, keepdims=True)
    return np.where((np.abs(found).max(axis=-1) > ROUNDING * size)[..., None], found, 0.0)


def sum_of_squares(sample: np.ndarray, size: float | None = None) -> float:
    """Returns the sum of the squared `deviations` of a sample."""
    return float((deviations(sample, size) ** 2).sum())


def variance(sample: np.ndarray, size: float | None = None) -> float:
    """Returns the variance, ddof 1, of a sample by its `deviations`; nan of one value."""
    return sum_of_squares(sample, size) / (len(sample) - 1) if len(sample) > 1 else math.nan


def interval_around(middle: float, half: float, bounds: tuple[float, float] = _EVERYWHERE) -> Interval:
    """Returns the interval that reaches `half` to both sides, cut at bounds; nan where `half` is nan or 0."""
    if not half > 0:
        return Interval(math.nan, math.nan)
    low, high = np.clip((middle - half, middle + half), *bounds)
    return Interval(float(low), float(high))


def as_sample(values: Sample) -> np.ndarray:
    """Returns values as float64 [n].

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"not a sample of finite values: {values!r}")
    return sample


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Returns the quantile t of Student's t with -t..t as its central interval; nan with less than no freedom."""
    if not freedom > 0:
        return math.nan
    from scipy.special import stdtrit  # a tenth of the import time of scipy.stats

    return float(stdtrit(freedom, (1 + level) / 2))


def _std(sample: np.ndarray) -> float:
    return math.sqrt(variance(sample))
