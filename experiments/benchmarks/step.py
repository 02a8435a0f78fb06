"""Where the time of a training step goes: microseconds an image of each part of a network, forwards and backwards.

    python -m experiments.benchmarks.step --models=baseline,medium,complex
    python -m experiments.benchmarks.step --throughput=throughput.csv --show=10    # the slowest program of that table

One member trains on one core, or `--members` on one GPU, under jax's profiler. Every operation of the compiled program
carries the place in the source that it comes from; the time of an operation, without that of the operations inside it,
counts for the part that the place belongs to. Writes step.csv beside this file. On a GPU XLA_FLAGS should hold
`--xla_gpu_enable_command_buffer=`: the kernels of a command buffer do not say which operation they belong to.
"""

import gzip
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.benchmarks.tables import kept_rows, read_table, write_table
from experiments.benchmarks.trace import own_times, part_of, places_of
from experiments.benchmarks.workers import Work, population_of

MODELS = flags.DEFINE_list("models", ["baseline", "medium", "complex"], "Which networks.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images a step.")
MEMBERS = flags.DEFINE_integer("members", 1, "Members trained together.")
THROUGHPUT = flags.DEFINE_string("throughput", None, "A throughput.csv, whose slowest program is profiled, too.")
STEPS = flags.DEFINE_integer("steps", 10, "Steps of the epoch that is traced.")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "tf32", "bfloat16"], "Of the layers' arithmetic.")
CONVOLUTION = flags.DEFINE_string("convolution", "auto", "How cnnjax convolves, as train.convolution.")
SHOW = flags.DEFINE_integer("show", 0, "Print so many of the slowest operations, with their places in the source.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")


def main(argv: list[str]) -> None:
    """Profiles every network and writes the table."""
    del argv
    is_gpu = shutil.which("nvidia-smi") is not None  # jax would say so too late
    if not is_gpu and hasattr(os, "sched_setaffinity"):  # the times of threads side by side would not add up
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = kept_rows("step.csv", OUTPUT.value)
    done = {tuple(row[name] for name in ("model", "batch_size", "members", "precision")) for row in rows}
    for work in works():
        if (work.model, work.batch_size, work.members, work.precision) not in done:
            rows += measure(work)
            write_table(rows, "step.csv", OUTPUT.value)
    print(f"wrote {write_table(rows, 'step.csv', OUTPUT.value)}")


def works() -> Iterator[Work]:
    """Yields the programs to profile: the slowest of a table of throughput, then those of the flags."""
    if THROUGHPUT.value:
        ours = [row for row in read_table(Path(THROUGHPUT.value)) if row["contender"] == "cnnjax"]
        slowest = min(ours, key=lambda row: row["share_of_peak"])
        names = ("model", "optimizer", "batch_size", "members", "precision")
        yield Work(**{name: slowest[name] for name in names}, seconds=0.0)
    for model in MODELS.value:
        yield Work(model, "sgd", BATCH_SIZE.value, MEMBERS.value, PRECISION.value, 0.0, CONVOLUTION.value)


def measure(work: Work) -> list[dict[str, Any]]:
    """Traces an epoch; returns a row for each part, the most expensive first."""
    import jax

    population, timed = population_of(work, STEPS.value)
    places = places_of(population.text(work.members))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            seconds = timed(1)
        (file,) = Path(folder).glob("**/perfetto_trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    images = STEPS.value * work.batch_size * work.members
    micros: dict[str, float] = defaultdict(float)
    operations: dict[tuple[str, str], float] = defaultdict(float)
    for name, place, duration in own_times(events, places):
        micros[part_of(place)] += duration / images
        operations[name, place] += duration / images
    micros["between the operations"] = seconds * 1e6 / images - sum(micros.values())
    for (name, place), spent in sorted(operations.items(), key=lambda item: -item[1])[: SHOW.value]:
        print(f"{spent:9.3f} us an image  {100 * spent * images / seconds / 1e6:5.1f} %  {name:<40} {place}")
    rows = []
    for part, spent in sorted(micros.items(), key=lambda item: -item[1]):
        share = spent * images / seconds / 1e6
        row = {"model": work.model, "batch_size": work.batch_size, "members": work.members, "precision": work.precision}
        rows.append(row | {"part": part, "microseconds_an_image": round(spent, 3), "share": round(share, 3)})
        print(f"{work.model:<10} {part:<28} {spent:9.3f} us an image  {100 * share:5.1f} %", flush=True)
    return rows


if __name__ == "__main__":
    app.run(main)
