"""The winner of a study and its runners-up on fresh seeds, which had no say in the choice."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax import stats
from cnnjax.comparison.sides import Side, read_side
from cnnjax.report.names import bounds, larger_is_better
from cnnjax.report.run import Run
from cnnjax.stats import amount, gap
from cnnjax.types import RequestError, counted

CONTENDERS = 3  # the winner and two runners-up


class Contender(NamedTuple):
    """A setting of a finished run, as it was selected and on fresh seeds.

    Attributes:
        trial: its first trial.
        setting: in words.
        score: mean of the measure that selected it, over the seeds of the study.
        selected: the measure that counts, over the seeds of the study.
        fresh: the same, over the fresh seeds.
        best: probability that it is the best of all contenders, by the fresh seeds.
    """

    trial: str
    setting: str
    score: float
    selected: stats.Summary
    fresh: stats.Summary
    best: float


class Confirmation(NamedTuple):
    """What fresh seeds say of a selection; the winner is the first contender.

    `against` holds it against each of the others, corrected for their number.
    """

    select: str
    measure: str
    contenders: list[Contender]
    against: list[stats.Adjusted]


def contenders(run: Run) -> list[str]:
    """Returns the first trials of the best settings by the run's `select`, the winner first.

    Raises:
        RequestError: no trial of the run ended well.
    """
    scored = run.settings[run.settings[run.select].notna()]
    scored = scored[scored["n"] == scored["n"].max()]
    if scored.empty:
        raise RequestError("--confirm", str(run.workdir), "no trial of it ended well: there is nothing to confirm")
    ranked = scored.sort_values(run.select, ascending=not larger_is_better(run.select), kind="stable")
    first = run.ok.groupby("setting")["trial"].first()
    return [str(first[setting]) for setting in ranked.index[:CONTENDERS]]


def fresh_seeds(used: tuple[int, ...], number: int) -> tuple[int, ...]:
    """Returns the smallest seeds that a study has not used."""
    return tuple(itertools.islice((seed for seed in itertools.count() if seed not in used), number))


def fresh_folder(workdir: Path, number: int, trial: str) -> Path:
    """Returns where a contender is trained on so many fresh seeds."""
    return workdir / "confirm" / str(number) / trial


def read_confirmation(run: Run, number: int) -> Confirmation:
    """Reads what a run's contenders, all trained, reach on so many fresh seeds.

    Raises:
        RequestError: one of them is not there, or all its trials diverged.
    """
    measure = "f1" if run.select == "f1" else "test_accuracy"
    trials = contenders(run)
    sides = {trial: read_side(str(fresh_folder(run.workdir, number, trial))) for trial in trials}
    values = {trial: side.values(measure) for trial, side in sides.items()}
    best = {row.name: row.best for row in stats.rank(values)}
    found = [_contender(run, trial, sides[trial], measure, best[trial]) for trial in trials]
    winner, *others = (values[trial] for trial in trials)
    pair = stats.pairing_helps(values)
    against = stats.adjust([stats.compare(winner, other, most=1, pair=pair) for other in others])
    return Confirmation(run.select, measure, found, against)


def _contender(run: Run, trial: str, side: Side, measure: str, best: float) -> Contender:
    setting = int(run.trials.loc[run.trials["trial"] == trial, "setting"].iloc[0])
    selected = stats.summarise(run.values(setting, measure), bounds(measure))
    fresh = stats.summarise([*side.values(measure).values()], bounds(measure))
    return Contender(trial, run.describe(setting), float(run.settings.loc[setting, run.select]), selected, fresh, best)


def confirmation_text(found: Confirmation) -> str:
    """The confirmation for a terminal, the honest figure first."""
    winner, measure = found.contenders[0], found.measure
    name, (selected, fresh) = measure.replace("_", " "), winner[3:5]
    span = f" (95 % interval {amount(fresh.low, measure)} to {amount(fresh.high, measure)})"
    lines = [
        f"On {counted(fresh.n, 'fresh seed')} the winner has a {name} of {amount(fresh.mean, measure)}"
        f"{'' if math.isnan(fresh.low) else span}; on the {counted(selected.n, 'seed')} that selected it "
        f"(by {found.select}) it had {amount(selected.mean, measure)}: "
        f"a difference of {gap(fresh.mean - selected.mean, measure)}."
    ]
    if found.select.startswith("test") or found.select == "f1":
        lines.append(
            f"The test split selected it ({found.select}): fresh seeds undo the luck of seeds, not that of test images."
        )
    for place, row in enumerate(found.contenders, 1):
        values = f"{amount(row.selected.mean, measure)} when selected, {amount(row.fresh.mean, measure)} on fresh seeds"
        sure = "more than 0.99" if row.best > 0.99 else f"{row.best:.2f}"
        chance = f"the best with probability {sure}" if len(found.contenders) > 1 and not math.isnan(row.best) else ""
        lines.append(f"{place}. {row.setting} ({row.trial}): " + ", ".join(filter(None, (values, chance))))
    for place, adjusted in enumerate(found.against, 2):
        sides = "The winner", f"number {place}"
        sentence = stats.verdict_sentence(adjusted.comparison, measure, *sides, verdict=adjusted.verdict)
        p = f" p = {adjusted.p:.3g}, corrected for {len(found.against)}." if not math.isnan(adjusted.p) else ""
        lines.append(sentence + p)
    return "\n".join(lines)


def confirmation_dict(found: Confirmation) -> dict[str, Any]:
    """The confirmation's numbers."""
    rows = [
        row._asdict() | {name: dataclasses.asdict(getattr(row, name)) for name in ("selected", "fresh")}
        for row in found.contenders
    ]
    against = [
        {
            "trial": row["trial"],
            "verdict": adjusted.verdict,
            "p": adjusted.p,
            "difference": adjusted.comparison.difference.value,
            **adjusted.comparison.interval._asdict(),
            "more_seeds": adjusted.comparison.more_seeds,
        }
        for row, adjusted in zip(rows[1:], found.against, strict=True)
    ]
    return {"select": found.select, "measure": found.measure, "contenders": rows, "against": against}
