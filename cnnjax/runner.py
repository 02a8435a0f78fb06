"""Runs a study in a folder: resumes an interrupted run, trains the missing members and records everything."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from cnnjax import models, processes
from cnnjax.analysis.columns import significant
from cnnjax.axes import where_it_matters
from cnnjax.data import Dataset
from cnnjax.data.findings import examine
from cnnjax.data.images import thumbnails
from cnnjax.executors.launcher import run_tasks
from cnnjax.executors.parts import check_free, merge
from cnnjax.executors.tasks import Engine
from cnnjax.nested import differences
from cnnjax.programs import Compiler, load, prepare_jax, run_programs, waiting, write_environment, writing
from cnnjax.progress import Progress
from cnnjax.records import RunFolder, describe_plan
from cnnjax.sealed import unwritable
from cnnjax.shared import held, open_folder
from cnnjax.study import Study, from_config
from cnnjax.types import Member, Plan, Program, RequestError, counted

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
    """Trains every trial of a study that has no result yet.

    Args:
        study: what to train.
        workdir: the run's folder: new, or that of the same study (which is resumed).
        progress: told of every step.
        overwrite: delete what another study left in the folder.
        max_members: train at most this many members at a time, whatever would fit.
        profile: write a trace of each program's second epoch into the folder `profile`.
        engine: has its workers train the programs; the default trains them here.

    Raises:
        RequestError: the folder, the data or the study does not allow it (nothing was written or trained), or the
            folder can no longer be written.
    """
    folder = open_folder(workdir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(folder))
        processes.broadcast_from_process0(RunFolder(workdir).check_links)
        is_run = folder.read_whole("config.json") is not None
        if is_run:  # another process in it is found out before anything is read
            stack.enter_context(held(workdir))
        is_new = _check_folder(folder, study, overwrite)
        dataset, plan = load(study)
        if not is_run:
            processes.broadcast_from_process0(lambda: _make(workdir))
            stack.enter_context(held(workdir))
            is_new = _check_folder(folder, study, overwrite)
        if is_new:
            processes.broadcast_from_process0(lambda: check_free(RunFolder(workdir)))
            folder.clear()
        # Parts that a killed launch, or its workers, left.
        processes.broadcast_from_process0(lambda: merge(RunFolder(workdir), plan.programs))
        if engine is None:
            prepare_jax(plan)
        else:
            jax.config.update("jax_platforms", "cpu")  # this process trains nothing, and leaves the devices alone
        _start(folder, study, dataset, plan)
        for note in (*dataset.notes, *(f"left out: {line}" for line in _repeated(plan))):
            progress.note(note)
        if engine is None:
            write_environment(folder, progress)
        programs, members = waiting(folder, plan.programs)
        if programs:
            progress.begin(len(programs), len(members), *_expected_work(programs, members, dataset))
            try:
                if engine is not None:
                    run_tasks(folder, study, dataset, programs, progress, engine, max_members, profile)
                else:
                    traces = workdir / "profile" if profile and processes.is_first() else None
                    run_programs(folder, study, dataset, programs, progress, max_members, traces)
            finally:
                progress.end()
        else:
            progress.note(f"{workdir} is finished: {len(plan.trials)} trials, nothing left to train")


def _expected_work(
    programs: Sequence[Program], members: Sequence[Member], dataset: Dataset
) -> tuple[list[int], list[float]]:
    """Returns the training images that each program still has to see, and the operations that an image costs it."""
    ids = {member.id for member in members}
    images = [len(dataset.train) * sum(m.epochs for m in p.members if m.id in ids) for p in programs]
    values = _OPERATIONS_PER_VALUE * math.prod(dataset.image_shape)
    return images, [values + models.training_flops(_network(p, dataset), dataset.image_shape) for p in programs]


def _make(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if unwritable(error):
            raise
        said = f"{error.strerror}; allowed: a folder, or where to make one"
        raise RequestError("workdir", str(workdir), said) from error


def plan_table(study: Study) -> str:
    """Returns what a study would run, as text: trials, programs, members, parameters, memory, FLOPs. Trains nothing."""
    dataset, plan = load(study)
    prepare_jax(plan)
    counts = {name: count for name, count in dataset.describe()["counts"].items() if count}
    lines = [
        f"data      {dataset.name}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        *(f"          {note}" for note in dataset.notes),
        f"trials    {len(plan.trials)}: {plan.trained} trained, {len(plan.trials) - plan.trained} read off longer ones",
        *(f"left out  {line}" for line in _repeated(plan)),
        f"programs  {len(plan.programs)}",
        "",
        "program  model       optimizer  batch  members  at a time  parameters  memory MB  training TFLOP",
    ]
    total = 0.0
    compiler = Compiler(study, dataset)
    for program in plan.programs:
        compiled = compiler.compile(program)
        size = compiled.layout[0][-1]
        described = _describe_program(program, dataset)
        total += described["training_flops"]
        static = program.static
        lines.append(
            f"{program.id:<8} {static.model:<11} {static.optimizer:<10} {static.batch_size:>5}  "
            f"{len(program.members):>7}  {size:>9}  {described['parameters']:>10,}  {compiled.memory / 1e6:>9,.0f}  "
            f"{significant(described['training_flops'] / 1e12):>14}"
        )
    lines += ["", *_convolution_lines(plan, dataset)]
    lines += ["", f"in all {significant(total / 1e12)} TFLOP of training (three times the forward pass)"]
    return "\n".join(lines)


def _repeated(plan: Plan) -> list[str]:
    """Returns a line for each axis because of which points of the grid are not trained."""
    what = "of the grid would train as another does"
    return [
        f"{counted(n, 'point')} {what}: {axis} matters {where_it_matters(axis)}" for axis, n in plan.repeats.items()
    ]


def _convolution_lines(plan: Plan, dataset: Dataset) -> list[str]:
    """How each network's convolutions are computed, which depends on their shapes and on this machine."""
    lines: dict[str, None] = {}  # an ordered set
    for program in plan.programs:
        network = _network(program, dataset)
        methods = [row.method for row in models.layer_table(network, dataset.image_shape) if row.method]
        static = program.static
        lines[f"{static.model:<11} {', '.join(methods)}"] = None
    return [f"convolutions of {line}" for line in lines]


