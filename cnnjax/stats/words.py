"""Comparisons in words."""

import math

from cnnjax.stats.comparison import Comparison
from cnnjax.stats.planning import MOST
from cnnjax.stats.spread import Interval
from cnnjax.utils.text import counted


def verdict_sentence(
    comparison: Comparison, measure: str, a: str = "A", b: str = "B", *, name: str | None = None
) -> str:
    """States the verdict of a comparison with its difference and interval and, if undecided, what would decide it.

    Args:
        comparison: the comparison.
        measure: the column of trials.csv that is compared; accuracies are shares.
        a: the name of A.
        b: the name of B.
        name: the measure in words; None for the name of its column.
    """
    verdict = comparison.verdict
    name = name or measure.replace("_", " ")
    if comparison.is_identical:
        return f"Equal: {a} and {b} have the same {name} on each of {len(comparison.a)} seeds."
    by = f"by {gap(comparison.difference, measure)} of {name}"
    leads = "leads" if (comparison.difference > 0) == comparison.larger_is_better else "trails"
    order = f"{a} is level with {b} in {name}" if comparison.is_level else f"{a} {leads} {b} {by}"
    if not comparison.has_spread:
        return f"Undecided: {order}. {_no_spread(comparison)}"
    if verdict == "equal":
        assert comparison.margin is not None
        level = f"{100 * comparison.equal_level:.3g} % interval"
        interval = f"({level} {span(comparison.interval_at(comparison.equal_level), measure)}; {_seeds(comparison)})"
        return f"Equal within {gap(comparison.margin, measure).lstrip('+')}: {a} and {b} differ {by} {interval}."
    reasons = [f"{comparison.tests} comparisons"] if comparison.tests > 2 else []
    reasons += ["several looks"] if comparison.share < 1 else []
    widened = f", widened for {' and '.join(reasons)}" if reasons else ""
    interval = f"(95 % interval {span(comparison.interval, measure)}{widened}; {_seeds(comparison)})"
    if verdict == "undecided":
        return f"Undecided: {order} {interval}. {what_decides(comparison, a, b)}"
    return f"Decided: {a} is {verdict} than {b} {by} {interval}."


def what_decides(comparison: Comparison, a: str = "A", b: str = "B") -> str:
    """Says how many more seeds would decide a comparison, or why no number can be named."""
    if not comparison.has_spread:
        return _no_spread(comparison)
    if comparison.is_level:
        return "The means are equal: no number of seeds is likely to tell them apart."
    if comparison.more_seeds is None:
        return f"If the true difference is that, more than {MOST:,} seeds each would be needed to decide it."
    more_a, more_b = comparison.more_seeds
    if more_a == more_b:
        how = f"{counted(more_a, 'more seed')} of each"
    else:
        how = " and ".join(f"{more:,} more of {side}" for more, side in ((more_a, a), (more_b, b)) if more)
    return f"If the true difference is that, {how} would decide it with 80 % power."


def amount(value: float, measure: str) -> str:
    """A value of a measure: an accuracy in percent, another with four digits."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:.2f} %" if measure.endswith("accuracy") else f"{value:.4g}"


def gap(value: float, measure: str) -> str:
    """A difference, with its sign: of accuracies in percentage points."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:+.2f} points" if measure.endswith("accuracy") else f"{value:+.3g}"


def span(interval: Interval, measure: str) -> str:
    """The interval of a difference."""
    if math.isnan(interval.low):
        return "–"
    return f"{gap(interval.low, measure).removesuffix(' points')} to {gap(interval.high, measure)}"


def _seeds(comparison: Comparison) -> str:
    n, m = len(comparison.a), len(comparison.b)
    if comparison.paired:
        return f"{n} seeds, paired"
    return f"{counted(n, 'seed')} each" if n == m else f"{n} and {m} seeds"


def _no_spread(comparison: Comparison) -> str:
    if min(len(comparison.a), len(comparison.b)) < 2:
        return "One seed says nothing about seeds: train each with at least 5."
    what = "The difference is" if comparison.paired else "The values of each are"
    return (
        f"{what} the same on every seed, and without a spread no interval can be built: train more seeds, or test on "
        "more examples."
    )
