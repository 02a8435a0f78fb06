"""Holds the memory that a program is planned to need against what it takes: peak of the process's resident memory.

    python -m tests.campaigns.memory_estimate --models=baseline,medium,complex --members=4 --batch_size=64

On a CPU, of made-up images of CIFAR-10's size; each network in a process of its own.
"""

import argparse
import ctypes
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import psutil

from cnnjax.data import Dataset, Split
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.training.device_data import put_data
from cnnjax.training.devices import make_mesh
from cnnjax.training.population import Population

IMAGES = 512


def make_dataset() -> Dataset:
    """Noise with labels."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8), rng.integers(0, 10, IMAGES).astype(np.int32)
    split = Split(images, labels)
    return Dataset("noise", split, split, split, tuple("0123456789"))


def peak() -> int:
    """The most memory since it was last reset, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure(model: str, members: int, batch_size: int) -> tuple[int, int]:
    """Returns the bytes that were planned and those that were taken."""
    config = {"models": (model,), "seeds": tuple(range(members)), "data": {"validation": 0.1}}
    study = from_config(config | {"select": "val_accuracy", "train": {"batch_size": batch_size, "epochs": 1}})
    (program,) = make_plan(study).programs
    dataset, mesh = make_dataset(), make_mesh(jax.local_devices())
    data = put_data(dataset, study, mesh)
    resident = sum(leaf.nbytes for leaf in jax.tree.leaves(data))
    population = Population(study, program.static, dataset.image_shape, 10, mesh)
    settings, streams = population.stack(program.members)
    planned = population.compile(settings, streams, data)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the compiler used
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    state = population.init(settings, streams)
    population.advance(state, settings, streams, data, 1)
    return planned, peak() - before + resident


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="baseline,medium,complex")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=64)
    options = parser.parse_args()
    names = options.models.split(",")
    if len(names) > 1:
        for name in names:
            given = [f"--models={name}", f"--members={options.members}", f"--batch_size={options.batch_size}"]
            subprocess.run([sys.executable, "-m", "tests.campaigns.memory_estimate", *given], check=True)
        return
    planned, taken = measure(names[0], options.members, options.batch_size)
    print(
        f"{names[0]:9} {options.members} members, batch size {options.batch_size}: planned {planned / 1e6:7.1f} MB, "
        f"taken {taken / 1e6:7.1f} MB, ratio {planned / taken:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
