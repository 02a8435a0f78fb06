"""The winner and its runners-up on fresh seeds, if `--confirm` trained them."""

import math
from typing import Any

import pandas as pd

from cnnjax import stats
from cnnjax.analysis.columns import kind_of, measure_name
from cnnjax.analysis.compare.fresh import Confirmation, is_outdated, read_confirmation
from cnnjax.analysis.run import Run, once_per_run
from cnnjax.report.tables import Table
from cnnjax.report.theme import Plot
from cnnjax.utils.text import counted

_WORDS = {"worse": "worse than", "undecided": "undecided against", "equal": "equal to", "better": "better than"}


@once_per_run
def read(run: Run) -> Confirmation | None:
    """Reads the confirmation of a run; None if there is none, or if the study has grown since."""
    found = read_confirmation(run.workdir)
    return None if found is None or is_outdated(run, found) else found


def text(found: Confirmation) -> str:
    """Returns the mean of the winner on fresh seeds, and its verdict against each runner-up."""
    return " ".join(filter(None, (_mean_sentence(found), verdict(found))))


def _mean_sentence(found: Confirmation) -> str:
    winner, measure = found.contenders[0], found.measure
    fresh, selected = winner.fresh, winner.selected
    span = f" (95\u00a0% interval {stats.amount(fresh.low, measure)} to {stats.amount(fresh.high, measure)})"
    return (
        f"On {counted(fresh.n, 'fresh seed')}, which did not take part in the selection, it reaches "
        f"{stats.amount(fresh.mean, measure)} {measure_name(measure)}{'' if math.isnan(fresh.low) else span}: "
        f"{stats.gap(fresh.mean - selected.mean, measure)} against the seeds that selected it."
    )


def verdict(found: Confirmation) -> str:
    """Returns the verdict of the fresh seeds on the winner against each runner-up; empty without a runner-up."""
    said: dict[str, list[str]] = {}
    for place, (row, other) in enumerate(zip(found.against, found.contenders[1:], strict=True), 2):
        by = "" if row.verdict == "equal" else f" by {stats.gap(row.difference, found.measure)}"
        if by and not math.isnan(row.low):
            by += f" ({stats.span(stats.Interval(row.low, row.high), found.measure)})"
        if row.verdict == "undecided" and row.more_seeds:
            by += f", {counted(max(row.more_seeds), 'more seed')} of each would decide it"
        said.setdefault(row.verdict, []).append(f"number {place}, {other.configuration}{by}")
    if not said:
        return ""
    head = "Not confirmed" if "worse" in said else "Undecided"
    head = {"better": "Decided", "equal": "Equal"}.get(" ".join(said), head)
    verdicts = [f"{_WORDS[name]} {'; and '.join(said[name])}" for name in _WORDS if name in said]
    return f"{head}: on the fresh seeds it is {'; '.join(verdicts)}."


def tables(run: Run) -> list[Table]:
    """A row per contender."""
    found = read(run)
    return [contender_table(found)] if found else []


def contender_table(found: Confirmation) -> Table:
    """Returns a table with a row per contender of a confirmation."""
    rows: list[dict[str, Any]] = []
    for place, (row, against) in enumerate(zip(found.contenders, [None, *found.against], strict=True), 1):
        shown: dict[str, Any] = {"place": place, "configuration": row.configuration}
        if found.against:
            more = against.more_seeds if against and against.verdict == "undecided" else None
            shown |= {"the winner is": against.verdict if against else "", "more_seeds": max(more) if more else None}
        shown |= {"n": row.fresh.n, "fresh": row.fresh.mean, "fresh_low": row.fresh.low, "fresh_high": row.fresh.high}
        shown |= {"selected": row.selected.mean, "p_best": row.best}
        if against:
            shown |= {"difference": against.difference, "difference_low": against.low}
            shown |= {"difference_high": against.high, "p": against.p}
        rows.append(shown)
    note = (
        f"The winner and its runners-up, trained on {found.seeds} fresh seeds that did not take part in the selection: "
        f"mean {measure_name(found.measure)} over the n that did not diverge, with its 95 % t interval. Selected: mean "
        "over the seeds of the study. P(best): probability of the best true mean among these, by the fresh seeds "
        "(t distribution). Difference: the winner's mean less this one's on the fresh seeds, with its 95 % t interval; "
        "p by Holm's correction."
    )
    names = ("fresh", "fresh_low", "fresh_high", "selected", "difference", "difference_low", "difference_high")
    kinds = dict.fromkeys(names, kind_of(found.measure))
    return Table("confirmation", "On fresh seeds", note, pd.DataFrame(rows), (0,), kinds)


def figures(run: Run) -> list[Plot]:
    """A confirmation has no figures."""
    return []
