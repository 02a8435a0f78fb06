"""Sizes of the difference of two configurations over seeds: probability of superiority, and Hedges' g."""

import math
from typing import NamedTuple

import numpy as np

from cnnjax.stats.spread import sum_of_squares, t_quantile


class Share(NamedTuple):
    """An estimated probability with its 95 % interval."""

    value: float
    low: float
    high: float


def superiority(a: np.ndarray, b: np.ndarray, paired: bool) -> Share:
    """Returns the probability that a value of A is larger than one of B, counting a tie as one half.

    Paired values: on the same seed, with Wilson's interval. Otherwise: on any two seeds, the Mann-Whitney statistic
    U / (n m) with Newcombe's interval. SciPy has neither Wilson's interval of shares with ties, nor Newcombe's.

    Args:
        a: values of A [n].
        b: values of B [m]; if paired, `a[i]` and `b[i]` have the same seed.
        paired: whether they have.

    References:
        Wilson (1927); Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
        part 2 (2006), method 5.
    """
    gaps = a - b if paired else np.subtract.outer(a, b)
    share = float((np.sign(gaps) + 1).mean() / 2)
    theta = np.linspace(0, 1, 10_001)
    variance = theta * (1 - theta) / gaps.size
    if not paired:
        others = (len(a) + len(b)) / 2 - 1
        variance *= 1 + others * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    # The probabilities within 1.96 of their own standard errors from the share.
    inside = theta[(theta - share) ** 2 <= t_quantile(math.inf) ** 2 * variance + 1e-12]
    return Share(share, float(inside[0]), float(inside[-1]))


def hedges_g(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Hedges' g, (mean of A - mean of B) over the pooled standard deviation, without its small-sample bias.

    NaN with fewer than four values, or without a spread.

    References:
        Hedges, Distribution theory for Glass's estimator of effect size and related estimators (1981).
    """
    from scipy.special import gammaln

    freedom = len(a) + len(b) - 2
    squares = sum_of_squares(a) + sum_of_squares(b)
    if freedom < 2 or not squares > 0:
        return math.nan
    unbiased = math.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return unbiased * float(a.mean() - b.mean()) / math.sqrt(squares / freedom)
