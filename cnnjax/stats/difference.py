"""The difference of two means, and the correction of its p-value for comparisons of the winner with several others."""

import math
from typing import NamedTuple

from cnnjax.stats.spread import LEVEL, Interval, interval_around, t_quantile


class Difference(NamedTuple):
    """The difference of two means, A minus B, on the scale of the test.

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


def hsu_factor(tests: int) -> float:
    """Returns the factor of two-sided p-values for comparisons of the winner with `tests` others.

    The true best is wrongly excluded only if one of the `tests` others is found better, a one-sided test each: by
    Bonferroni, the one-sided p-value counts `tests` times. The factor of the two-sided one is half of that, and at
    least 1, so that two configurations are compared as in any two-sided test.

    References:
        Hsu, Constrained simultaneous confidence intervals for multiple comparisons with the best (1984).
    """
    return max(1.0, tests / 2)
