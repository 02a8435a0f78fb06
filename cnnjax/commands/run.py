"""Runs a study in a folder: resumes an interrupted run, trains the missing members and writes the records."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

import jax

from cnnjax.commands.program_facts import describe_program, network_of, repeated_points
from cnnjax.data import Dataset
from cnnjax.data.findings import examine
from cnnjax.data.resize import thumbnails
from cnnjax.executors.base import Engine
from cnnjax.executors.driver import run_tasks
from cnnjax.models.summary import training_flops
from cnnjax.multihost import processes
from cnnjax.multihost.shared_dir import held, open_folder
from cnnjax.runs.run_dir import RunFolder, describe_plan
from cnnjax.study.plan import Member, Plan, Program
from cnnjax.study.schema import Study, from_config
from cnnjax.training.program import load, prepare_jax, run_programs, waiting, write_environment, writing
from cnnjax.utils.errors import RequestError, unwritable
from cnnjax.utils.progress import Progress
from cnnjax.utils.tree import differences

_OPERATIONS_PER_VALUE = 1000  # network operations that take as long as gathering and augmenting one pixel value


def run(
    study: Study,
    workdir: Path,
    *,
    progress: Progress,
    overwrite: bool = False,
    max_members: int | None = None,
    profile: bool = False,
    engine: Engine | None = None,
) -> None:
    """Trains the trials of a study that have no result yet.

    Args:
        study: the study to train.
        workdir: the run's folder. A run of the same study in it is resumed.
        progress: receives every step.
        overwrite: delete the run in the folder first.
        max_members: the largest number of members trained at a time; None for as many as fit in memory.
        profile: write a trace of each program's second epoch into the folder `profile`.
        engine: trains the programs on workers; None trains in this process.

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
        is_new = _check_folder(folder, study, overwrite)
        dataset, plan = load(study)
        if not is_run:
            processes.broadcast_from_process0(lambda: _make(workdir))
            stack.enter_context(held(workdir))
            is_new = _check_folder(folder, study, overwrite)
        folder.check_free()  # of workers that a killed launch left
        if is_new:
            folder.clear()
        if engine is None:
            prepare_jax(plan)
        else:
            jax.config.update("jax_platforms", "cpu")  # this process does not train; leave the devices to the workers
        _start(folder, study, dataset, plan)
        for note in (*dataset.notes, *(f"left out: {line}" for line in repeated_points(plan))):
            progress.note(note)
        if engine is None:
            write_environment(folder, progress)
        for program in plan.programs:
            folder.program(program.id).repair()
        programs, members = waiting(folder, plan.programs)
        try:
            if programs:
                progress.begin(len(programs), len(members), *_expected_work(programs, members, dataset))
                if engine is not None:
                    run_tasks(folder, study, dataset, programs, progress, engine, max_members, profile)
                else:
                    traces = workdir / "profile" if profile and processes.is_first() else None
                    run_programs(folder, study, dataset, programs, progress, max_members, traces)
            else:
                progress.note(f"{workdir} is finished: {len(plan.trials)} trials, nothing left to train")
        finally:
            progress.end()
            if processes.is_first():  # the others may have failed elsewhere
                RunFolder(workdir).write_views()


def _expected_work(
    programs: Sequence[Program], members: Sequence[Member], dataset: Dataset
) -> tuple[list[int], list[float]]:
    """Returns the number of training images that each program has left, and its operations per image."""
    ids = {member.id for member in members}
    epochs = [sum(m.epochs for m in p.members if m.id in ids) for p in programs]
    images = [n * dataset.train_size(p.static.train_examples) for n, p in zip(epochs, programs, strict=True)]
    values = _OPERATIONS_PER_VALUE * math.prod(dataset.image_shape)
    return images, [values + training_flops(network_of(p, dataset), dataset.image_shape) for p in programs]


def _make(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if unwritable(error):
            raise
        said = f"{error.strerror}; use a folder, or a place for a new one"
        raise RequestError("workdir", str(workdir), said) from error


def _check_folder(folder: RunFolder, study: Study, overwrite: bool) -> bool:
    """Returns whether the folder is cleared first; raises RequestError if it holds another study."""
    if overwrite:
        return folder.check_overwritable()
    found = folder.read_config()
    if found is None:
        return False
    try:
        there = from_config(found).to_dict()
    except RequestError as error:
        raise RequestError("workdir", str(folder.path), f"its config.json is not a valid study ({error})") from error
    found = differences(there, study.to_dict())
    if "sha256" in (folder.read_if_intact("data.json") or {}):
        found.pop("data.path", None)  # the data may have moved; its fingerprint is compared when it is read
    differing = [f"{key} ({theirs!r} there, {ours!r} here)" for key, (theirs, ours) in found.items()]
    if differing:
        raise RequestError(
            "workdir",
            str(folder.path),
            f"it holds another study, which differs in {', '.join(differing)}; "
            "choose another folder, or --overwrite it",
        )
    folder.check_networks(study.models)
    return False


def _start(folder: RunFolder, study: Study, dataset: Dataset, plan: Plan) -> None:
    """Writes the records known before training, config.json first: it marks the folder as a run."""
    if folder.read_config() is None:
        folder.write_config(study.to_dict())
    folder.remove_unfinished()
    data = dataset.describe()
    before = folder.read_if_intact("data.json")
    for key in ("classes", "sha256"):
        if before is not None and before.get(key) != data[key]:
            there, here = (str(value)[:12] if key == "sha256" else value for value in (before.get(key), data[key]))
            what = f"its trials trained on other data ({key} {there} there, {here} here)"
            how = "bring the data back, choose another folder, or --overwrite it"
            raise RequestError("workdir", str(folder.path), f"{what}; {how}")
    folder.check_version()
    folder.check_plan(plan)
    examined = (before or {}).get("examined") or examine(dataset)
    folder.write_json("data.json", data | {"examined": examined})
    if folder.read_if_intact("plan.json") is None:
        folder.write_json("plan.json", describe_plan(plan, [describe_program(p, dataset) for p in plan.programs]))
    folder.write_predictions("labels", labels=dataset.test.labels)
    for split, labels in dataset.test_labels.items():
        folder.write_predictions(f"labels_split{split}", labels=labels)
    folder.write_predictions("images", images=thumbnails(dataset.test.images))
