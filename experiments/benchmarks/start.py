"""How soon a study trains: seconds from the command to its first epoch, with an empty and a filled compilation cache.

    python -m experiments.benchmarks.start
    python -m experiments.benchmarks.start --config=configs/grid.py:smoke

A round starts the study twice in new folders, the second time with the compiled programs of the first, and stops it
as soon as it tells of an epoch. Writes start.csv beside this file: medians over the rounds.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags

from experiments.benchmarks.tables import write_table

CONFIG = flags.DEFINE_string("config", "configs/quickstart.py", "The study.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Repetitions.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")


def main(argv: list[str]) -> None:
    """Times both starts and writes the table."""
    del argv
    rounds = []
    for _ in range(ROUNDS.value):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append([seconds_to_first_epoch(folder, run) for run in ("first", "second")])
        print("  ".join(f"{seconds:.2f} s" for seconds in rounds[-1]), flush=True)
    first, second = ([row[i] for row in rounds] for i in (0, 1))
    row: dict[str, Any] = {
        "config": CONFIG.value,
        "rounds": ROUNDS.value,
        "seconds_with_an_empty_cache": round(statistics.median(first), 2),
        "seconds_with_a_filled_cache": round(statistics.median(second), 2),
        "ratio": round(statistics.median(a / b for a, b in rounds), 2),
    }
    print(f"wrote {write_table([row], 'start.csv', OUTPUT.value)}")


def seconds_to_first_epoch(folder: str, run: str) -> float:
    """Starts the study in a folder of its own, and kills it when it tells of an epoch."""
    command = [sys.executable, "-m", "cnnjax.launch", f"--config={CONFIG.value}", f"--workdir={folder}/{run}"]
    command.append(f"--compilation_cache={folder}/cache")
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if re.search(r" epoch \d+/", line):
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    raise RuntimeError("".join(said))


if __name__ == "__main__":
    app.run(main)
