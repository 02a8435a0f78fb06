"""What a study's winner and runners-up reached on fresh seeds, where `--confirm` has trained them."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cnnjax import stats
from cnnjax.report.names import MEASURES, measure_name
from cnnjax.report.tables import Table
from cnnjax.sealed import Damaged, read_json
from cnnjax.types import counted

_VERDICTS = ("better", "worse", "equal", "undecided")


class Contender(NamedTuple):
    """A setting as it was selected and on fresh seeds; means with their 95 % intervals."""

    name: str
    selected: float
    n: int
    mean: float
    low: float
    high: float
    best: float


class Against(NamedTuple):
    """The winner beside a runner-up, on fresh seeds: difference, its interval, p by Holm's correction, and verdict."""

    value: float
    low: float
    high: float
    p: float
    verdict: str
    more_seeds: int | None


class Confirmed(NamedTuple):
    """The newest word of fresh seeds; the winner is the first contender, `against` holds it against the others."""

    seeds: int
    measure: str
    contenders: list[Contender]
    against: list[Against]


def read_confirmed(workdir: Path) -> Confirmed | None:
    """Reads the confirmation by the most fresh seeds; None where there is none.

    Raises:
        Damaged: it is not what was written.
    """
    files = {int(p.parent.name): p for p in workdir.glob("confirm/*/confirmation.json") if p.parent.name.isdecimal()}
    if not files:
        return None
    path = files[max(files)]
    content = read_json(path)
    try:
        contenders = [_contender(row) for row in content["contenders"]]
        against = [_against(row) for row in content["against"]]
        if content["measure"] not in MEASURES or not contenders or len(against) != len(contenders) - 1:
            raise ValueError("it is no confirmation")
        return Confirmed(max(files), content["measure"], contenders, against)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(path, f"{type(error).__name__}: {error}") from error


def _contender(row: dict[str, Any]) -> Contender:
    fresh = row["fresh"]
    mean, low, high = (_float(fresh[name]) for name in ("mean", "low", "high"))
    return Contender(
        str(row["setting"]), _float(row["selected"]["mean"]), int(fresh["n"]), mean, low, high, _float(row["best"])
    )


def _against(row: dict[str, Any]) -> Against:
    if row["verdict"] not in _VERDICTS:
        raise ValueError(f"verdict {row['verdict']!r}")
    more = max(row["more_seeds"]) if row["more_seeds"] else None
    value, low, high, p = (_float(row[name]) for name in ("difference", "low", "high", "p"))
    return Against(value, low, high, p, row["verdict"], more)


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def confirmed_sentence(found: Confirmed) -> str:
    """The honest figure, and what it is beside the one that won."""
    winner, measure = found.contenders[0], found.measure
    span = f" (95\u00a0% interval {stats.amount(winner.low, measure)} to {stats.amount(winner.high, measure)})"
    span = "" if math.isnan(winner.low) else span  # one seed, or no spread
    return (
        f"On {counted(winner.n, 'fresh seed')}, which had no say in the choice, it reaches "
        f"{stats.amount(winner.mean, measure)} {measure_name(measure)}{span}: "
        f"{stats.gap(winner.mean - winner.selected, measure)} beside the seeds that selected it."
    )


def confirmed_verdict(found: Confirmed) -> str:
    """What the fresh seeds say of the winner beside each runner-up, and what is undecided; nothing of one contender."""
    said: dict[str, list[str]] = {}
    for place, (row, other) in enumerate(zip(found.against, found.contenders[1:], strict=True), 2):
        span = f" ({stats.span(stats.Interval(row.low, row.high), found.measure)})"
        by = "" if row.verdict == "equal" else f" by {stats.gap(row.value, found.measure)}"
        needs = row.more_seeds if row.verdict == "undecided" else None
        more = f", {counted(needs, 'more seed')} of each would decide it" if needs else ""
        than = f"number {place}, {other.name}{by}{'' if math.isnan(row.low) or not by else span}{more}"
        said.setdefault(row.verdict, []).append(than)
    if not said:
        return ""
    words = {"worse": "worse than", "undecided": "undecided against", "equal": "equal to", "better": "better than"}
    verdicts = [f"{words[name]} {'; and '.join(said[name])}" for name in words if name in said]
    head = "Decided" if set(said) == {"better"} else "Not confirmed" if "worse" in said else "Undecided"
    if set(said) == {"equal"}:
        head = "Equal"
    return f"{head}: on the fresh seeds it is {'; '.join(verdicts)}."


def confirmed_tables(found: Confirmed | None) -> list[Table]:
    """One row per contender."""
    if found is None:
        return []
    rows: list[dict[str, Any]] = []
    for place, row in enumerate(found.contenders, 1):
        shown: dict[str, Any] = {"place": place, "setting": row.name}
        of = found.against[place - 2] if place > 1 else None
        if found.against:
            shown |= {"the winner is": of.verdict if of else ""}
            shown |= {"more_seeds": of.more_seeds if of and of.verdict == "undecided" else None}
        shown |= {"n": row.n, "fresh": row.mean, "fresh_low": row.low, "fresh_high": row.high}
        shown |= {"selected": row.selected, "p_best": row.best}
        if of:
            shown |= {"difference": of.value, "difference_low": of.low, "difference_high": of.high, "p": of.p}
        rows.append(shown)
    percent = "percent" if found.measure.endswith("accuracy") else "number"
    note = (
        f"The winner and its runners-up, trained on {found.seeds} fresh seeds that had no say in the choice: mean "
        f"{measure_name(found.measure)} over the n that did not diverge, with its 95 % t interval; beside it the mean "
        "over the seeds that selected. P(best): probability of the best true mean of these, as far as the fresh "
        "seeds tell (by t). Difference: the winner's mean less this one's on the fresh seeds, with its 95 % t "
        "interval; p by Holm's correction."
    )
    kinds = dict.fromkeys(("fresh", "fresh_low", "fresh_high", "selected"), percent)
    kinds |= dict.fromkeys(("difference", "difference_low", "difference_high"), percent)
    kinds |= {"place": "whole", "more_seeds": "whole"} | dict.fromkeys(("setting", "the winner is"), "text")
    return [Table("confirmation", "On fresh seeds", note, pd.DataFrame(rows), (0,), kinds)]
