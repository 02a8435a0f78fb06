"""What a few seeds say: means, spreads and intervals. Imports no jax."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

LEVEL = 0.95  # of every interval
_EVERYWHERE = (-math.inf, math.inf)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A sample of n values; `std` has ddof 1; `low`..`high` is the 95 % t interval of the mean.

    With one value `std`, `sem`, `low` and `high` are nan: one seed says nothing about seeds.
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


def summarise(values: Sequence[float], bounds: tuple[float, float] = _EVERYWHERE) -> Summary:
    """Summarises a sample, for example one setting's accuracy over its seeds.

    Args:
        values: the sample.
        bounds: the least and the greatest mean that is possible. An interval that leaves them is cut there, which does
            not change how often it holds the true mean.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    sample = _sample(values)
    n, mean, std = len(sample), float(sample.mean()), _std(sample)
    sem = std / math.sqrt(n)
    least, most = float(sample.min()), float(sample.max())
    low, high = _interval(mean, _t(n) * sem, bounds)
    return Summary(n, mean, std, sem, least, most, most - least, low, high)


def prediction_interval(values: Sequence[float], bounds: tuple[float, float] = _EVERYWHERE) -> tuple[float, float]:
    """Returns the 95 % interval for ONE new normal draw: mean -+ t * std * sqrt(1 + 1/n).

    A published single run is one draw, not a mean: it agrees with ours when it lies in here. (nan,
    nan) for one value. `bounds` are as in `summarise`.

    References:
        Hahn and Meeker, Statistical Intervals, section 4.7.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    sample = _sample(values)
    n, mean = len(sample), float(sample.mean())
    return _interval(mean, _t(n) * _std(sample) * math.sqrt(1 + 1 / n), bounds)


def pooled_std(groups: Iterable[Sequence[float]]) -> float:
    """Returns the standard deviation within groups: sqrt(squares within / degrees of freedom).

    Groups of one value add nothing; nan when there are only such.
    """
    samples = [_sample(group) for group in groups]
    squares = sum(float(((sample - sample.mean()) ** 2).sum()) for sample in samples)
    freedom = sum(len(sample) - 1 for sample in samples)
    return math.sqrt(squares / freedom) if freedom else math.nan


def _interval(mean: float, half: float, bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = np.clip((mean - half, mean + half), *bounds)
    return float(low), float(high)


def _sample(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"not a sample of finite values: {values!r}")
    return sample


def _std(sample: np.ndarray) -> float:
    return float(sample.std(ddof=1)) if len(sample) > 1 else math.nan


def _t(n: int) -> float:
    """The two-sided 95 % quantile of Student's t with n - 1 degrees of freedom."""
    if n < 2:
        return math.nan
    from scipy.special import stdtrit  # a tenth of the import time of scipy.stats

    return float(stdtrit(n - 1, (1 + LEVEL) / 2))
