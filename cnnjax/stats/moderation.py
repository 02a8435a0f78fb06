"""Spreads over few seeds, made more certain by the spreads of other configurations (empirical Bayes)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.stats.scales import IDENTITY, Scale
from cnnjax.stats.spread import Interval, as_sample, deviations, interval_around, t_quantile, variance

_LEAST_SPREADS = 3  # two variances say nothing about their distribution
_ZERO = 1e-5  # of the median: smaller variances count as this, as in limma


class Prior(NamedTuple):
    """What the spreads of a family of configurations say about each of them.

    Attributes:
        variance: the typical variance, s0²: of values, or of differences if configurations are paired.
        freedom: its weight, d0, in degrees of freedom; infinite if the variances differ by chance only, 0 without a
            prior.
        most: the degrees of freedom of all configurations together, which no moderated variance exceeds.
    """

    variance: float = 0.0
    freedom: float = 0.0
    most: float = math.inf

    def moderate(self, variances: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns posterior variances and their degrees of freedom.

        The variance is (d0 s0² + d s²) / (d0 + d), with min(d0 + d, `most`) degrees of freedom. With d = 0 it is s0²;
        without a prior it is s², and NaN with d = 0.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = 1.0 if math.isinf(self.freedom) else self.freedom / (self.freedom + freedom)
            own = np.where(freedom > 0, (1 - weight) * variances, 0.0)
            return weight * self.variance + own, np.minimum(self.freedom + freedom, self.most)

    def borrowed(self, freedom: float) -> float:
        """Returns the degrees of freedom that the prior adds to a variance of `freedom` degrees of its own."""
        return max(0.0, min(self.freedom, self.most - freedom))


NO_PRIOR = Prior()


def fit_prior(
    variances: np.ndarray, freedom: np.ndarray, caution: float | None = None, least: np.ndarray | float = 0.0
) -> Prior:
    """Fits s0² and d0 to variances s² with d degrees of freedom: s² / s0² has the F distribution with d and d0.

    The moments of log s² give d0 by the inverse of trigamma, then s0². Variances of zero count as 1e-5 of the median,
    or as `least`.

    With few configurations the moments miss that spreads differ, and claim too many degrees of freedom. The variance of
    log s² is therefore raised by `caution` standard errors, which keeps error rates in simulated studies.

    Args:
        variances: [k], at least three with d > 0; others are left out.
        freedom: [k], d.
        caution: standard errors; 0 gives the numbers of limma, None is max(1/2, 6/k).
        least: variances below count as this one: that of rounding, see `Scale.rounding`. With few test images, seeds
            are often equal by chance, which says little about the spread.

    Returns:
        The prior; without a spread, or with fewer variances, one of weight 0.

    References:
        Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
        experiments (2004), section 6.2; `fitFDist` and `squeezeVar` of R's limma.
    """
    from scipy.special import digamma, polygamma

    used = freedom > 0
    s2, d = variances[used], freedom[used]
    if len(s2) < _LEAST_SPREADS or not (s2 > 0).any():
        return NO_PRIOR
    median = float(np.median(s2)) or 1.0
    s2 = np.maximum(s2, np.maximum(_ZERO * median, np.broadcast_to(least, used.shape)[used]))
    logs = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    by_chance = polygamma(1, d / 2)
    error = math.sqrt(float((polygamma(3, d / 2) + 2 * by_chance**2).mean()) / len(s2))
    caution = max(0.5, 6 / len(s2)) if caution is None else caution
    excess = float(logs.var(ddof=1) - by_chance.mean()) + caution * error
    if excess > 0:
        freedom0 = 2 * trigamma_inverse(excess)
        variance0 = math.exp(logs.mean() + digamma(freedom0 / 2) - math.log(freedom0 / 2))
    else:
        freedom0, variance0 = math.inf, float(d @ s2 / d.sum())
    return Prior(variance0, freedom0, float(d.sum()))


def trigamma_inverse(x: float) -> float:
    """Returns y > 0 with trigamma(y) = x, by Newton's method (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    if x > 1e7:
        return 1 / math.sqrt(x)
    if x < 1e-6:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(50):
        value = float(polygamma(1, y))
        step = value * (1 - value / x) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y


