"""Trains the programs of a study: loads the data, compiles programs that fit the memory, and trains their members."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from cnnjax.data import Dataset
from cnnjax.data.load import load_checked
from cnnjax.models.ladder import check_precision, find_model
from cnnjax.models.summary import training_flops
from cnnjax.multihost import processes
from cnnjax.runs.environment import cache_folder, comparable, describe_environment
from cnnjax.runs.program_records import Folder
from cnnjax.runs.run_dir import RunFolder
from cnnjax.runs.speeds import add_speed
from cnnjax.study import augmentation
from cnnjax.study.plan import Member, Plan, Program, Trial, check_axes, make_plan
from cnnjax.study.schedules import check_own
from cnnjax.study.schema import Study
from cnnjax.training.augment.own import check_augmentations
from cnnjax.training.device_data import DeviceData, put_data
from cnnjax.training.devices import is_out_of_memory, make_mesh, memory_limit, pin_settings, use_every_core
from cnnjax.training.estimate import describe_speed, network_of
from cnnjax.training.loop import run_members
from cnnjax.training.machine import this_machine
from cnnjax.training.memory import MEMORY_SHARE, fitting_size, most_members
from cnnjax.training.own_functions import check_functions
from cnnjax.training.population import Population
from cnnjax.training.stacking import steps_per_epoch, table_size
from cnnjax.training.work import MemberBatch
from cnnjax.utils.errors import RequestError, unwritable
from cnnjax.utils.paths import make_folder
from cnnjax.utils.progress import Progress
from cnnjax.utils.signals import interruptibly
from cnnjax.utils.tree import differences

Batch = tuple[list[str], int]  # the ids of members, and how many train together
Layout = list[Batch]


class Compiled(NamedTuple):
    """A program that is compiled and ready to train.

    Attributes:
        program: the program.
        population: its compiled functions.
        done: the batches of members that have nothing left to train.
        pending: the other batches.
        memory: bytes on one device.
        seconds: duration of compilation.
    """

    program: Program
    population: Population
    done: Layout
    pending: Layout
    memory: int
    seconds: float


class Compiler:
    """Decides how many members of each program train together, and compiles the programs.

    Args:
        study: the study.
        dataset: its data. The compiler puts it on the devices.
        members: all members by id.
        max_members: upper bound of how many members train together.
        profile: directory for a trace of each program's second epoch.
    """

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        members: Mapping[str, Member],
        max_members: int | None = None,
        profile: Path | None = None,
    ):
        self._mesh = make_mesh(jax.devices())
        self.data = put_data(dataset, study, self._mesh)
        self._study, self._dataset, self._members = study, dataset, members
        self._max_members, self._profile = max_members, profile
        self._budget = MEMORY_SHARE * min(processes.gather(memory_limit()))  # measured before training takes memory

    def compile(self, program: Program, layout: Sequence[Batch] = ()) -> Compiled:
        """Compiles a program for those batches of members that have something left to train.

        Args:
            program: the program, with only the members that have something left to train.
            layout: the stored batches. The members that are in none of them train together, as many as fit in memory.
        """
        start = time.perf_counter()
        stored = {member for ids, _ in layout for member in ids}
        asked = {member.id for member in program.members}
        new = [member for member in program.members if member.id not in stored]
        stages = (stage for trial in self._trials(program, stored) for stage in trial.stages)
        examples = self._dataset.train_size(program.static.train_examples)
        steps = steps_per_epoch(examples, program.static.batch_size, program.static.drop_last)
        shape, num_classes = self._dataset.image_shape, len(self._dataset.classes)
        profile = None if self._profile is None else self._profile / program.id
        keeps_best = program.static.keeps_best or self._dataset.validation is not None  # the source's own split
        static = dataclasses.replace(program.static, keeps_best=keeps_best)
        tables = table_size(stages, steps)
        population = Population(self._study, static, shape, num_classes, self._mesh, profile, tables)

        # Another number of devices may have written it. The batches keep their members, whose states are on disk.
        pending = [(ids, size + -size % population.devices) for ids, size in layout if not asked.isdisjoint(ids)]
        if new:
            size = self._fitting_size(population, new)
            pending += split_layout([([member.id for member in new], size)], size)
        memory = max((self._compile(population, ids, size) for ids, size in pending), default=0)
        done = [(ids, size) for ids, size in layout if asked.isdisjoint(ids)]
        return Compiled(program, population, done, pending, memory, time.perf_counter() - start)

    def _fitting_size(self, population: Population, new: Sequence[Member]) -> int:
        """Returns the number of members that train together: as many as fit, by the compiler's estimate of memory."""
        count, ids = len(new), [member.id for member in new]
        devices = population.devices
        static = new[0].trials[0].static
        images = self._dataset.train_size(static.train_examples)
        operations = training_flops(network_of(static, self._dataset), self._dataset.image_shape) * images
        most = self._max_members or most_members(jax.default_backend(), count, devices, operations)
        return fitting_size(count, most, devices, self._budget, lambda size: self._compile(population, ids, size))

    def _compile(self, population: Population, ids: Sequence[str], size: int) -> int:
        members = MemberBatch("", tuple(self._members[member] for member in ids[:size]), size).filled
        return population.compile(*population.stack(members), self.data)

    def _trials(self, program: Program, stored: Iterable[str]) -> Iterator[Trial]:
        """Yields the longest trials of the members of a program, and of those in stored batches."""
        for member in {*stored, *(member.id for member in program.members)}:
            yield self._members[member].trials[-1]


