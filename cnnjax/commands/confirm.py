"""Trains the winner of a finished study and its runners-up on fresh seeds."""

import dataclasses
import functools
from pathlib import Path

from cnnjax.analysis.compare import fresh
from cnnjax.analysis.read import read_run
from cnnjax.commands import run
from cnnjax.commands.growth import check_repeatable, with_added_seeds
from cnnjax.commands.search import resume
from cnnjax.executors.base import Engine
from cnnjax.multihost import processes
from cnnjax.multihost.shared_dir import open_folder
from cnnjax.report import build_report
from cnnjax.report.sections.confirmation import contender_table, text
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.schema import Study
from cnnjax.study.search import default_configuration
from cnnjax.study.trials import list_trials, single_out
from cnnjax.utils.progress import Progress


def confirm(study: Study, workdir: Path, number: int, *, progress: Progress, engine: Engine | None = None) -> str:
    """Trains the winner and its runners-up on fresh seeds, and compares them. A search adds the default configuration.

    Each contender is a study of its own in the folder confirm/NUMBER/TRIAL of the run. Call the function again to
    resume an interrupted confirmation. The results are written to confirm/NUMBER/confirmation.json and into the run's
    report.

    Args:
        study: the study of the run.
        workdir: the run's folder; all its trials have finished.
        number: the number of fresh seeds.
        progress: receives every step.
        engine: trains on workers; None trains in this process.

    Returns:
        The verdict on the winner and the table of contenders, as text.

    Raises:
        RequestError: the streams of the study are crossed or all fixed, so seeds decide nothing; or all trials
            diverged.
    """
    check_repeatable(study, "--confirm")
    study = with_added_seeds(open_folder(workdir), study)
    contenders = processes.broadcast_from_process0(lambda: list(fresh.contenders(read_run(workdir))))
    study = resume(study, RunFolder(workdir), is_new=False)
    trials = {trial.id: trial for trial in list_trials(study)}
    seeds = fresh.fresh_seeds(study.every_seed, number)
    for place, trial in enumerate(contenders, 1):
        progress.note(
            f"configuration {place} of {len(contenders)} ({trial}) on fresh seeds {', '.join(map(str, seeds))}"
        )
        alone = single_out(study, trials[trial], seeds) if trial in trials else _default(study, seeds)
        folder = fresh.fresh_folder(workdir, number, trial)
        run.run(alone, folder, progress=progress, engine=engine)
        processes.broadcast_from_process0(functools.partial(_report, folder))
    return processes.broadcast_from_process0(lambda: _conclude(workdir, number))


def _default(study: Study, seeds: tuple[int, ...]) -> Study:
    return dataclasses.replace(default_configuration(study), seeds=seeds)


def _report(workdir: Path) -> str:
    return str(build_report(workdir))


def _conclude(workdir: Path, number: int) -> str:
    of_study = read_run(workdir)
    found = fresh.compute_confirmation(of_study, number)
    RunFolder(workdir / "confirm" / str(number)).write_json("confirmation.json", fresh.to_dict(found))
    build_report(workdir)
    said = [f"The winner is {found.contenders[0].configuration}. {text(found)}"]
    if of_study.selects_on_test:
        said.append(f"It was selected on the test split ({found.select}): fresh seeds do not undo luck on its images.")
    return "\n".join([*said, contender_table(found).text()])
