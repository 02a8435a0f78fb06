"""Comparison of two configurations over seeds: is A better than B, and if undecided, how many seeds would decide?"""

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from cnnjax.stats.permutation import exchange_p, sign_flip_p
from cnnjax.stats.planning import seeds_to_decide
from cnnjax.stats.spread import (
    LEVEL,
    Interval,
    as_sample,
    deviations,
    interval_around,
    sum_of_squares,
    t_quantile,
    variance,
)

Verdict = Literal["better", "worse", "equal", "undecided"]
Values = Mapping[Any, float]  # by seed


class Share(NamedTuple):
    """An estimated probability with its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The difference of two means, A minus B.

    Attributes:
        value: the difference.
        std: standard deviation of the difference of one seed's two values; NaN if a sample has one value.
        standard_error: of the difference.
        freedom: degrees of freedom of the standard error.
    """

    value: float
    std: float
    standard_error: float
    freedom: float

    @property
    def p(self) -> float:
        """Two-sided p-value of the t test for equal means; NaN without a spread."""
        from scipy.special import stdtr

        if not self.standard_error > 0:
            return math.nan
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.standard_error))

    def interval(self, level: float = LEVEL, most: float = math.inf) -> Interval:
        """Returns the t interval, clipped to [-most, most]; NaN without a spread."""
        return interval_around(self.value, t_quantile(self.freedom, level) * self.standard_error, (-most, most))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Configurations A and B over their seeds.

    Attributes:
        a: values of A [n]. If paired, `a[i]` and `b[i]` have the same seed.
        b: values of B [m].
        paired: whether the values are paired by seed.
        margin: a difference below it is too small to matter; None without one.
        larger_is_better: False for losses.
        tests: how many tests this is one of. `seeds` allows for it by Bonferroni's correction.
        most: the largest possible difference, at which the interval is clipped: 1 for accuracies.
        dropped: how many values were left out, because the other configuration lacks their seed.
    """

    a: np.ndarray
    b: np.ndarray
    paired: bool
    margin: float | None = None
    larger_is_better: bool = True
    tests: int = 1
    most: float = math.inf
    dropped: int = 0

    @cached_property
    def difference(self) -> Difference:
        """The difference of the means, by the paired t test or by Welch's."""
        return _paired_difference(self.a, self.b) if self.paired else _welch_difference(self.a, self.b)

    @cached_property
    def interval(self) -> Interval:
        """95 % t interval of the difference."""
        return self.difference.interval(most=self.most)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether A is better than B, worse, or equal, or whether that is undecided.

        equal: the 90 % interval of the difference lies within the margin, which is two one-sided tests at 5 %; or
            `is_identical`.
        better, worse: not equal, and the 95 % interval excludes zero.
        undecided: otherwise, and if the values have no spread beyond the rounding of float32.

        References:
            Schuirmann, A comparison of the two one-sided tests procedure and the power approach (1987).
        """
        if self.is_identical:
            return "equal"
        if not self.difference.standard_error > 0:
            return "undecided"
        if self.margin is not None:
            low, high = self.difference.interval(2 * LEVEL - 1)
            if -self.margin < low and high < self.margin:
                return "equal"
        low, high = self.interval
        if low <= 0 <= high:
            return "undecided"
        return "better" if (low > 0) == self.larger_is_better else "worse"

    @property
    def is_level(self) -> bool:
        """Whether the means are equal up to rounding."""
        return not deviations(np.array([self.a.mean(), self.b.mean()])).any()

    @property
    def is_identical(self) -> bool:
        """Whether A and B have the same seeds, at least two, and equal values on each."""
        return self.paired and not self.dropped and len(self.a) > 1 and bool((self.a == self.b).all())

    @cached_property
    def permutation_p(self) -> float:
        """Two-sided p-value of a permutation test, which does not assume normal values.

        Paired values: flips of the signs of their differences. Otherwise: exchanges between the samples, with Welch's t
        as the statistic. The test is exact if there are at most 20,000 permutations, else it draws as many at random.
        With few seeds it cannot be small, see `least_permutation_p`.
        """
        if min(len(self.a), len(self.b)) < 2:
            return math.nan
        return sign_flip_p(self.a, self.b) if self.paired else exchange_p(self.a, self.b)

    @property
    def least_permutation_p(self) -> float:
        """The smallest possible `permutation_p` of this number of seeds: 0.0625 for five pairs."""
        apart = dataclasses.replace(self, a=np.ones(len(self.a)), b=np.zeros(len(self.b)))
        return apart.permutation_p

    @cached_property
    def beats(self) -> Share:
        """Probability that one training of A beats one of B, counting a tie as one half.

        Paired values: on the same seed, with Wilson's interval. Otherwise: on any two seeds, the Mann-Whitney statistic
        U / (n m) with Newcombe's interval. SciPy has neither Wilson's interval of shares with ties, nor Newcombe's.

        References:
            Wilson (1927); Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney
            statistic, part 2 (2006), method 5.
        """
        a, b = (self.a, self.b) if self.larger_is_better else (-self.a, -self.b)
        gaps = a - b if self.paired else np.subtract.outer(a, b)
        share = float((np.sign(gaps) + 1).mean() / 2)
        theta = np.linspace(0, 1, 10_001)
        variance = theta * (1 - theta) / gaps.size
        if not self.paired:
            others = (len(a) + len(b)) / 2 - 1
            variance *= 1 + others * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        # The probabilities within 1.96 of their own standard errors from the share.
        inside = theta[(theta - share) ** 2 <= t_quantile(math.inf) ** 2 * variance + 1e-12]
        return Share(share, float(inside[0]), float(inside[-1]))

    @cached_property
    def effect_size(self) -> float:
        """Hedges' g: the difference over the pooled standard deviation across seeds; positive if A is better.

        References:
            Hedges, Distribution theory for Glass's estimator of effect size and related estimators (1981).
        """
        from scipy.special import gammaln

        n, m = len(self.a), len(self.b)
        freedom = n + m - 2
        squares = sum_of_squares(self.a) + sum_of_squares(self.b)
        if freedom < 2 or not squares > 0:
            return math.nan
        unbiased = math.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / math.sqrt(freedom / 2)
        sign = 1 if self.larger_is_better else -1
        return sign * unbiased * self.difference.value / math.sqrt(squares / freedom)

    @cached_property
    def seeds(self) -> int | None:
        """Total number of seeds per side for 80 % power, if the true difference is the observed one.

        See `seeds_to_decide`. None if that is more than 10,000, or without a spread.
        """
        difference = self.difference
        if not difference.standard_error > 0:
            return None
        # For n seeds on each side: the degrees of freedom over n - 1.
        a, b = (1.0, 0.0) if self.paired else (variance(self.a), variance(self.b))
        per_seed = (a + b) ** 2 / (a**2 + b**2)
        return seeds_to_decide(
            difference.value,
            difference.std,
            freedom=difference.freedom,
            per_seed=per_seed,
            margin=self.margin,
            level=1 - (1 - LEVEL) / self.tests,
        )

    @property
    def more_seeds(self) -> tuple[int, int] | None:
        """How many more seeds A and B need, see `seeds`; at least one of each while undecided.

        With a margin, the present number of seeds may have 80 % power and still not decide.
        """
        if self.seeds is None:
            return None
        n, m = len(self.a), len(self.b)
        seeds = max(self.seeds, min(n, m) + 1) if self.verdict == "undecided" else self.seeds
        return max(0, seeds - n), max(0, seeds - m)


def compare(
    a: Values,
    b: Values,
    *,
    margin: float | None = None,
    larger_is_better: bool = True,
    most: float = math.inf,
    pair: bool = True,
) -> Comparison:
    """Compares two configurations over their seeds.

    The values are paired by seed if the configurations share more than half of the seeds of each; values of other seeds
    are then left out. Otherwise all values count, unpaired. `pairing_helps` decides for a whole study whether pairing
    makes comparisons sharper.

    Args:
        a: values of A by seed.
        b: values of B by seed.
        margin: a difference below it, in the unit of the values, is too small to matter.
        larger_is_better: False for losses.
        most: the largest possible difference.
        pair: False never pairs by seed, unless A and B are identical.

    Raises:
        ValueError: a side has no value, a value is not finite, or the margin is not positive.
    """
    if margin is not None and not margin > 0:
        raise ValueError(f"a margin is a number > 0, not {margin!r}")
    shared, values = [seed for seed in a if seed in b], len(a) + len(b)
    if paired := (pair or dict(a) == dict(b)) and len(shared) > 1 and 2 * len(shared) > max(len(a), len(b)):
        a, b = ({seed: side[seed] for seed in shared} for side in (a, b))
    samples = as_sample([*a.values()]), as_sample([*b.values()])
    dropped = values - sum(map(len, samples))
    return Comparison(*samples, paired, margin, larger_is_better, most=most, dropped=dropped)


def _paired_difference(a: np.ndarray, b: np.ndarray) -> Difference:
    gaps = a - b
    std = math.sqrt(variance(gaps, max(np.abs(a).max(), np.abs(b).max())))
    return Difference(float(gaps.mean()), std, std / math.sqrt(len(gaps)), len(gaps) - 1)


def _welch_difference(a: np.ndarray, b: np.ndarray) -> Difference:
    value = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Difference(value, math.nan, math.nan, math.nan)
    variances = np.array([variance(a), variance(b)])
    parts = variances / (len(a), len(b))
    total = float(parts.sum())
    freedom = total**2 / float((parts**2 / (len(a) - 1, len(b) - 1)).sum()) if total else math.nan
    return Difference(value, math.sqrt(variances.sum()), math.sqrt(total), freedom)
