"""The winner of a study and its runners-up on fresh seeds, which did not take part in the selection."""

import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax import stats
from cnnjax.analysis.columns import bounds, larger_is_better
from cnnjax.analysis.compare.evidence import compare_sides
from cnnjax.analysis.compare.sides import Side, read_side
from cnnjax.analysis.run import Run
from cnnjax.runs.integrity import Damaged, read_json
from cnnjax.study.metrics import is_measure
from cnnjax.study.renamed import OLD_COLUMNS
from cnnjax.study.schema import from_run
from cnnjax.study.search import default_configuration
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError
from cnnjax.utils.tree import finite

CONTENDERS = 3  # the winner and two runners-up; a search adds the default configuration
DEFAULT = "the default configuration, "
_VERDICTS = ("better", "worse", "equal", "undecided")


class Contender(NamedTuple):
    """A configuration as it was selected, and on fresh seeds.

    Attributes:
        trial: its first trial.
        configuration: its name.
        score: mean of the measure that selected it, over the seeds of the study.
        selected: the reported measure over the seeds of the study.
        fresh: the reported measure over the fresh seeds.
    """

    trial: str
    configuration: str
    score: float
    selected: stats.Summary
    fresh: stats.Summary


class Against(NamedTuple):
    """The winner compared with a runner-up on fresh seeds.

    Attributes:
        trial: the runner-up's first trial.
        verdict: on the winner.
        p: of the t test, corrected for the number of runners-up.
        difference: the winner's mean less the runner-up's.
        low: lower end of its 95 % interval.
        high: upper end.
        more_seeds: how many more seeds of the winner and of the runner-up would decide; None if unknown.
    """

    trial: str
    verdict: str
    p: float
    difference: float
    low: float
    high: float
    more_seeds: tuple[int, int] | None


class Confirmation(NamedTuple):
    """The results of fresh seeds. The first contender is the winner; `against` compares it with the others."""

    seeds: int
    select: str
    measure: str
    contenders: list[Contender]
    against: list[Against]
    fresh_seeds: tuple[int, ...] = ()  # unknown in older runs


def is_outdated(run: Run, found: Confirmation) -> bool:
    """Returns whether the study has grown since: its seeds now include a fresh one, or it has another winner."""
    has_other_winner = run.select == found.select and contenders(run)[0] != found.contenders[0].trial
    return has_other_winner or bool({*found.fresh_seeds} & {*run.trials["seed"]})


def contenders(run: Run) -> list[str]:
    """Returns the first trials of the best configurations by the run's `select`, the winner first.

    The default configuration of a search comes last, if it is none of them.

    Raises:
        RequestError: no trial of the run ended without diverging.
    """
    scored = run.configurations[run.configurations[run.select].notna()]
    lost_none = run.complete_seeds[scored.index]
    scored = scored[lost_none == lost_none.max()]
    if scored.empty:
        raise RequestError("--confirm", str(run.workdir), "all of its trials diverged: there is nothing to confirm")
    ranked = scored.sort_values(run.select, ascending=not larger_is_better(run.select), kind="stable")
    first = run.ok.groupby("configuration")["trial"].first()
    found = [str(first[configuration]) for configuration in ranked.index[:CONTENDERS]]
    default = default_trial(run)
    return found if default is None or default in found else [*found, default]


def default_trial(run: Run) -> str | None:
    """Returns the first trial of the default configuration of a search, which may not be one of its own; else None."""
    study = from_run(run.config)
    return list_trials(default_configuration(study))[0].id if study.search.method != "grid" else None


def fresh_seeds(used: tuple[int, ...], number: int) -> tuple[int, ...]:
    """Returns the smallest seeds that a study did not use."""
    return tuple(itertools.islice((seed for seed in itertools.count() if seed not in used), number))


def fresh_folder(workdir: Path, number: int, trial: str) -> Path:
    """Returns the folder in which a contender is trained on `number` fresh seeds."""
    return workdir / "confirm" / str(number) / trial


