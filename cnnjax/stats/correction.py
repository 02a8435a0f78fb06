"""Several comparisons at once: p-values and verdicts corrected for their number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.stats.comparison import Comparison, Verdict
from cnnjax.stats.spread import LEVEL, Sample


def holm(p_values: Sample) -> np.ndarray:
    """Returns p-values adjusted for their number: at most 5 % risk that any true hypothesis falls below 5 %.

    Args:
        p_values: those of all hypotheses; nan, of one that was not tested, stays nan and does not count.

    References:
        Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)  # nan last
    tested = int((~np.isnan(p)).sum())
    factors = np.maximum(tested - np.arange(len(p)), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


class Adjusted(NamedTuple):
    """One of several comparisons: its p-value after Holm's correction, and the verdict by that p-value."""

    comparison: Comparison
    p: float
    verdict: Verdict


def adjust(comparisons: Sequence[Comparison]) -> list[Adjusted]:
    """Corrects the verdicts of several comparisons for their number.

    At most 5 % of such families call any two equal settings better or worse; `equal` is not corrected, for it is
    the other error that it may make.
    """
    p_values = holm([comparison.difference.p for comparison in comparisons])
    found = []
    for comparison, p in zip(comparisons, p_values, strict=True):
        differs = comparison.verdict in ("better", "worse")
        found.append(
            Adjusted(comparison, float(p), "undecided" if differs and not p < 1 - LEVEL else comparison.verdict)
        )
    return found
