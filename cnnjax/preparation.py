"""How many members of a program train at a time, and the program compiled for that."""

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import jax

from cnnjax import models, processes
from cnnjax.chunks import Chunk
from cnnjax.data import Dataset
from cnnjax.devices import memory_limit
from cnnjax.population import DeviceData, Population, chunk_size
from cnnjax.records import RunFolder
from cnnjax.study import Study
from cnnjax.types import Program

_MEMORY_SHARE = 0.8  # of a device's memory that a population may plan to use
# A CPU trains members one after another anyway, so a chunk there is kept small enough that an epoch of it, and with
# it a line of progress and a checkpoint, comes within minutes.
_CPU_FLOPS_PER_EPOCH = 240 * 50e9

Layout = list[list[int]]  # chunks: first member, end, members at a time


class Prepared(NamedTuple):
    """A program that is compiled and ready to train."""

    program: Program
    population: Population
    layout: Layout
    memory: int  # bytes on one device
    seconds: float  # that compiling took


class Preparation:
    """Lays out and compiles the programs of a study.

    Args:
        study: the study.
        dataset: its data.
        data: the same, on the devices of a mesh.
        mesh: the devices.
        max_members: train at most this many members at a time, whatever would fit.
        profile: folder for a trace of each program's second call, if wanted.
    """

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        data: DeviceData,
        mesh: jax.sharding.Mesh,
        max_members: int | None = None,
        profile: Path | None = None,
    ):
        if dataset.validation_from == "given":  # which a study need not ask for
            study = dataclasses.replace(study, data=dataclasses.replace(study.data, validation_from="given"))
        self._study, self._dataset, self._data, self._mesh = study, dataset, data, mesh
        self._max_members, self._profile = max_members, profile
        self._budget = _MEMORY_SHARE * min(processes.gather(memory_limit()))  # before any training takes some of it

    def prepare(self, program: Program, folder: RunFolder | None = None) -> Prepared:
        """Lays a program out, as before where the folder holds its layout, and compiles it."""
        start = time.perf_counter()
        shape, classes = self._dataset.image_shape, len(self._dataset.classes)
        profile = None if self._profile is None else self._profile / program.id
        population = Population(self._study, program.static, shape, classes, self._mesh, profile)
        layout = None if folder is None else folder.read_layout(program.id)
        if layout is not None:
            # One that was made for other devices: the same members, whose states are there, and other fillers.
            layout = [[first, end, size + -size % population.devices] for first, end, size in layout]
        else:
            size = self._fitting_size(population, program)
            layout = cut([[0, len(program.members), size]], size)
        memory = max((self._compile(population, program, size) for _, _, size in layout), default=0)
        return Prepared(program, population, layout, memory, time.perf_counter() - start)

    def _fitting_size(self, population: Population, program: Program) -> int:
        """How many members to train at a time: as many as the compiler says fit the device's memory."""
        count = len(program.members)
        most = self._max_members or count + -count % population.devices
        if jax.default_backend() == "cpu" and self._max_members is None:
            flops = models.training_flops(population.task.network, self._dataset.image_shape)
            most = min(most, max(1, int(_CPU_FLOPS_PER_EPOCH / max(flops * len(self._dataset.train), 1))))
        while True:
            size = chunk_size(count, most, population.devices)
            needed = self._compile(population, program, size)
            if needed <= self._budget or size <= population.devices:
                return size
            most = min(int(size * self._budget / needed), size - 1)

    def _compile(self, population: Population, program: Program, size: int) -> int:
        members = Chunk(program.id, program.members[:size], size).filled
        return population.compile(*population.stack(members), self._data)


def cut(layout: Layout, size: int) -> Layout:
    """Cuts chunks [first member, end, members at a time] into chunks of at most `size` members."""
    return [[i, min(i + size, end), size] for first, end, _ in layout for i in range(first, end, size)]