def compute_confirmation(run: Run, number: int) -> Confirmation:
    """Computes the results of a run's contenders, all of them trained, on `number` fresh seeds.

    Raises:
        RequestError: the run of a contender is missing, or all its trials diverged.
    """
    measure = _measure(run)
    trials = contenders(run)
    sides = {trial: read_side(str(fresh_folder(run.workdir, number, trial))) for trial in trials}
    found = [_contender(run, trial, sides[trial], measure) for trial in trials]
    runs = [run, *(side.run for side in sides.values())]
    against = []
    for trial in trials[1:]:
        # Two-sided for each runner-up, because any of them may also turn out better than the winner.
        one = compare_sides(sides[trials[0]], sides[trial], measure, runs, tests=2 * len(trials[1:]))
        against.append(Against(trial, one.verdict, one.p, one.difference, *one.interval, one.more_seeds))
    seeds = sorted({int(seed) for side in sides.values() for seed in side.trials["seed"]})
    return Confirmation(number, run.select, measure, found, against, tuple(seeds))


def _measure(run: Run) -> str:
    """Returns the study's metric on the test split, which fresh seeds compare: `test_f1` of a study by `val_f1`."""
    return f"test_{run.select.partition('_')[2]}"


def _contender(run: Run, trial: str, side: Side, measure: str) -> Contender:
    fresh = stats.summarize([*side.values(measure).values()], bounds(measure))
    found = run.trials.loc[run.trials["trial"] == trial, "configuration"]
    name = f"{DEFAULT if trial == default_trial(run) else ''}{side.description}"
    if found.empty:  # the default configuration of a search
        return Contender(trial, name, math.nan, stats.Summary(0, *[math.nan] * 11), fresh)
    configuration = int(found.iloc[0])
    selected = stats.summarize(run.values(configuration, measure), bounds(measure))
    return Contender(trial, name, float(run.configurations.loc[configuration, run.select]), selected, fresh)


def to_dict(found: Confirmation) -> dict[str, Any]:
    """Returns a confirmation as the content of confirmation.json; NaN becomes None."""
    rows = [row._asdict() | {"selected": vars(row.selected), "fresh": vars(row.fresh)} for row in found.contenders]
    against = [row._asdict() for row in found.against]
    names = {"select": found.select, "measure": found.measure, "fresh_seeds": found.fresh_seeds}
    return finite({**names, "contenders": rows, "against": against})


def read_confirmation(workdir: Path) -> Confirmation | None:
    """Reads the confirmation on the largest number of fresh seeds; returns None if there is none.

    Raises:
        Damaged: the file does not hold a confirmation.
    """
    files = {int(p.parent.name): p for p in workdir.glob("confirm/*/confirmation.json") if p.parent.name.isdecimal()}
    if not files:
        return None
    number = max(files)
    content = read_json(files[number])
    try:
        found = Confirmation(
            number,
            content["select"],
            OLD_COLUMNS.get(content["measure"], content["measure"]),
            [_read_contender(row) for row in content["contenders"]],
            [_read_against(row) for row in content["against"]],
            tuple(map(int, content.get("fresh_seeds", ()))),
        )
        if not is_measure(found.measure) or len(found.against) != len(found.contenders) - 1:
            raise ValueError("not a confirmation")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(files[number], f"{type(error).__name__}: {error}") from error
    return found


def _read_contender(row: dict[str, Any]) -> Contender:
    selected, fresh = (stats.Summary(**_floats(row[name])) for name in ("selected", "fresh"))
    rest = _floats({"score": row["score"]})
    configuration = row["configuration"] if "configuration" in row else row["setting"]  # of version 0.1
    return Contender(str(row["trial"]), str(configuration), selected=selected, fresh=fresh, **rest)


def _read_against(row: dict[str, Any]) -> Against:
    if row["verdict"] not in _VERDICTS:
        raise ValueError(f"verdict {row['verdict']!r}")
    more = row["more_seeds"] and (int(row["more_seeds"][0]), int(row["more_seeds"][1]))
    numbers = _floats({name: row[name] for name in ("p", "difference", "low", "high")})
    return Against(str(row["trial"]), row["verdict"], more_seeds=more, **numbers)


def _floats(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: math.nan if value is None else int(value) if name == "n" else float(value) for name, value in row.items()
    }
