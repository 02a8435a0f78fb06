"""Whether A is better than B, and if that is open, how many seeds would tell."""

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
    """The difference of two means, A's less B's.

    Attributes:
        value: the difference.
        std: standard deviation of the difference of one seed's two values; nan where it is not measured.
        standard_error: of the difference.
        freedom: degrees of freedom of the standard error.
    """

    value: float
    std: float
    standard_error: float
    freedom: float

    @property
    def p(self) -> float:
        """The two-sided p-value of the t test that the means are equal; nan without a spread."""
        from scipy.special import stdtr

        if not self.standard_error > 0:
            return math.nan
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.standard_error))

    def interval(self, level: float = LEVEL, most: float = math.inf) -> Interval:
        """The t interval, cut at the greatest difference that is possible; nan without a spread."""
        return interval_around(self.value, t_quantile(self.freedom, level) * self.standard_error, (-most, most))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Settings A and B over their seeds.

    Attributes:
        a: A's values [n]; of paired ones, place i is the seed of place i of `b`.
        b: B's values [m].
        paired: whether they are paired by seed.
        margin: the difference that is too small to matter; None where none is stated.
        larger_is_better: False for losses.
        tests: how many tests it is one of; `seeds` are then as many as pass Bonferroni's correction for that number.
        most: the greatest difference that is possible, where the interval is cut: 1 of accuracies.
        dropped: how many values do not count, for want of a partner.
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
        """The difference of the means: of pairs, or Welch's."""
        return _paired_difference(self.a, self.b) if self.paired else _welch_difference(self.a, self.b)

    @cached_property
    def interval(self) -> Interval:
        """The 95 % t interval of the difference."""
        return self.difference.interval(most=self.most)

    @cached_property
    def verdict(self) -> Verdict:
        """What A is, beside B.

        `equal`: the 90 % interval of the difference lies within the margin, so that two one-sided tests at 5 % refute
        a difference as large as the margin; or `is_identical`. `better`, `worse`: the 95 % interval excludes
        zero (and A and B are not equal). Otherwise `undecided`, also where the seeds show no spread beyond the rounding
        of what is stored, which no interval can be built on.

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
        """Whether the means are equal but for rounding."""
        return not deviations(np.array([self.a.mean(), self.b.mean()])).any()

    @property
    def is_identical(self) -> bool:
        """Whether A and B have the same value for each of several seeds, and no others."""
        return self.paired and not self.dropped and len(self.a) > 1 and bool((self.a == self.b).all())

    @cached_property
    def permutation_p(self) -> float:
        """The two-sided p-value without an assumption of normality.

        Of pairs: of flips of the signs of their differences. Otherwise: of exchanges between the samples, by Welch's
        t. All of them where they are at most 20,000, which makes it exact, else as many drawn at random; what is as
        extreme but for the rounding of the values counts as such. It cannot be smaller than `least_permutation_p`,
        which with few seeds is a lot.
        """
        if min(len(self.a), len(self.b)) < 2:
            return math.nan
        return sign_flip_p(self.a, self.b) if self.paired else exchange_p(self.a, self.b)

    @property
    def least_permutation_p(self) -> float:
        """The smallest `permutation_p` that so many seeds can give: 0.0625 of five pairs."""
        apart = dataclasses.replace(self, a=np.ones(len(self.a)), b=np.zeros(len(self.b)))
        return apart.permutation_p

    @cached_property
    def beats(self) -> Share:
        """The probability that one training of A beats one of B, a tie counting half.

        Of pairs: on the same seed, with Wilson's interval. Otherwise: on any two seeds, the Mann-Whitney statistic
        U / (n m) with Newcombe's interval.

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
        # Those that lie no further from the share than 1.96 of their own standard errors.
        inside = theta[(theta - share) ** 2 <= t_quantile(math.inf) ** 2 * variance + 1e-12]
        return Share(share, float(inside[0]), float(inside[-1]))

    @cached_property
    def effect_size(self) -> float:
        """The difference in standard deviations across seeds (pooled), positive where A is better: Hedges' g.

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
        """How many seeds each side needs, in all, to be decided with 80 % power, if the true difference is this one.

        See `seeds_to_decide`. None where that is more than 10,000, or the spread is not known.
        """
        difference = self.difference
        if not difference.standard_error > 0:
            return None
        # Of equally many seeds, n each: the degrees of freedom for each n - 1.
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
        """How many more seeds A and B need, see `seeds`; at least one of either while they are undecided.

        With a margin, so many seeds as there are may have 80 % power, and these be among the other 20 %.
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
    """Compares two settings over their seeds.

    They are paired by seed where more than half of the seeds of each are shared, and the others do not count then; else
    all values count, unpaired (of a few shared seeds the test is the stricter for it). Whether pairing makes the
    comparison sharper, `pairing_helps` says of all settings of a study.

    Args:
        a: A's values by seed.
        b: B's values by seed.
        margin: the difference, in the unit of the values, that is too small to matter.
        larger_is_better: False for losses.
        most: the greatest difference that is possible.
        pair: False to take them as not paired, whatever their seeds, unless they have the same value on each.

    Raises:
        ValueError: there is no value, or one is not finite; or the margin is not positive.
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
