"""A small study of own networks, from the command to the report, beside the scripts that a user would write instead.

    python -m experiments.benchmarks.small_study --data=FOLDER

Two networks, two learning rates, three seeds; 6,000 images of Fashion-MNIST, 2 epochs. The scripts print means only.
Each way runs as a command of its own. The way `kernels` is cnnjax with `train.convolution=kernels`. The ways take turns
in rounds. cnnjax and Flax run twice in a round: first with empty caches, then with those of the first run. Writes
small_study.csv: medians over the rounds.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from cnnjax.data.load import load_dataset
from cnnjax.study.overrides import load_study
from experiments.benchmarks.tables import write_table

DATA = flags.DEFINE_string("data", None, "The folder of Fashion-MNIST; by default that of tensorflow-datasets.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Repetitions.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside the other tables).")
WAYS = ("flax", "cnnjax", "kernels")
HERE = Path(__file__).parent
STUDY = HERE / "study.py"


def main(_: list[str]) -> None:
    """Times all ways and writes the table."""
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        write_images(images)
        for number in range(ROUNDS.value):
            cache = Path(folder) / f"cache{number}"
            for way, start in (("pytorch", "empty"), *itertools.product(WAYS, ("empty", "full"))):
                found = time_command(way, images, cache / way, Path(folder) / f"{way}-{number}-{start}")
                seconds.setdefault((way, start), []).append(found)
            print("  ".join(f"{way} {start} {of[-1]:.1f} s" for (way, start), of in seconds.items()), flush=True)
    rows: list[dict[str, Any]] = []
    for (way, start), of in seconds.items():
        peers = {"pytorch": seconds["pytorch", "empty"], "flax": seconds["flax", start]}
        faster = {f"of_{peer}": _ratio(times, of) for peer, times in peers.items()}
        rows.append({"way": way, "cache": start, "seconds": round(statistics.median(of), 2), **faster})
    print(f"wrote {write_table(rows, 'small_study.csv', OUTPUT.value)}")


def _ratio(peer: list[float], ours: list[float]) -> float:
    """Returns how many times as fast as a peer a way is: the median of the rounds."""
    return round(statistics.median(a / b for a, b in zip(peer, ours, strict=True)), 2)


def write_images(path: Path) -> None:
    """Writes the images for the scripts: those that the study trains and tests on."""
    study = load_study(str(STUDY), _data_flags())
    dataset = load_dataset(study.data)
    train, count = dataset.train, study.data.train_examples[0]
    arrays = {"train_x": np.moveaxis(train.images[:count], -1, 1), "train_y": train.labels[:count]}
    arrays |= {"test_x": np.moveaxis(dataset.test.images, -1, 1), "test_y": dataset.test.labels}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _data_flags() -> list[str]:
    return [f"data.path={DATA.value}"] if DATA.value else []


def time_command(way: str, images: Path, cache: Path, workdir: Path) -> float:
    """Returns the seconds that a way takes as a command."""
    command = [sys.executable, "-m", f"experiments.benchmarks.small_study.plain_{way}", str(images)]
    caches = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if way in ("cnnjax", "kernels"):
        caches = {"CNNJAX_CACHE": str(cache)}
        command = [sys.executable, "-m", "cnnjax.launch", f"--config={STUDY}", f"--workdir={workdir}"]
        command += [f"--config.{flag}" for flag in _data_flags()]
        command += ["--config.train.convolution=kernels"] if way == "kernels" else []
    start = time.perf_counter()
    subprocess.run(command, env=os.environ | caches, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
