"""Correction of p-values and verdicts for multiple comparisons."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.stats.comparison import Comparison, Verdict
from cnnjax.stats.spread import LEVEL, Sample


def holm(p_values: Sample) -> np.ndarray:
    """Returns p-values adjusted by Holm's method, which controls the family-wise error rate.

    SciPy has no such function; statsmodels' `multipletests` agrees, but does not leave out NaN.

    Args:
        p_values: of all hypotheses. NaN stands for a hypothesis that was not tested; it stays NaN and does not count.

    References:
        Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)  # NaN last
    tested = int((~np.isnan(p)).sum())
    factors = np.maximum(tested - np.arange(len(p)), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


class Adjusted(NamedTuple):
    """One of several comparisons, with its p-value by Holm's method."""

    comparison: Comparison
    p: float

    @property
    def verdict(self) -> Verdict:
        """The verdict by the adjusted p-value. `equal` is not corrected: it claims no difference."""
        alone = self.comparison.verdict
        return "undecided" if alone in ("better", "worse") and not self.p < 1 - LEVEL else alone


def adjust(comparisons: Sequence[Comparison]) -> list[Adjusted]:
    """Corrects the verdicts of several comparisons by Holm's method.

    At most 5 % of such families find a difference between configurations that are equal.
    """
    p_values = holm([comparison.difference.p for comparison in comparisons])
    return [Adjusted(comparison, float(p)) for comparison, p in zip(comparisons, p_values, strict=True)]
