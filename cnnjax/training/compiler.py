"""Compiles the programs of a study, each for as many members at a time as fit in memory."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax

from cnnjax.data import Dataset
from cnnjax.models.summary import training_flops
from cnnjax.multihost import processes
from cnnjax.study.hparams import Stage, Static
from cnnjax.study.plan import Member, Program
from cnnjax.study.schema import Study
from cnnjax.training.device_data import put_data
from cnnjax.training.devices import make_mesh
from cnnjax.training.estimate import network_of
from cnnjax.training.layout import shards_of
from cnnjax.training.machine import memory_limit
from cnnjax.training.memory import MEMORY_SHARE, fitting_size, most_members
from cnnjax.training.population import Population
from cnnjax.training.stacking import steps_per_epoch, table_size
from cnnjax.utils.signals import interruptibly, raise_if_interrupted

Batch = tuple[list[str], int]  # the ids of members, and how many train together
Layout = list[Batch]
Stored = tuple[Sequence[Batch], tuple[int, ...]]  # batches, and the shape of the mesh of devices
_CORES = 4  # for each program that compiles: XLA compiles parts of one side by side


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
        max_members: upper bound of how many members train together.
        profile: directory for a trace of each program's second epoch.
    """

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        max_members: int | None = None,
        profile: Path | None = None,
    ):
        self.data = put_data(dataset, study, make_mesh(jax.devices()))
        self._study, self.dataset = study, dataset
        self._kept: dict[str, Population] = {}  # of an adaptive search, by program
        self._max_members, self._profile = max_members, profile
        self._budget = MEMORY_SHARE * min(processes.gather(memory_limit()))  # measured before training takes memory

    def compile_all(
        self, programs: Sequence[Program], members: Mapping[str, Member], stored_of: Callable[[str], Stored]
    ) -> Generator[Compiled, None, None]:
        """Yields programs one after another, compiled. While the caller trains one, threads compile the next ones.

        XLA releases Python's lock. Close the iterator if the caller stops early: programs that have begun to compile
        are then compiled to their end, and dropped. Several processes compile only what they train next, because they
        have to compile in the same order, and so does a profile, which would show the threads.

        Args:
            programs: the programs, each with only the members that have something left to train.
            members: all members by id.
            stored_of: returns the stored batches and mesh of a program, given its id. The caller's thread calls it.

        Raises:
            Exception: that of `compile`, when it is the program's turn.
        """
        if processes.count() > 1 or self._profile:
            for program in programs:
                yield interruptibly(self.compile, program, members, *stored_of(program.id))
                jax.clear_caches()  # JAX would keep every program until it exits
            return
        most = max(1, processes.usable_cores() // _CORES)
        threads = ThreadPoolExecutor(most, "compiling")
        waiting, jobs = deque(programs), deque[Future[Compiled]]()

        def start() -> None:
            while waiting and len(jobs) < most:
                program = waiting.popleft()
                jobs.append(threads.submit(self.compile, program, members, *stored_of(program.id)))

        try:
            start()
            while jobs:
                raise_if_interrupted()
                compiled = jobs.popleft().result()
                if all(job.done() for job in jobs):  # a thread that compiles needs the caches
                    jax.clear_caches()
                start()
                yield compiled
                del compiled
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def compile(
        self,
        program: Program,
        members: Mapping[str, Member],
        layout: Sequence[Batch] = (),
        mesh: tuple[int, ...] = (),
    ) -> Compiled:
        """Compiles a program for those batches of members that have something left to train.

        Args:
            program: the program, with only the members that have something left to train.
            members: all members by id.
            layout: the stored batches. The members that are in none of them train together, as many as fit in memory.
            mesh: the stored shape of the mesh of devices, if there is one.
        """
        start = time.perf_counter()
        # A study with other decays of averaged weights trains other members; the states of the old ones remain.
        old = [batch for batch in layout if not members.keys() >= {*batch[0]}]
        layout = [batch for batch in layout if batch not in old]
        stored = {member for ids, _ in layout for member in ids}
        asked = {member.id for member in program.members}
        new = [member for member in program.members if member.id not in stored]
        trained = (members[member].trials[-1] for member in {*stored, *asked})
        stages = (stage for trial in trained for stage in trial.stages)
        operations = self._operations(program.static)
        shards = shards_of(program.static, operations, len(asked), jax.device_count(), jax.default_backend(), mesh)
        population = self._kept.get(program.id) or self._population(program, stages, shards)

        # Another number of devices may have written it. The batches keep their members, whose states are on disk.
        pending = [(ids, size + -size % population.devices) for ids, size in layout if not asked.isdisjoint(ids)]
        if new:
            size = self._fitting_size(population, [members[member.id] for member in new])
            pending += split_layout([([member.id for member in new], size)], size)
        batches = (([members[member] for member in ids], size) for ids, size in pending)
        memory = max((self._compile(population, *batch) for batch in batches), default=0)
        done = [*old, *((ids, size) for ids, size in layout if asked.isdisjoint(ids))]
        return Compiled(program, population, done, pending, memory, time.perf_counter() - start)

    def _operations(self, static: Static) -> int:
        """Returns the floating-point operations to train on one image."""
        return training_flops(network_of(static, self.dataset), self.dataset.image_shape)

    def _fitting_size(self, population: Population, new: Sequence[Member]) -> int:
        """Returns the number of members that train together: as many as fit, by the compiler's estimate of memory."""
        count = len(new)
        devices = population.devices
        static = new[0].trials[0].static
        operations = self._operations(static) * self.dataset.train_size(static.train_examples)
        most = self._max_members or most_members(jax.default_backend(), count, devices, operations)
        return fitting_size(count, most, devices, self._budget, lambda size: self._compile(population, new, size))

    def _compile(self, population: Population, members: Sequence[Member], size: int) -> int:
        return population.compile(*population.stack(members[:size], size), self.data)

    def _population(self, program: Program, stages: Iterable[Stage], shards: int) -> Population:
        """Returns the functions of a program that trains these stages. An adaptive search keeps them."""
        shape, num_classes = self.dataset.image_shape, len(self.dataset.classes)
        profile = None if self._profile is None else self._profile / program.id
        keeps_best = program.static.keeps_best or self.dataset.validation is not None  # the source's own split
        static = dataclasses.replace(program.static, keeps_best=keeps_best)
        is_kept = self._study.search.is_adaptive
        examples = self.dataset.train_size(static.train_examples)
        tables = table_size(stages, steps_per_epoch(examples, static.batch_size, static.drop_last))
        if is_kept:
            tables = tables._replace(epochs=max(tables.epochs, self._study.train.longest_stage))
        mesh = make_mesh(jax.devices(), shards)
        population = Population(self._study, static, shape, num_classes, mesh, profile, tables)
        return self._kept.setdefault(program.id, population) if is_kept else population


def split_layout(layout: Layout, size: int) -> Layout:
    """Splits batches of members into batches of at most `size` members, which train together."""
    return [(ids[i : i + size], size) for ids, _ in layout for i in range(0, len(ids), size)]
