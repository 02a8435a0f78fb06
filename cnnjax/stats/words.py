"""Comparisons in words."""

import math

from cnnjax.stats.comparison import Comparison, Verdict
from cnnjax.stats.planning import MOST
from cnnjax.stats.spread import LEVEL, Interval
from cnnjax.utils.text import counted


def verdict_sentence(
    comparison: Comparison,
    measure: str,
    a: str = "A",
    b: str = "B",
    *,
    verdict: Verdict | None = None,
    name: str | None = None,
) -> str:
    """Says in one or two sentences what a comparison comes to, and where it is undecided what would decide it.

    Args:
        comparison: what was compared.
        measure: of what, as in trials.csv; accuracies are shares.
        a: the name of A.
        b: the name of B.
        verdict: after a correction for the number of comparisons; None without one.
        name: the measure in words; None for its column's.
    """
    verdict = verdict or comparison.verdict
    name = name or measure.replace("_", " ")
    if comparison.is_identical:
        return f"{a} and {b} are identical: the same {name} on each of {len(comparison.a)} seeds."
    means = f"{name} {amount(comparison.a.mean(), measure)} against {amount(comparison.b.mean(), measure)}"
    value = comparison.difference.value
    seeds = f"{len(comparison.a)} seeds, paired" if comparison.paired else _counts(comparison)
    if not comparison.difference.standard_error > 0:
        return f"Undecided: {means} ({seeds}). {_no_spread(comparison)}"
    level = 2 * LEVEL - 1 if verdict == "equal" else LEVEL
    low_to_high = span(comparison.difference.interval(level, comparison.most), measure)
    numbers = f"{means}, a difference of {gap(value, measure)} ({100 * level:.0f} % interval {low_to_high}; {seeds})."
    if verdict == "equal":
        assert comparison.margin is not None
        return f"{a} and {b} are equal within {gap(comparison.margin, measure).lstrip('+')}: {numbers}"
    if verdict == "undecided":
        alone = "That interval alone excludes zero, but it is one of several that could have."
        return f"Undecided: {numbers} {alone if comparison.verdict != verdict else what_decides(comparison, a, b)}"
    return f"{a} is {verdict} than {b}: {numbers}"


def what_decides(comparison: Comparison, a: str = "A", b: str = "B") -> str:
    """Says how many more seeds would decide a comparison, or why no number can be named."""
    if not comparison.difference.standard_error > 0:
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


def _counts(comparison: Comparison) -> str:
    n, m = len(comparison.a), len(comparison.b)
    if n == m:
        return f"{counted(n, 'seed')} each"
    return f"{n} and {m} seeds"


def _no_spread(comparison: Comparison) -> str:
    if min(len(comparison.a), len(comparison.b)) < 2:
        return "One seed says nothing about seeds: train each with at least 5."
    what = "The difference is" if comparison.paired else "The values of each are"
    return (
        f"{what} the same on every seed, and without a spread no interval can be built: train more seeds, or test on "
        "more examples."
    )