def split_layout(layout: Layout, size: int) -> Layout:
    """Splits batches of members into batches of at most `size` members, which train together."""
    return [(ids[i : i + size], size) for ids, _ in layout for i in range(0, len(ids), size)]


def load_plan(study: Study, earlier: Sequence[Study] = ()) -> Plan:
    """Returns the plan of a study, equal in all processes. It imports the study's own code, see `own_code.prepare`.

    Args:
        study: the study.
        earlier: studies that the same run has asked for before.

    Raises:
        RequestError: the study is not valid.
    """

    def here() -> Plan:
        for name, precision in itertools.product(study.models, study.train.precision):
            find_model(name)
            if precision == "tf32":
                check_precision(precision, jax.default_backend())
        check_own(study.train.schedules)
        augmentation.load_functions(study.data.augment)
        check_functions(study)
        plan = make_plan(study, earlier)
        check_axes(study, plan)
        return plan

    return processes.raise_on_all(here)


def load_data(study: Study, earlier: Sequence[Study] = ()) -> Dataset:
    """Returns the dataset of a study, checked against it and equal in all processes. Call `prepare_jax` before.

    Arguments and errors are those of `load_plan`, and of `data.load.load_checked`.
    """

    def here() -> Dataset:
        dataset = load_checked(study, earlier, identify=True)
        check_functions(study, len(dataset.classes))
        check_augmentations(study, dataset.image_shape, len(dataset.classes))
        return dataset

    pin_settings()
    dataset = processes.raise_on_all(here)
    sums = processes.gather(dataset.describe()["sha256"]) if processes.count() > 1 else []
    for number, found in enumerate(sums):
        if found != sums[0]:
            problem = f"the data of {processes.name(number)} and {processes.name(0)} differ (sha256 {sums[0][:12]}...)"
            raise RequestError("data", f"{found[:12]}...", f"{problem}; use the same data on all processes")
    return dataset


def prepare_jax(plan: Plan, cores: int | None = None) -> str | None:
    """Configures JAX for a plan, on all cores or the given number. Call it before anything uses JAX.

    Returns:
        A line that says so if that is too late, because JAX has been used with fewer devices; else None.
    """
    enable_compilation_cache()
    return use_every_core(max(len(program.members) for program in plan.programs), cores)


def enable_compilation_cache(folder: str | None = None) -> None:
    """Keeps compiled programs on disk, so that a second start does not compile them again.

    Args:
        folder: the directory of the cache, or 'off'. None stands for the directory that JAX is configured with, or else
            for `xla` in the user's cache directory.

    Raises:
        RequestError: the directory cannot be made.
    """
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder is not None:
        make_folder("--compilation_cache", Path(folder))
    before = jax.config.jax_compilation_cache_dir
    folder = folder or before or str(cache_folder() / "xla")
    if folder != before:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()  # a process that has compiled without a cache would never use one
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # the default of 1 s leaves many programs out


