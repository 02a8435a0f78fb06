"""Times a few steps of each program, for --plan=measure."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax.data import Dataset, Split
from cnnjax.runs.speeds import add_speed
from cnnjax.study.plan import Plan, Program
from cnnjax.study.schema import Study
from cnnjax.training.compiler import Compiler
from cnnjax.training.devices import pin_settings
from cnnjax.training.estimate import describe_speed
from cnnjax.training.machine import this_machine
from cnnjax.utils.progress import tracked

_STEPS = 10  # of each program


def measure_programs(
    study: Study, dataset: Dataset, plan: Plan, programs: Sequence[Program], sizes: Mapping[str, int]
) -> None:
    """Compiles programs, times a short epoch of each, and adds the speeds to those of earlier runs.

    Call `program.prepare_jax` before.

    Args:
        study: the study.
        dataset: its data.
        plan: its plan.
        programs: the programs to time.
        sizes: by program, the number of members that train together.
    """
    pin_settings()
    for program in tracked(programs, "compiling and timing programs"):
        size, static = sizes[program.id], program.static
        members = program.members[:size]
        short = _shortened(dataset, _STEPS * static.batch_size)
        compiler = Compiler(study, short, max_members=size)
        compiled = compiler.compile(program, plan.members)
        population, arguments = compiled.population, compiled.population.stack(members, size)
        state, _ = population.advance(population.init(*arguments), *arguments, compiler.data, 1)  # touches all memory
        start = time.perf_counter()
        population.advance(state, *arguments, compiler.data, 1)
        speed = len(members) * short.train_size(static.train_examples) / (time.perf_counter() - start)
        entry = describe_speed(static, dataset, this_machine(size), len(members))
        add_speed(entry._replace(images_per_second=speed, compile_seconds=compiled.seconds))


def _shortened(dataset: Dataset, count: int) -> Dataset:
    """Returns the first `count` training images, and the same share of the other splits."""
    share = min(1.0, count / len(dataset.train))

    def first(split: Split | None) -> Split | None:
        return None if split is None else split.take(slice(max(1, round(share * len(split)))))

    splits: dict[str, Any] = {name: first(split) for name, split in dataset.splits.items()}
    if dataset.validation is dataset.test:
        splits["validation"] = splits["test"]

    def shortened(part: np.ndarray | None) -> Any:
        return None if part is None else part[: max(1, round(share * len(part)))]

    partitions = {
        cut: of._replace(train=shortened(of.train), validation=shortened(of.validation), test=shortened(of.test))
        for cut, of in dataset.partitions.items()
    }
    return dataclasses.replace(dataset, **splits, partitions=partitions)
