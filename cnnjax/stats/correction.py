"""Correction of p-values for multiple comparisons."""

import numpy as np

from cnnjax.stats.spread import Sample


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
