"""Shows that a long study grows nothing but its results: memory, open files, threads, and time for each program.

    python -m tests.campaigns.long_runs --programs=200
    python -m tests.campaigns.long_runs --programs=200 --alike
    python -m tests.campaigns.long_runs --epochs=500

The first trains a small dense network on digits with so many batch sizes, each of which is a program, the second so
many networks of one kind, the third one population for so many epochs. All print a line now and then, and in the end
how much each figure grew over the second half.

jax keeps tables of every shape that it has met, which nothing clears: a batch size that is new adds about .2 MB of
memory, a program of shapes that were there adds none.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from cnnjax.commands import run
from cnnjax.models.ladder import LADDER
from cnnjax.models.specs import Dense, Relu
from cnnjax.study.hparams import Static
from cnnjax.study.schema import from_config
from cnnjax.training import program as programs
from cnnjax.utils.progress import Progress


class Watch(Progress):
    """A progress that notes what the process holds, at the beginning of each program or the end of each epoch."""

    def __init__(self, each_epoch: bool, lines: int):
        super().__init__(Console(file=io.StringIO()))
        self._process, self._each_epoch, self._every = psutil.Process(), each_epoch, lines
        self.rows: list[tuple[float, float, int, int]] = []

    def program(self, index: int, static: Static, members: int) -> None:
        """Notes what is held between programs."""
        if not self._each_epoch:
            self._note()

    def epoch(self, *_: Any) -> None:
        """Notes what is held between epochs."""
        if self._each_epoch:
            self._note()

    def _note(self) -> None:
        process = self._process
        row = (time.monotonic(), process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())
        self.rows.append(row)
        if len(self.rows) % self._every == 0:
            last = self.rows[-self._every :]
            seconds = (row[0] - last[0][0]) / max(len(last) - 1, 1)
            print(
                f"{len(self.rows):5}  {seconds:7.3f} s  {row[1]:8.1f} MB  {row[2]:4} files  {row[3]:3} threads",
                flush=True,
            )


def measure(study: dict[str, Any], each_epoch: bool, lines: int) -> None:
    """Runs a study and prints what the process held on the way."""
    for name in study["models"]:
        LADDER[name] = (Dense(8), Relu(), Dense())
    watch = Watch(each_epoch, lines)
    with tempfile.TemporaryDirectory() as folder, watch:
        programs.enable_compilation_cache("off")
        run.run(from_config(study), Path(folder) / "run", progress=watch)
    rows = np.array(watch.rows)
    rows[1:, 0] = np.diff(rows[:, 0])
    half, three = len(rows) // 2, 3 * len(rows) // 4
    for column, name in enumerate(("seconds for each", "MB", "files", "threads")):
        third, last = np.median(rows[half:three, column]), np.median(rows[three:, column])
        print(f"{name}, median: third quarter {third:.3f}, last {last:.3f}")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--programs", type=int)
    which.add_argument("--epochs", type=int)
    parser.add_argument("--alike", action="store_true", help="programs of the same shapes")
    options = parser.parse_args()
    study: dict[str, Any] = {"models": ("dense",), "data": {"name": "digits", "train_examples": 400}}
    if options.programs:
        train: dict[str, Any] = {"batch_size": 20, "epochs": 1, "drop_last": True}
        if options.alike:
            study["models"] = tuple(f"dense{i}" for i in range(options.programs))
        else:
            train["batch_size"] = tuple(range(20, 20 + options.programs))
        measure(study | {"train": train}, False, 20)
    else:
        measure(study | {"seeds": (0, 1, 2), "train": {"batch_size": 50, "epochs": options.epochs}}, True, 50)


if __name__ == "__main__":
    main()
