"""Adds seeds to the configurations of a study that may still be the best, until the best is decided."""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cnnjax import stats
from cnnjax.analysis.columns import bounds
from cnnjax.analysis.compare.fresh import fresh_seeds
from cnnjax.analysis.evidence import Evidence, are_equal, weigh
from cnnjax.analysis.read import read_run
from cnnjax.commands import run
from cnnjax.commands.growth import check_repeatable, count_seeds, earlier_studies, make_look, with_added_seeds
from cnnjax.multihost import processes
from cnnjax.multihost.shared_dir import held, open_folder
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.schema import Study
from cnnjax.study.trials import configuration_id, list_trials
from cnnjax.training.program import writing
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from cnnjax.utils.text import counted

MOST_SEEDS = 20  # unless the user says otherwise


def run_until_decided(
    study: Study,
    workdir: Path,
    *,
    max_seeds: int | None = None,
    margin: float | None = None,
    progress: Progress,
    overwrite: bool = False,
    **options: Any,
) -> str:
    """Runs a study, looks at it, and adds seeds to the configurations that may still be the best, until one is decided.

    A look is decided if no other configuration may be the best, or if all that may be are equal within the margin. Each
    look spends a share of the risk of 5 %, see `stats.looks`. The looks, the seeds that they add and the configurations
    that may be the best are recorded in config.json, so that the same call resumes an interrupted one.

    Args:
        study: the study; its seeds are those of the first look.
        workdir: the run's folder.
        max_seeds: the largest number of seeds of a configuration; None is 20.
        margin: the largest difference, in the unit of the study's measure, that does not matter.
        progress: receives every step.
        overwrite: delete the run in the folder first.
        options: further arguments of `run.run`.

    Returns:
        What the last look decided.

    Raises:
        RequestError: `check_until` or `run.run` refuses the request.
    """
    most = MOST_SEEDS if max_seeds is None else max_seeds
    check_until(study if overwrite else with_added_seeds(open_folder(workdir), study), most, margin)
    while True:
        run.run(study, workdir, progress=progress, overwrite=overwrite, plans_looks=True, **options)
        overwrite = False
        with held(workdir), writing(RunFolder(workdir)):
            said, goes_on = processes.broadcast_from_process0(functools.partial(_look, study, workdir, most, margin))
        progress.note(said)
        if not goes_on:
            return said


def check_until(study: Study, most: int, margin: float | None) -> None:
    """Raises RequestError if seeds cannot decide which configuration of a study is the best."""
    check_repeatable(study, "--until")
    present = max((len({*study.seeds, *more}) for more in study.added.values()), default=len(study.seeds))
    least, greatest = bounds(study.select)
    if study.search.is_adaptive:
        problem = f"the search {study.search.method!r} decides itself what to train; use --until without it"
        raise RequestError("--until", "decided", problem)
    if study.data.folds:
        raise RequestError("data.folds", study.data.folds, "--until needs independent seeds; folds share images")
    if len(study.seeds) < 2:
        raise RequestError("seeds", study.seeds, "--until needs at least 2 seeds to begin with; use 0,1,2")
    if len({configuration_id(trial) for trial in list_trials(study)}) < 2:
        raise RequestError("--until", "decided", "the study has one configuration, so nothing is to be decided")
    if most < present:
        raise RequestError("--max_seeds", most, f"must be >= {present}, the present number of seeds")
    if margin is not None and not 0 < margin < greatest - least:
        at_most = " and < 1; 0.005 is half a percentage point" if greatest == 1 else ""
        raise RequestError("--margin", margin, f"must be > 0{at_most}")


def _look(study: Study, workdir: Path, most: int, margin: float | None) -> tuple[str, bool]:
    """Looks at a finished run, records the look and adds seeds. Returns what to say, and whether seeds were added."""
    folder = RunFolder(workdir)
    study = with_added_seeds(folder, study)
    trials = {trial.id: trial for trial in list_trials(study)}
    seeds, looks = count_seeds(trials.values(), folder.read_trials()), folder.read_looks() or []
    now = max(seeds.values())
    if looks and looks[-1]["seeds"] == seeds:  # an interrupted command, or an earlier one, was here
        look = looks.pop()
    else:
        before = max(looks[-1]["seeds"].values()) if looks else 0
        spent = sum(one["share"] for one in looks)
        look = make_look(seeds, stats.share_of_look(spent, now, before, most))
    looks.append({**look, "margin": margin})
    _record(folder, study, looks)  # before the evidence, which has the share of the look
    found = weigh(of_run := read_run(workdir))
    said = f"look {len(looks)}, {now} seeds"
    if found is None:
        return f"{said}: no trial has a value to decide by", False
    contenders = [found.configurations[0], *_open(found)]
    names = ", ".join(of_run.tell_apart(configuration) for configuration in contenders[:3])
    names += ", ..." if len(contenders) > 3 else ""
    looks[-1]["in_question"] = [min(of_run.keys(c).values(), key=[*trials].index) for c in contenders]
    is_decided, said = True, f"{said}: "
    if len(contenders) == 1:
        said += f"decided, {names} is the best of {len(found.ranks)} configurations"
    elif are_equal(found, margin):
        within = "" if margin is None else f" within {margin:g}"
        said += f"{counted(len(contenders), 'configuration')} may be the best and are equal{within} ({names})"
    else:
        said += f"{len(contenders)} of {len(found.ranks)} configurations may be the best ({names})"
        is_decided = False
    goes_on = not is_decided and now < most
    if goes_on:
        size = stats.next_size(now, most)
        said += f"; they train up to {size} seeds"
        chosen = [configuration_id(trials[trial]) for trial in looks[-1]["in_question"]]
        study = dataclasses.replace(study, added={**study.added, **_more_seeds(study, chosen, size)})
    elif not is_decided:
        said += f"; --max_seeds={most} is reached"
    _record(folder, study, looks)
    return said, goes_on


def _open(found: Evidence) -> list[int]:
    pairs = zip(found.configurations[1:], found.ranks[1:], strict=True)
    return [configuration for configuration, rank in pairs if rank.may_be_best]


def _more_seeds(study: Study, chosen: Iterable[str], size: int) -> dict[str, tuple[int, ...]]:
    """Returns the added seeds of configurations that have `size` seeds from now on, by id."""
    more = fresh_seeds(study.seeds, size - len(study.seeds))
    return {name: tuple(dict.fromkeys((*study.added.get(name, ()), *more))) for name in chosen}


def _record(folder: RunFolder, study: Study, looks: list[dict[str, Any]]) -> None:
    """Writes a study and its looks into config.json. The next run trains what the study has and the folder lacks."""
    earlier = [past.to_dict() for past in earlier_studies(folder, study)]
    folder.write_config(study.to_dict(), earlier, looks)
