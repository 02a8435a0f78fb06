"""Trains the programs of a study: loads the data, compiles programs that fit the memory, and trains their members."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from cnnjax.data import Dataset, load_dataset
from cnnjax.models.network import build_network
from cnnjax.models.summary import check_fits, training_flops
from cnnjax.multihost import processes
from cnnjax.runs.environment import cache_folder, describe_environment, lasting
from cnnjax.runs.program_records import Folder
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import Member, Plan, Program, check_axes, make_plan
from cnnjax.study.schema import Study
from cnnjax.training.device_data import DeviceData, put_data
from cnnjax.training.devices import is_out_of_memory, make_mesh, memory_limit, pin_settings, use_every_core
from cnnjax.training.loop import MemberBatch, run_members
from cnnjax.training.population import Population, member_batch_size
from cnnjax.utils.errors import RequestError, unwritable
from cnnjax.utils.paths import make_folder
from cnnjax.utils.progress import Progress
from cnnjax.utils.signals import interruptibly
from cnnjax.utils.tree import differences

_MEMORY_SHARE = 0.8  # of a device's memory that a population may plan to use
# A CPU trains members one after another anyway. A small batch of members gives a line of progress and a checkpoint
# every few minutes.
_CPU_FLOPS_PER_EPOCH = 240 * 50e9

Layout = list[list[int]]  # batches of members: [first, end, how many train together]


class Compiled(NamedTuple):
    """A program that is compiled and ready to train."""

    program: Program
    population: Population
    layout: Layout
    memory: int  # bytes on one device
    seconds: float  # of compilation


class Compiler:
    """Decides how many members of each program train together, and compiles the programs.

    Args:
        study: the study.
        dataset: its data. The compiler puts it on the devices.
        max_members: upper bound of how many members train together.
        profile: directory for a trace of each program's second epoch.
    """

    def __init__(self, study: Study, dataset: Dataset, max_members: int | None = None, profile: Path | None = None):
        self._mesh = make_mesh(jax.devices())
        self.data = put_data(dataset, study, self._mesh)
        if dataset.validation_from == "given":  # the source's own split, which the study need not name
            study = dataclasses.replace(study, data=dataclasses.replace(study.data, validation_from="given"))
        self._study, self._dataset = study, dataset
        self._max_members, self._profile = max_members, profile
        self._budget = _MEMORY_SHARE * min(processes.gather(memory_limit()))  # measured before training takes memory

    def compile(self, program: Program, folder: RunFolder | None = None) -> Compiled:
        """Compiles a program for the layout that `folder` holds; without one, for as many members as fit."""
        start = time.perf_counter()
        shape, num_classes = self._dataset.image_shape, len(self._dataset.classes)
        profile = None if self._profile is None else self._profile / program.id
        population = Population(self._study, program.static, shape, num_classes, self._mesh, profile)
        layout = None if folder is None else folder.read_layout(program.id)
        if layout is not None:
            # Another number of devices may have written it. The batches keep their members, whose states are on disk.
            layout = [[first, end, size + -size % population.devices] for first, end, size in layout]
        else:
            size = self._fitting_size(population, program)
            layout = split_layout([[0, len(program.members), size]], size)
        memory = max((self._compile(population, program, size) for _, _, size in layout), default=0)
        return Compiled(program, population, layout, memory, time.perf_counter() - start)

    def _fitting_size(self, population: Population, program: Program) -> int:
        """Returns the number of members that train together: as many as fit, by the compiler's estimate of memory."""
        count = len(program.members)
        most = self._max_members or count + -count % population.devices
        if jax.default_backend() == "cpu" and self._max_members is None:
            flops = training_flops(population.config.network, self._dataset.image_shape)
            images = self._dataset.train_size(program.static.train_examples)
            most = min(most, max(1, int(_CPU_FLOPS_PER_EPOCH / max(flops * images, 1))))
        while True:
            size = member_batch_size(count, most, population.devices)
            needed = self._compile(population, program, size)
            if needed <= self._budget or size <= population.devices:
                return size
            most = min(int(size * self._budget / needed), size - 1)

    def _compile(self, population: Population, program: Program, size: int) -> int:
        members = MemberBatch(program.id, program.members[:size], size).filled
        return population.compile(*population.stack(members), self.data)


def split_layout(layout: Layout, size: int) -> Layout:
    """Splits batches of members [first, end, how many train together] into batches of at most `size` members."""
    return [[i, min(i + size, end), size] for first, end, _ in layout for i in range(first, end, size)]