def borrow(
    samples: Sequence[np.ndarray], paired: bool = False, scale: Scale = IDENTITY, one_pair: bool = False
) -> Prior:
    """Returns the prior of a family of configurations.

    Args:
        samples: the values of each over its seeds, on the scale of the tests.
        paired: whether configurations are compared by seed. The samples are then in the same order of seeds, and the
            prior is that of differences: twice the residual variance without the common effect of the seeds.
        scale: that scale.
        one_pair: whether it serves the test of one pair at the full risk. Tests that share the risk leave room for a
            prior of too much weight; the test of one pair needs more caution, max(2, 48/k), to err in 5 %.
    """
    if len(samples) < _LEAST_SPREADS:
        return NO_PRIOR
    caution = max(2.0, 48 / len(samples)) if one_pair else None
    least = np.array([scale.rounding(float(sample.mean())) for sample in samples])
    if not paired:
        freedom = np.array([len(sample) - 1.0 for sample in samples])
        return fit_prior(np.array([variance(sample) for sample in samples]), freedom, caution, least)
    values = np.array(samples)
    (k, n), size = values.shape, np.abs(values).max()
    rest = deviations(values - values.mean(axis=0), size)
    freedom = np.full(k, (n - 1) * (k - 1) / k)
    found = fit_prior((rest**2).sum(axis=1) / freedom, freedom, caution, least)
    return found._replace(variance=2 * found.variance)


class Errors(NamedTuple):
    """Errors of the differences of all pairs, each [k, k].

    Attributes:
        std: standard deviation of the difference of one seed's two values.
        standard_error: of the difference of the means.
        freedom: degrees of freedom of the standard error.
    """

    std: np.ndarray
    standard_error: np.ndarray
    freedom: np.ndarray


def pairwise_errors(samples: Sequence[np.ndarray], paired: bool, prior: Prior = NO_PRIOR) -> Errors:
    """Returns the errors of the differences of all pairs of samples.

    Paired: the variance of the differences by seed, moderated. Not paired: Welch's standard error from the moderated
    variances, with the degrees of freedom of the less certain of the two; without a prior, Satterthwaite's.
    """
    n = np.array([len(sample) for sample in samples], np.float64)
    if paired:
        values = np.array(samples)
        sizes = np.abs(values).max(axis=1)
        centered = values - values.mean(axis=1, keepdims=True)
        rows = zip(centered, sizes, strict=True)
        gaps = (deviations(centered - row, np.maximum(sizes, size)) for row, size in rows)
        own = n[0] - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            squares = np.array([(of**2).sum(axis=1) for of in gaps]) / own
        moderated, freedom = prior.moderate(squares, np.full(squares.shape, own))
        return Errors(np.sqrt(moderated), np.sqrt(moderated / n[0]), freedom)
    variances, freedom = prior.moderate(np.array([variance(sample) for sample in samples]), n - 1)
    parts = variances / n
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.sqrt(np.add.outer(parts, parts))
        if prior.freedom > 0:
            freedoms = np.minimum.outer(freedom, freedom)
        else:
            freedoms = errors**4 / np.add.outer(parts**2 / (n - 1), parts**2 / (n - 1))
    return Errors(np.sqrt(np.add.outer(variances, variances)), errors, freedoms)


def mean_interval(values: Sequence[float], scale: Scale, prior: Prior) -> Interval:
    """Returns the 95 % interval of a mean over seeds, with a moderated variance, in the unit of the measure.

    Args:
        values: of one configuration.
        scale: the scale on which the interval is the t interval.
        prior: of values, on that scale.
    """
    sample = scale.apply(as_sample(values))
    moderated, freedom = prior.moderate(np.array([variance(sample)]), np.array([len(sample) - 1.0]))
    half = t_quantile(float(freedom[0])) * math.sqrt(moderated[0] / len(sample))
    low, high = scale.invert(interval_around(float(sample.mean()), half))
    return Interval(float(low), float(high))
