"""How long a study would train, from a short piece of each of its programs.

    python -m experiments.benchmarks.hours --config=configs/lenets.py [--config.models=lenet_32_64] [--examples=2000]

Trains one member of each program for one epoch on part of the images, validates it on the same part of the validation
images, and multiplies by all members, epochs and images. The time is that of the processor, so that what else the
machine does costs nothing; it is divided by nothing: as if one core trained one member after another. A member that may
stop early counts with all its epochs.
"""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from absl import flags

from cnnjax.data import Dataset, Split, load_dataset
from cnnjax.study import flags as study_flags
from cnnjax.study.plan import make_plan
from cnnjax.training.device_data import put_data
from cnnjax.training.devices import make_mesh
from cnnjax.training.population import Population
from cnnjax.utils import cli

flags.adopt_module_key_flags(study_flags)
EXAMPLES = flags.DEFINE_integer("examples", 2000, "Training images of the piece.")


def shorten(dataset: Dataset, examples: int) -> Dataset:
    """Returns the first examples of train, and as large a part of validation; the first ten of test."""
    share = min(1.0, examples / len(dataset.train))

    def first(split: Split, part: float) -> Split:
        return split.take(np.arange(max(1, round(part * len(split)))))

    validation = dataset.validation and first(dataset.validation, share)
    test = dataset.test.take(np.arange(10))
    parts: dict[str, Any] = {"train": first(dataset.train, share), "validation": validation, "test": test}
    return dataclasses.replace(dataset, **parts, pool=None, partitions={})  # the first split stands for all


def main(config_overrides: list[str]) -> None:
    """Prints a line per program, and their sum."""
    study = study_flags.requested_study(config_overrides)
    dataset = load_dataset(study.data, study.split_seeds)
    piece, mesh, total = shorten(dataset, EXAMPLES.value), make_mesh(jax.local_devices()[:1]), 0.0
    data = put_data(piece, study, mesh)
    print("model             optimizer     batch  images/s  members  epochs  hours")
    for program in make_plan(study).programs:
        static, members = program.static, program.members
        population = Population(study, static, dataset.image_shape, len(dataset.classes), mesh)
        one = population.stack(members[:1])
        population.compile(*one, data)
        state, _ = population.advance(population.init(*one), *one, data, 1)  # touches all memory for the first time
        start = time.process_time()
        population.advance(state, *one, data, 1)
        speed = len(piece.train) / (time.process_time() - start)
        epochs = sum(member.epochs for member in members)
        hours = epochs * dataset.train_size(static.train_examples) / speed / 3600
        total += hours
        print(
            f"{static.model:<17} {static.optimizer:<13} {static.batch_size:<6} {speed:<9,.0f} {len(members):<8} "
            f"{epochs / len(members):<7.3g} {hours:.2f}",
            flush=True,
        )
    print(f"in all {total:.1f} hours of one core")


if __name__ == "__main__":
    cli.run(main)