def _check_folder(folder: RunFolder, study: Study, overwrite: bool) -> bool:
    """Whether the folder starts anew; raises RequestError if it holds something else."""
    if overwrite:
        return folder.check_overwritable()
    found = folder.read_config()
    if found is None:
        return False
    try:
        there = from_config(found).to_dict()
    except RequestError as error:
        raise RequestError("workdir", str(folder.path), f"its config.json is no study ({error})") from error
    found = differences(there, study.to_dict())
    if "sha256" in (folder.read_whole("data.json") or {}):
        found.pop("data.path", None)  # wherever the data lie now: their fingerprint is compared when they are read
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
    """Writes what is known before training; config.json first, for it makes the folder a run's."""
    if folder.read_config() is None:
        folder.write_config(study.to_dict())
    folder.remove_unfinished()
    data = dataset.describe()
    before = folder.read_whole("data.json")
    for key in ("classes", "sha256"):
        if before is not None and before.get(key) != data[key]:
            there, here = (str(value)[:12] if key == "sha256" else value for value in (before.get(key), data[key]))
            what = f"the data is not what its trials trained on ({key} {there} there, {here} here)"
            how = "bring the data back, choose another folder, or --overwrite it"
            raise RequestError("workdir", str(folder.path), f"{what}; {how}")
    folder.check_plan(plan)
    examined = (before or {}).get("examined") or examine(dataset)
    folder.write_json("data.json", data | {"examined": examined})
    if folder.read_whole("plan.json") is None:
        folder.write_json("plan.json", describe_plan(plan, [_describe_program(p, dataset) for p in plan.programs]))
    folder.write_predictions("labels", labels=dataset.test.labels)
    folder.write_predictions("images", images=thumbnails(dataset.test.images))


def _network(program: Program, dataset: Dataset) -> models.Network:
    static = program.static
    return models.build(static.model, len(dataset.classes), static.arithmetic, static.convolution)


def _describe_program(program: Program, dataset: Dataset) -> dict[str, Any]:
    network = _network(program, dataset)
    images = sum(member.epochs for member in program.members) * len(dataset.train)
    return {
        "parameters": models.parameter_count(network, dataset.image_shape),
        "forward_flops": models.forward_flops(network, dataset.image_shape),
        "training_flops": models.training_flops(network, dataset.image_shape) * images,
    }