@contextlib.contextmanager
def writing(folder: RunFolder) -> Iterator[None]:
    """Raises a RequestError, one line, if the run's directory cannot be written."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RequestError):
            raise
        problem, advice = (
            unwritable(error),
            "what is there is valid; run the same command again when it can be written",
        )
        is_gone = isinstance(error, FileNotFoundError) or not (folder.path / "config.json").exists()
        if problem is None and is_gone and str(folder.path) in str(error):
            problem, advice = (
                "it was removed or moved while the run was in it",
                "run the same command again with its new path",
            )
        if problem is None:
            raise
        raise RequestError("workdir", str(folder.path), f"{problem}; {advice}") from error


def write_environment(folder: Folder, progress: Progress) -> None:
    """Writes environment.json. If the run had another environment before, keeps it under `earlier` and notes it."""
    devices = jax.devices()
    environment = describe_environment(
        {
            "devices": [str(device) for device in devices],
            "device_kind": devices[0].device_kind,
            "device_driver": devices[0].client.platform_version,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }
    )
    before = folder.read_if_intact("environment.json")
    if before is not None:
        earlier = before.get("earlier", [])
        if found := differences(comparable(before), comparable(environment)):
            changes = "; ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in found.items())
            progress.note(f"the environment has changed since the run started: {changes}")
            earlier = [*earlier, comparable(before)]
        environment |= {"earlier": earlier} if earlier else {}
    folder.write_json("environment.json", environment)


def run_programs(
    folder: RunFolder,
    study: Study,
    dataset: Dataset,
    members: Mapping[str, Member],
    programs: Sequence[Program],
    progress: Progress,
    max_members: int | None = None,
    profile: Path | None = None,
    write_views: bool = True,
) -> None:
    """Trains programs one after another, each from its newest checkpoint.

    Args:
        folder: the run's directory.
        study: the study.
        dataset: its data.
        members: all members of the plan by id.
        programs: those that `waiting_programs` returned.
        progress: the display, after `begin`.
        max_members: upper bound of how many members train together.
        profile: directory for a trace of each program's second epoch.
        write_views: whether to write the run's views of the records when a program ends.
    """
    compiler = Compiler(study, dataset, members, max_members, profile)
    for index, program in enumerate(programs, 1):
        static = program.static
        progress.program(index, static.model, static.optimizer, static.batch_size, len(program.members))
        compiled = interruptibly(compiler.compile, program, folder.read_layout(program.id))
        progress.compiled(compiled.seconds)
        _run_program(folder, compiled, members, dataset, compiler.data, progress)
        if write_views:
            folder.write_views()
        del compiled
        jax.clear_caches()  # JAX would keep every program until it exits


def _run_program(
    folder: RunFolder,
    compiled: Compiled,
    members: Mapping[str, Member],
    dataset: Dataset,
    data: DeviceData,
    progress: Progress,
) -> None:
    program, population = compiled.program, compiled.population
    asked = {member.id: member for member in program.members}
    done, pending = list(compiled.done), list(compiled.pending)
    folder.write_layout(program.id, [*done, *pending])
    while pending:
        ids, size = pending[0]
        of_batch = tuple(asked[member] for member in ids if member in asked)
        batch = MemberBatch(program.id, tuple(members[member] for member in ids), size, of_batch)
        try:
            trained = run_members(folder, population, batch, dataset, data, progress)
            done.append(pending.pop(0))
            if trained.seconds and processes.is_first():
                entry = describe_speed(program.static, dataset, this_machine(size), len(batch.members))
                speed = trained.images / trained.seconds
                add_speed(entry._replace(images_per_second=speed, compile_seconds=compiled.seconds))
        except Exception as error:
            if not is_out_of_memory(error) or size <= population.devices:
                raise
            # Train the members again from the beginning, half as many at a time: the same results in half the memory.
            half = -(-size // (2 * population.devices)) * population.devices
            progress.note(f"out of memory with {size} members at a time; going on with {half}")
            pending = split_layout(pending, half)
            folder.write_layout(program.id, [*done, *pending])