def load(study: Study) -> tuple[Dataset, Plan]:
    """Returns the dataset and the plan of a study, checked against each other and equal in all processes.

    Raises:
        RequestError: the data is missing or damaged, or the study does not fit it.
    """
    pin_settings()
    dataset, plan = processes.raise_on_all(_load_here, study)
    sums = processes.gather(dataset.describe()["sha256"]) if processes.count() > 1 else []
    for number, found in enumerate(sums):
        if found != sums[0]:
            problem = f"the data of {processes.name(number)} and {processes.name(0)} differ (sha256 {sums[0][:12]}...)"
            raise RequestError("data", f"{found[:12]}...", f"{problem}; use the same data on all processes")
    return dataset, plan


def _load_here(study: Study) -> tuple[Dataset, Plan]:
    for name, precision in itertools.product(study.models, study.train.precision):
        build_network(name, 1, precision)  # fail fast on unknown models, before loading data
    plan = make_plan(study)
    check_axes(study, plan)
    dataset = load_dataset(study.data, study.split_seeds)
    for name in study.models:
        check_fits(name, dataset.image_shape)
    sizes = [dataset.train_size(count) for count in study.data.train_examples]
    for batch_size, size in itertools.product(study.train.batch_size, sizes):
        if batch_size > size:
            problem = f"must be at most the number of training images, {size}"
            raise RequestError("train.batch_size", batch_size, problem)
        if len(study.train.drop_last) > 1 and size % batch_size == 0:
            problem = f"both values train alike: no example is left over by batches of {batch_size}; use one value"
            raise RequestError("train.drop_last", study.train.drop_last, problem)
    return dataset, plan


def prepare_jax(plan: Plan, cores: int | None = None) -> None:
    """Configures JAX for a plan, on all cores or the given number. Call it before anything uses JAX."""
    use_every_core(max(len(program.members) for program in plan.programs), cores)
    enable_compilation_cache()


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
    folder = folder or jax.config.jax_compilation_cache_dir or str(cache_folder() / "xla")
    jax.config.update("jax_compilation_cache_dir", folder)
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
            "what is there is valid, and the same command goes on when it can be written again",
        )
        is_gone = isinstance(error, FileNotFoundError) or not (folder.path / "config.json").exists()
        if problem is None and is_gone and str(folder.path) in str(error):
            problem, advice = (
                "it was removed or moved while the run was in it",
                "the same command goes on with its new path",
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
        if found := differences(lasting(before), lasting(environment)):
            changes = "; ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in found.items())
            progress.note(f"the environment has changed since the run started: {changes}")
            earlier = [*earlier, lasting(before)]
        environment |= {"earlier": earlier} if earlier else {}
    folder.write_json("environment.json", environment)


def waiting(folder: RunFolder, programs: Iterable[Program]) -> tuple[list[Program], list[Member]]:
    """Returns the programs and the members that have a trial without a result."""
    programs = list(programs)
    finished = {trial for program in programs for trial in folder.program(program.id).finished(program.members)}

    def waits(member: Member) -> bool:
        return any(trial.id not in finished for trial in member.trials)

    members = [member for program in programs for member in program.members if waits(member)]
    return [program for program in programs if any(map(waits, program.members))], members


def run_programs(
    folder: RunFolder,
    study: Study,
    dataset: Dataset,
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
        programs: those that `waiting` returned.
        progress: the display, after `begin`.
        max_members: upper bound of how many members train together.
        profile: directory for a trace of each program's second epoch.
        write_views: whether to write the run's views of the records when a program ends.
    """
    compiler = Compiler(study, dataset, max_members, profile)
    for index, program in enumerate(programs, 1):
        static = program.static
        progress.program(index, static.model, static.optimizer, static.batch_size, len(program.members))
        compiled = interruptibly(compiler.compile, program, folder)
        progress.compiled(compiled.seconds)
        _run_program(folder, compiled, dataset, compiler.data, progress)
        if write_views:
            folder.write_views()
        del compiled
        jax.clear_caches()  # JAX would keep every program until it exits


def _run_program(folder: RunFolder, compiled: Compiled, dataset: Dataset, data: DeviceData, progress: Progress) -> None:
    program, population, pending = compiled.program, compiled.population, list(compiled.layout)
    done: Layout = []
    folder.write_layout(program.id, pending)
    while pending:
        start, stop, size = pending[0]
        batch = MemberBatch(program.id, program.members[start:stop], size)
        try:
            run_members(folder, population, batch, dataset, data, progress)
            done.append(pending.pop(0))
        except Exception as error:
            if not is_out_of_memory(error) or size <= population.devices:
                raise
            # Train the members again from the beginning, half as many at a time: the same results in half the memory.
            half = -(-size // (2 * population.devices)) * population.devices
            progress.note(f"out of memory with {size} members at a time; going on with {half}")
            pending = split_layout(pending, half)
            folder.write_layout(program.id, [*done, *pending])
