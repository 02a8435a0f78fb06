"""Trains a study in a folder or a store, builds its report and confirms its winner."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnjax.commands import run
from cnnjax.commands.growth import check_repeatable
from cnnjax.commands.until import run_until_decided
from cnnjax.executors.base import Engine
from cnnjax.multihost import processes
from cnnjax.report.process import build_here
from cnnjax.runs import remote
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.schema import Study
from cnnjax.training.program import writing
from cnnjax.utils.progress import Progress


def launch(
    study: Study,
    place: str | Path,
    *,
    progress: Progress,
    overwrite: bool = False,
    profile: bool = False,
    confirm: int | None = None,
    until: str | None = None,
    max_seeds: int | None = None,
    margin: float | None = None,
    report: bool = True,
    build_report: Callable[[Path], Path] = build_here,
    engine: Engine | None = None,
) -> str:
    """Runs a study: resumes a run of it in the folder, or starts one.

    Args:
        study: the study.
        place: the run's folder, or its URL.
        progress: receives every step.
        overwrite: delete the run in the folder first.
        profile: write a trace of each program's second epoch into the folder `profile` of the run.
        confirm: train the winner and two runners-up on this number of fresh seeds afterwards.
        until: `decided` adds seeds until the best is decided, see `until.run_until_decided`.
        max_seeds: the largest number of seeds of a configuration, with `until`; None is 20.
        margin: the largest difference that does not matter, with `until`.
        report: build the run's report before the confirmation, which builds it again.
        build_report: builds it, given the run's folder.
        engine: trains the programs on workers; None trains in this process.

    Returns:
        The path of the report and the text of the confirmation, a line or more for each that was asked for.

    Raises:
        RequestError: the folder, the data or the study is invalid, or the folder or store cannot be written.
    """
    if confirm is not None:
        from cnnjax.commands import confirm as confirmation  # imports plots

        check_repeatable(study, "--confirm")
    options: dict[str, Any] = {"progress": progress, "overwrite": overwrite, "profile": profile, "engine": engine}
    said = []
    with remote.local_copy(place, progress) as workdir:
        if until is None:
            run.run(study, workdir, **options)
        else:
            said.append(run_until_decided(study, workdir, max_seeds=max_seeds, margin=margin, **options))
        if report:
            said.append(processes.broadcast_from_process0(functools.partial(_report, workdir, build_report)))
        if confirm is not None:
            said.append(confirmation.confirm(study, workdir, confirm, progress=progress, engine=engine))
    return "\n".join(said)


def _report(workdir: Path, build: Callable[[Path], Path]) -> str:
    with writing(RunFolder(workdir)):
        return str(build(workdir))
