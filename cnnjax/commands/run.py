"""Runs a study in a folder: resumes an interrupted run, or grows it, trains what is missing and writes the records."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from cnnjax.commands.growth import check_folder, earlier_studies, looks_so_far, with_added_seeds
from cnnjax.commands.program_facts import describe_program, repeated_points
from cnnjax.commands.search import resume, with_next
from cnnjax.data import Dataset
from cnnjax.data.findings import examine
from cnnjax.data.resize import thumbnails
from cnnjax.executors.base import Engine
from cnnjax.executors.driver import run_tasks
from cnnjax.multihost import processes
from cnnjax.multihost.shared_dir import held, open_folder
from cnnjax.runs.run_dir import RunFolder, describe_plan, waiting_programs
from cnnjax.runs.speeds import read_speeds
from cnnjax.study import own_code
from cnnjax.study.metrics import describe_own
from cnnjax.study.plan import Plan, Program, make_plan
from cnnjax.study.schema import Study, from_config
from cnnjax.training.compiler import Compiler
from cnnjax.training.devices import leave_devices_to_workers
from cnnjax.training.estimate import Estimator, describe_speed, training_images
from cnnjax.training.layout import useful_devices
from cnnjax.training.machine import this_machine
from cnnjax.training.program import (
    load_data,
    load_plan,
    prepare_jax,
    run_programs,
    write_environment,
    writing,
)
from cnnjax.utils.errors import RequestError, unwritable
from cnnjax.utils.progress import Progress


def run(
    study: Study,
    workdir: Path,
    *,
    progress: Progress,
    overwrite: bool = False,
    max_members: int | None = None,
    profile: bool = False,
    engine: Engine | None = None,
    plans_looks: bool = False,
) -> None:
    """Trains the trials of a study that have no result yet.

    Args:
        study: the study to train.
        workdir: the run's folder. A run in it is resumed, and grows if the study asks for other values of its axes.
        progress: receives every step.
        overwrite: delete the run in the folder first.
        max_members: the largest number of members trained at a time; None for as many as fit in memory.
        profile: write a trace of each program's second epoch into the folder `profile`.
        engine: trains the programs on workers; None trains in this process.
        plans_looks: whether the caller looks at the results and adds seeds by a rule; see `growth.looks_so_far`.

    Raises:
        RequestError: the folder, the data or the study is invalid (nothing was written or trained), or the folder can
            no longer be written.
    """
    folder = open_folder(workdir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(folder))
        processes.broadcast_from_process0(RunFolder(workdir).check_links)
        is_run = folder.read_if_intact("config.json") is not None
        if is_run:  # fail fast if another process works in the folder
            stack.enter_context(held(workdir))
        is_new = check_folder(folder, study, overwrite)
        study = resume(study if is_new else with_added_seeds(folder, study), folder, is_new)
        earlier = [] if is_new else earlier_studies(folder, study)
        own_code.prepare(study.code, study.models)
        plan = load_plan(study, earlier)
        too_late = prepare_jax(plan) if engine is None else leave_devices_to_workers()
        dataset = load_data(study, earlier)
        if not is_run:
            processes.broadcast_from_process0(lambda: _make(workdir))
            stack.enter_context(held(workdir))
            if (is_new := check_folder(folder, study, overwrite)) is False and folder.read_config() is not None:
                raise RequestError("workdir", str(workdir), "another command has just begun a run in it; try again")
        folder.check_free()  # of workers that a killed launch left
        if is_new:
            folder.clear()
        every = study.with_splits_of(earlier)
        _start(folder, study, earlier, dataset, plan, plans_looks)
        left_out = (f"left out: {line}" for line in repeated_points(plan))
        for note in (*dataset.notes, *describe_own(study.metrics), *left_out):
            progress.note(note)
        if engine is None:
            write_environment(folder, progress)
        train = _trainer(folder, every, dataset, progress, max_members, profile, engine)
        while True:  # an adaptive search asks for more when it has results
            has_trained = _train_waiting(folder, plan, dataset, progress, train, too_late)
            further = with_next(study, folder)
            if further == study:
                break
            too_late = None  # the progress has the note already
            study, earlier = further, earlier_studies(folder, further)
            plan = make_plan(study, earlier)
            _start(folder, study, earlier, dataset, plan, plans_looks)
        if not has_trained:
            progress.note(f"{workdir} is finished: {len(plan.trials)} trials, nothing left to train")


Train = Callable[[Plan, Sequence[Program]], None]


def _trainer(
    folder: RunFolder,
    study: Study,
    dataset: Dataset,
    progress: Progress,
    max_members: int | None,
    profile: bool,
    engine: Engine | None,
) -> Train:
    """Returns the function that trains programs of a plan: on the workers of an engine, or here with one compiler."""
    if engine is not None:
        return lambda _, programs: run_tasks(folder, study, dataset, programs, progress, engine, max_members, profile)
    traces = folder.path / "profile" if profile and processes.is_first() else None
    compiler = functools.cache(lambda: Compiler(study, dataset, max_members, traces))  # it takes memory
    return lambda plan, programs: run_programs(folder, compiler(), plan.members, programs, progress)


def _train_waiting(
    folder: RunFolder, plan: Plan, dataset: Dataset, progress: Progress, train: Train, note: str | None
) -> bool:
    """Trains the trials of a plan that have no result. Returns whether there were any."""
    for program in plan.programs:
        folder.program(program.id).repair([trial for member in program.members for trial in member.trials])
    programs = waiting_programs(folder, plan.programs)
    try:
        if programs:
            if note:
                progress.note(note)
            members = sum(len(program.members) for program in programs)
            progress.begin(len(programs), members, *_expected_work(programs, dataset))
            train(plan, programs)
    finally:
        progress.end()
        if processes.is_first():  # the others may have failed elsewhere
            RunFolder(folder.path).write_views()
    return bool(programs)


def _expected_work(programs: Sequence[Program], dataset: Dataset) -> tuple[list[int], list[float], list[float]]:
    """Returns the training images that each program has left, and the expected seconds of an image and to compile."""
    images = [training_images(program, dataset) for program in programs]
    machine = this_machine(useful_devices(programs))
    estimator = Estimator(machine, read_speeds(), lambda: 1.0)  # only ratios matter
    found = [estimator.estimate(describe_speed(p.static, dataset, machine, len(p.members))) for p in programs]
    return images, [each.seconds_per_image for each in found], [each.compile_seconds for each in found]


def _make(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if unwritable(error):
            raise
        said = f"{error.strerror}; use a folder, or a place for a new one"
        raise RequestError("workdir", str(workdir), said) from error


def _start(
    folder: RunFolder, study: Study, earlier: Sequence[Study], dataset: Dataset, plan: Plan, plans_looks: bool
) -> None:
    """Writes the records known before training, config.json first: it marks the folder as a run."""
    before, looks = folder.read_config(), looks_so_far(folder, plan, plans_looks)
    if before is None or from_config(before) != study or looks != folder.read_looks():
        folder.write_config(study.to_dict(), [past.to_dict() for past in earlier], looks)
    folder.remove_unfinished()
    folder.write_code(study.code)
    data = dataset.describe()
    before = folder.read_if_intact("data.json")
    for key in ("classes", "source_sha256"):
        if before is not None and before.get(key) != data[key]:
            is_hash = key == "source_sha256"
            there, here = (str(value)[:12] if is_hash else value for value in (before.get(key), data[key]))
            what = f"its trials trained on other data ({key} {there} there, {here} here)"
            how = "bring the data back, choose another folder, or --overwrite it"
            raise RequestError("workdir", str(folder.path), f"{what}; {how}")
    examined = (before or {}).get("examined") or examine(dataset)
    folder.write_json("data.json", data | {"examined": examined})
    # The ids decide everything else in the plan. `write_views` adds what was measured.
    stored = folder.read_if_intact("plan.json") or {}
    if stored.get("trial_ids") != [trial.id for trial in plan.trials] or stored.get("repeats") != plan.repeats:
        folder.write_json("plan.json", describe_plan(plan, [describe_program(p, dataset) for p in plan.programs]))
    folder.write_predictions("labels", labels=dataset.test.labels)
    for split, labels in dataset.test_labels.items():
        folder.write_predictions(f"labels_split{split}", labels=labels)
    folder.write_predictions("images", images=thumbnails(dataset.test.images))
