"""How fast one study trains, spread over 1, 2, 4 and 8 host devices, and over 1, 2 and 4 processes.

    python -m experiments.benchmarks.devices
    python -m experiments.benchmarks.devices --model=medium --examples=5000 --rounds=5

Each way is a whole run of the command on its own, in turns with the others, of which the training alone counts (the
seconds of trials.csv: no start, no compiling). The first way has one core, the others all of them. Writes devices.csv
beside this file: medians over the rounds, the ratio to the first way round by round, and how far the results lie from
its.
"""

import itertools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import pandas as pd
from absl import app, flags

from cnnjax import load_results
from experiments.benchmarks.tables import write_table

MODEL = flags.DEFINE_string("model", "baseline", "Which network.")
MEMBERS = flags.DEFINE_integer("members", 8, "Seeds, which are the members.")
EXAMPLES = flags.DEFINE_integer("examples", 10_000, "Training images.")
EPOCHS = flags.DEFINE_integer("epochs", 2, "Of each member.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Interleaved repetitions.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")


class Way(NamedTuple):
    """How a study is spread."""

    cores: int
    processes: int
    devices: int  # of each process


def main(argv: list[str]) -> None:
    """Runs the study in every way, in turns, and writes the table."""
    del argv
    seconds: dict[Way, list[float]] = {way: [] for way in ways()}
    results: dict[Way, pd.DataFrame] = {}
    for round_, way in itertools.product(range(ROUNDS.value), ways()):
        results[way] = run_study(way)
        seconds[way].append(results[way]["seconds"].sum())  # each member's share of the chunk's
        print(f"round {round_ + 1}: {way}: {seconds[way][-1]:.2f} s", flush=True)
    first = ways()[0]
    images = EXAMPLES.value * EPOCHS.value * MEMBERS.value
    rows = [
        {
            **way._asdict(),
            **{"model": MODEL.value, "members": MEMBERS.value, "rounds": ROUNDS.value},
            "images_per_second": round(images / statistics.median(taken), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(seconds[first], taken, strict=True)), 3),
            **distance(results[first], results[way]),
        }
        for way, taken in seconds.items()
    ]
    print(f"wrote {write_table(rows, 'devices.csv', OUTPUT.value)}")


def ways() -> list[Way]:
    """Returns how to spread the study: on one core, and in several ways on all."""
    cores = len(os.sched_getaffinity(0))
    alone = [Way(cores, 1, devices) for devices in (1, 2, 4, 8)]
    return [Way(1, 1, 1), *alone, Way(cores, 2, 1), Way(cores, 4, 1), Way(cores, 2, 2)]


def run_study(way: Way) -> pd.DataFrame:
    """Runs the study on so many processes, cores and devices; returns its results."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = [f"--coordinator=127.0.0.1:{free.getsockname()[1]}", f"--num_processes={way.processes}"]
    with tempfile.TemporaryDirectory() as folder:
        started = [
            start(way, folder, *([*place, f"--process_id={i}"] if way.processes > 1 else []))
            for i in range(way.processes)
        ]
        for process in started:
            _, said = process.communicate()
            if process.returncode:
                raise RuntimeError(said)
        return load_results(f"{folder}/run")


def start(way: Way, folder: str, *place: str) -> subprocess.Popen:
    """Starts one process of the study."""
    study = {
        "models": MODEL.value,
        "seeds": ",".join(map(str, range(MEMBERS.value))),
        "data.name": "cifar10",
        "data.train_examples": EXAMPLES.value,
        "train.optimizer": "sgd",
        "train.learning_rate": 0.01,
        "train.momentum": 0.9,
        "train.batch_size": 64,
        "train.epochs": EPOCHS.value,
    }
    overrides = [f"--config.{key}={value}" for key, value in study.items()]
    command = [sys.executable, "-m", "cnnjax.launch", "--config=configs/grid.py", f"--workdir={folder}/run"]
    process = subprocess.Popen(
        [*command, *overrides, *place],
        env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={way.devices}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[: way.cores])  # while it still imports
    return process


def distance(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """Returns the largest differences between two runs' results."""
    return {
        f"largest_difference_of_{name}": float((one[name] - other[name]).abs().max())
        for name in ("train_loss", "test_accuracy")
    }


if __name__ == "__main__":
    app.run(main)
