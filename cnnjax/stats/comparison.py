"""Comparison of two configurations over seeds: is A better than B, and if undecided, how many seeds would decide?"""

import dataclasses
import math
from collections.abc import Collection, Hashable, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np

from cnnjax.stats.difference import Difference, hsu_factor
from cnnjax.stats.effect_size import Share, hedges_g, superiority
from cnnjax.stats.moderation import NO_PRIOR, Prior, pairwise_errors
from cnnjax.stats.permutation import exchange_p, sign_flip_p
from cnnjax.stats.planning import decision_power, seeds_to_decide
from cnnjax.stats.scales import IDENTITY, Scale
from cnnjax.stats.spread import (
    LEVEL,
    Interval,
    as_sample,
    deviations,
    variance,
)

Verdict = Literal["better", "worse", "equal", "undecided"]
Values = Mapping[Any, float]  # by seed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Configurations A and B over their seeds.

    Attributes:
        a: values of A [n]. If paired, `a[i]` and `b[i]` have the same seed.
        b: values of B [m].
        paired: whether the values are paired by seed.
        margin: a difference below it is too small to matter; None without one.
        larger_is_better: False for losses.
        tests: how many configurations B is one of that A is compared with.
        most: the largest possible difference, at which the interval is clipped: 1 for accuracies.
        dropped: how many values were left out, because the other configuration lacks their seed.
        scale: the scale of the test.
        prior: what the spreads of other configurations say, on that scale; see `moderation.borrow`.
        stuck: values of A and of B that never left chance. They are not in `a` and `b`, because a mixture of trained
            networks and of others is far from normal.
        share: the share of the risk of 5 % that this look at the study may spend, see `stats.looks`. p-values are
            divided by it, and intervals widened.
        luck: the probability that all seeds of a side are stuck by bad luck, if they are; p is at least that.
    """

    a: np.ndarray
    b: np.ndarray
    paired: bool
    margin: float | None = None
    larger_is_better: bool = True
    tests: int = 1
    most: float = math.inf
    dropped: int = 0
    scale: Scale = IDENTITY
    prior: Prior = NO_PRIOR
    stuck: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    share: float = 1.0
    luck: float = 0.0

    @cached_property
    def difference(self) -> float:
        """The difference of the means, in the unit of the measure."""
        return float(self.a.mean() - self.b.mean())

    @cached_property
    def tested(self) -> Difference:
        """The difference on the scale of the test, with its error."""
        samples = self._scaled
        if self.paired and not self.prior.freedom and not self._gaps_differ:
            return Difference(float(samples[0].mean() - samples[1].mean()), math.nan, math.nan, math.nan)
        errors = (float(of[0, 1]) for of in pairwise_errors(samples, self.paired, self.prior))
        return Difference(float(samples[0].mean() - samples[1].mean()), *errors)

    @property
    def _gaps_differ(self) -> bool:
        """Whether the difference is not the same on each seed, as of equal numbers of images."""
        return bool(deviations(self.a - self.b, max(np.abs(self.a).max(), np.abs(self.b).max())).any())

    @property
    def has_spread(self) -> bool:
        """Whether the difference has a standard error."""
        return self.tested.standard_error > 0

    @property
    def _scaled(self) -> tuple[np.ndarray, np.ndarray]:
        return self.scale.apply(self.a), self.scale.apply(self.b)

    @property
    def level(self) -> float:
        """The level of `interval`, which is one of `tests`, at one of several looks; see `hsu_factor` and `share`."""
        return 1 - (1 - LEVEL) * self.share / hsu_factor(self.tests)

    @property
    def equal_level(self) -> float:
        """The level of the interval that lies within the margin if A and B are equal: 90 % at the only look."""
        return 1 - 2 * (1 - LEVEL) * self.share

    @cached_property
    def interval(self) -> Interval:
        """Interval of the difference, in the unit of the measure: 95 %, widened for the number of tests and of looks.

        It excludes zero if and only if `p` is below 5 %, but for seeds that are stuck.
        """
        return self.interval_at(self.level)

    def interval_at(self, level: float) -> Interval:
        """Returns the interval of a level. It is the t interval on the scale of the test, transformed back."""
        middle = float(np.mean([sample.mean() for sample in self._scaled]))
        low, high = np.clip(
            self.scale.invert_difference(middle, self.tested.interval(level)), -self.most, self.most
        ).tolist()
        return Interval(low, high)

    @cached_property
    def p(self) -> float:
        """P-value of the t test, corrected for the number of tests and of looks; NaN without a spread.

        If the better side has the larger share of stuck seeds, it must be better with them, too: p is then the larger
        one of both tests, the other being Welch's of all seeds.
        """
        if math.isnan(alone := self.tested.p):
            return math.nan
        if self.difference * self.tested.value < 0:
            return 1.0
        if self._better_is_stuck:
            alone = max(alone, self._with_stuck_p)
        alone = max(alone, self.luck)
        return min(1.0, alone * hsu_factor(self.tests) / self.share)

    @property
    def _better_is_stuck(self) -> bool:
        sides = zip(self.stuck, (self.a, self.b), strict=True)
        a, b = (len(stuck) / (len(stuck) + len(trained)) for stuck, trained in sides)
        return (a > b) if (self.tested.value > 0) == self.larger_is_better else (b > a)

    @property
    def _with_stuck_p(self) -> float:
        every = Comparison(*self.with_stuck, paired=False, scale=self.scale)
        return every.tested.p if every.difference * self.difference > 0 else 1.0

    @property
    def with_stuck(self) -> tuple[np.ndarray, np.ndarray]:
        """The values of A and of B with those of stuck seeds."""
        a, b = (np.append(of, stuck) for of, stuck in zip((self.a, self.b), self.stuck, strict=True))
        return a, b

    @cached_property
    def verdict(self) -> Verdict:
        """Whether A is better than B, worse, or equal, or whether that is undecided.

        equal: the 90 % interval of the difference lies within the margin, which is two one-sided tests at 5 %; or
            `is_identical`. It is not corrected for the number of tests: it claims no difference. At one of several
            looks, the interval is that of `equal_level`.
        better, worse: not equal, and `p` is below 5 %.
        undecided: otherwise, and if the values have no spread beyond the rounding of float32.

        References:
            Schuirmann, A comparison of the two one-sided tests procedure and the power approach (1987).
        """
        if self.is_identical:
            return "equal"
        if not self.has_spread:
            return "undecided"
        if self.margin is not None:
            low, high = self.interval_at(self.equal_level)
            if -self.margin < low and high < self.margin:
                return "equal"
        if not self.p < 1 - LEVEL:
            return "undecided"
        return "better" if (self.tested.value > 0) == self.larger_is_better else "worse"

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
        """Probability that one training of A beats one of B, on the same seed if paired; see `superiority`."""
        return superiority(*self._signed, self.paired)

    @cached_property
    def effect_size(self) -> float:
        """Hedges' g, positive if A is better; see `hedges_g`."""
        return hedges_g(*self._signed)

    @property
    def _signed(self) -> tuple[np.ndarray, np.ndarray]:
        return (self.a, self.b) if self.larger_is_better else (-self.a, -self.b)

    @cached_property
    def seeds(self) -> int | None:
        """Total number of seeds per side for 80 % power, if the true difference is the observed one.

        See `seeds_to_decide`. None if that is more than 10,000, or without a spread.
        """
        return seeds_to_decide(**self._planned) if self.has_spread else None

    def power(self, seeds: int) -> float:
        """Returns the probability that `seeds` seeds per side decide, if the true difference is the observed one.

        See `decision_power`. 0 without a spread.
        """
        return decision_power(seeds, **self._planned) if self.has_spread else 0.0

    @property
    def _planned(self) -> dict[str, Any]:
        """What is known of a comparison of more seeds, for `planning`."""
        # For n seeds on each side: the degrees of freedom over n - 1.
        a, b = (1.0, 0.0) if self.paired else map(variance, self._scaled)
        middle = float(np.mean([sample.mean() for sample in self._scaled]))
        unit = float(self.scale.invert_difference(middle, 1e-6)) / 1e-6  # of the measure, for small differences
        return {
            "difference": self.tested.value,
            "std": self.tested.std,
            "freedom": self.tested.freedom,
            "per_seed": (a + b) ** 2 / (a**2 + b**2) if a + b > 0 else 2.0,
            "borrowed": self.prior.borrowed(min(len(self.a), len(self.b)) - 1),
            "margin": None if self.margin is None else self.margin / unit,
            "level": self.level,
        }

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


def split_stuck(values: Values, stuck: Collection[Hashable]) -> tuple[dict[Any, float], tuple[float, ...]]:
    """Returns the values of trained seeds by seed, and the values of stuck seeds."""
    trained = {seed: value for seed, value in values.items() if seed not in stuck}
    return trained, tuple(value for seed, value in values.items() if seed in stuck)


def compare(
    a: Values,
    b: Values,
    *,
    margin: float | None = None,
    larger_is_better: bool = True,
    most: float = math.inf,
    pair: bool = True,
    **more: Any,
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
        more: further attributes of the comparison.

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
    return Comparison(*samples, paired, margin, larger_is_better, most=most, dropped=dropped, **more)
