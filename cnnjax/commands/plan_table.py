"""The output of --plan: what a study would run, as a table. On a CPU it imports no jax."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.commands.growth import check_folder, earlier_studies, with_added_seeds
from cnnjax.commands.program_facts import repeated_points
from cnnjax.commands.search import resume
from cnnjax.data import Dataset, cache
from cnnjax.data.load import load_checked
from cnnjax.models.ladder import check_convolution, check_precision
from cnnjax.models.summary import parameter_count, training_flops
from cnnjax.multihost import processes
from cnnjax.runs.run_dir import RunFolder, finished_trials
from cnnjax.runs.speeds import read_speeds
from cnnjax.study import own_code
from cnnjax.study.plan import Member, Plan, Program, check_axes, make_plan
from cnnjax.study.schedules import has_horizon
from cnnjax.study.schema import Study
from cnnjax.training.checks import check_code, check_optimizers, check_with_data
from cnnjax.training.estimate import Estimator, describe_speed, network_of, time_span
from cnnjax.training.layout import shards_of, useful_devices
from cnnjax.training.machine import Machine, calibrate, this_machine
from cnnjax.training.memory import MEMORY_SHARE, fitting_size, most_members, training_memory
from cnnjax.utils.progress import announced
from cnnjax.utils.text import significant

_START_SECONDS = 8.0  # to import, to read the data, and to write the report


def plan_table(study: Study, workdir: Path | None = None) -> str:
    """Returns the lines of `plan_lines` as one text."""
    return "\n".join(plan_lines(study, workdir))


def plan_lines(study: Study, workdir: Path | None = None, measure: bool = False) -> Iterator[str]:
    """Yields the trials, programs, members, parameters, memory, FLOPs and minutes of a study, without training.

    Args:
        study: the study.
        workdir: the run's folder. Its finished trials are kept.
        measure: compile and time a few steps of each program instead of estimating its time.

    Raises:
        RequestError: the study is not valid, or its data is missing or does not fit.
    """
    own_code.prepare(study.code, study.models)
    check_code(study)
    folder = None if workdir is None else RunFolder(workdir)
    if folder is not None:
        check_folder(folder, study, overwrite=False)
        study = resume(with_added_seeds(folder, study), folder, is_new=False)
    plan = make_plan(study, [] if folder is None else earlier_studies(folder, study))
    check_axes(study, plan)
    finished, stored = set[str](), dict[str, int]()
    if folder is not None:
        finished, stored = finished_trials(folder, plan.programs), _stored_epochs(folder)
    programs = [left for program in plan.programs if (left := program.without(finished)).members]
    yield from _counts(plan, programs, folder, len(finished))
    if study.search.is_adaptive:
        yield f"search    {study.search.method}: this is the start; results decide what trains after it"
    if not programs:
        yield "nothing left to train"
        return
    machine = this_machine(useful_devices(plan.programs))
    for precision in study.train.precision:
        check_precision(precision, machine.platform)
    for convolution in study.train.convolution:
        check_convolution(convolution, machine.platform)
    if measure:
        from cnnjax.training.program import prepare_jax

        prepare_jax(plan)
    check_optimizers(study)
    with announced(f"reading the data of {study.data.path or study.data.name}"), cache.mapped():
        dataset = processes.raise_on_all(load_checked, study)
    check_with_data(study, dataset)
    counts = {name: len(split) for name, split in dataset.splits.items()}
    yield f"data      {dataset.name}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
    yield from (f"          {note}" for note in dataset.notes)
    meshes = {program.id: _mesh(program, dataset, folder, machine) for program in programs}
    sizes = {program.id: _members_at_a_time(program, dataset, machine, *meshes[program.id]) for program in programs}
    if measure:
        from cnnjax.training.measure import measure_programs

        measure_programs(study, dataset, plan, programs, sizes)
    yield from _table(dataset, programs, stored, sizes, meshes, machine)


def _stored_epochs(folder: RunFolder) -> dict[str, int]:
    """Returns the epochs from which members go on, by id: those of their longest finished trials."""
    epochs: dict[str, int] = {}
    for row in folder.read_trials().values():
        epochs[row["member"]] = max(math.ceil(float(row["epochs"])), epochs.get(row["member"], 0))
    return epochs


def _epochs_left(member: Member, stored: Mapping[str, int]) -> int:
    done = stored.get(member.id, 0)
    return member.epochs - done if done < member.epochs else member.epochs  # a shorter trial trains anew


def _counts(plan: Plan, programs: Sequence[Program], folder: RunFolder | None, kept: int) -> Iterator[str]:
    """Yields what is known before the data is read. `programs` have the members to train."""
    new, trained = len(plan.trials) - kept, sum(len(program.members) for program in programs)
    said = f"trials    {len(plan.trials):,}: "
    said += f"{kept:,} kept from {folder.path}, {new:,} new: " if folder is not None and kept else ""
    yield said + f"{trained:,} trained, {max(new - trained, 0):,} read off longer ones"
    if anew := _trained_anew(plan, folder):
        yield f"          {anew:,} longer ones train anew: their schedules depend on the number of epochs"
    yield from (f"left out  {line}" for line in repeated_points(plan))
    yield f"programs  {len(programs)}"


def _trained_anew(plan: Plan, folder: RunFolder | None) -> int:
    """Counts the trials that have a shorter one, but do not continue it, because of their schedules."""

    def others(row: Mapping[str, Any]) -> tuple[str, ...]:
        """All columns of a trial but its id and its epochs."""
        return tuple(str(row.get(name)) for name in names)

    rows = [trial.row() for trial in plan.trials]
    names = [name for name in rows[0] if name not in ("trial", "epochs")]
    stored = {} if folder is None else folder.read_trials()
    shortest: dict[tuple[str, ...], float] = {}
    for row in (*rows, *stored.values()):
        shortest[others(row)] = min(float(row["epochs"]), shortest.get(others(row), math.inf))
    depend = [any(has_horizon(stage.traced.schedule) for stage in trial.stages) for trial in plan.trials]
    longer = [
        trial
        for trial, row, depends in zip(plan.trials, rows, depend, strict=True)
        if depends and shortest[others(row)] < row["epochs"] and trial.id not in stored
    ]
    return len(longer)


def _mesh(program: Program, dataset: Dataset, folder: RunFolder | None, machine: Machine) -> tuple[int, int]:
    """Returns how many groups of devices would share the members, and how many devices of a group each batch."""
    stored = () if folder is None else folder.read_mesh(program.id)
    static, members = program.static, len(program.members)
    operations = training_flops(network_of(static, dataset), dataset.image_shape)
    shards = shards_of(static, operations, members, machine.devices, machine.platform, stored)
    return machine.devices // shards, shards


def _memory(program: Program, dataset: Dataset, size: int, groups: int, shards: int, platform: str) -> float:
    """Returns the bytes on a device of so many members that train together, by the formula."""
    of_shard = dataclasses.replace(program.static, batch_size=program.static.batch_size // shards)
    return training_memory(of_shard, dataset, size // groups, platform)


def _members_at_a_time(program: Program, dataset: Dataset, machine: Machine, groups: int, shards: int) -> int:
    """Returns how many members would train together, by the formula of their memory."""
    count = len(program.members)
    examples = dataset.train_size(program.static.train_examples)
    operations = training_flops(network_of(program.static, dataset), dataset.image_shape) * examples
    most = most_members(machine.platform, count, groups, operations)

    def memory(size: int) -> float:
        return _memory(program, dataset, size, groups, shards, machine.platform)

    return fitting_size(count, most, groups, MEMORY_SHARE * machine.memory, memory)


def _table(
    dataset: Dataset,
    programs: Sequence[Program],
    stored: Mapping[str, int],
    sizes: Mapping[str, int],
    meshes: Mapping[str, tuple[int, int]],
    machine: Machine,
) -> Iterator[str]:
    """Yields a line for each program, and the sums."""
    estimator = Estimator(machine, read_speeds(), lambda: calibrate(machine))
    yield ""
    columns = "optimizer  batch  members  at a time  devices  parameters  memory MB  training TFLOP  minutes"
    width = max(11, *(len(program.static.model) for program in programs))
    yield f"program        {'model':<{width}} {columns}"
    total, low, high = 0.0, _START_SECONDS, _START_SECONDS
    for program in programs:
        static, members, size, mesh = program.static, program.members, sizes[program.id], meshes[program.id]
        network = network_of(program.static, dataset)
        images = dataset.train_size(static.train_examples) * sum(_epochs_left(member, stored) for member in members)
        flops = images * training_flops(network, dataset.image_shape)
        memory = _memory(program, dataset, size, *mesh, machine.platform)
        found = estimator.estimate(describe_speed(static, dataset, machine, min(size, len(members))))
        seconds = found.compile_seconds + images * found.seconds_per_image
        total += flops
        low, high = low + seconds / found.factor, high + seconds * found.factor
        parameters = parameter_count(network, dataset.image_shape)
        yield (
            f"{program.id:<13}  {static.model:<{width}} {static.optimizer:<10} {static.batch_size:>5}  "
            f"{len(members):>7}  {size:>9}  {'{}x{}'.format(*mesh):>7}  {parameters:>10,}  {memory / 1e6:>9,.0f}  "
            f"{significant(flops / 1e12):>14}  {significant(seconds / 60):>7}"
        )
    yield ""
    how = "by a matrix product" if estimator.is_calibrated else "by the speeds of earlier runs"
    yield f"in all {significant(total / 1e12)} TFLOP of training (three times the forward pass)"
    yield f"{time_span(low, high)} on this machine, {how}"
