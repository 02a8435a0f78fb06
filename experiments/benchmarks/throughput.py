"""Training images per second of cnnjax populations beside PyTorch: tuned, stacked by torch.func, and as in a notebook.

    pip install -e ".[bench]" && python -m experiments.benchmarks.throughput
    python -m experiments.benchmarks.throughput --models=complex --batch_sizes=64 --populations=4

Every contender lives in a process of its own and runs when it is told to, one after another, in rounds: a drift of the
machine's speed meets all of them alike. A large matrix product runs along, as the machine's peak. Writes throughput.csv
and throughput.png beside this file: medians over the rounds with their range, cnnjax's ratio to each contender taken
round by round, and the share of the peak that the arithmetic of the layers reaches.
"""

import itertools
import multiprocessing as mp
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.benchmarks import workers
from experiments.benchmarks.tables import write_table
from experiments.benchmarks.workers import Work

MODELS = flags.DEFINE_list("models", ["baseline", "medium", "complex", "base"], "Which networks.")
BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["32", "64"], "Images a step.")
POPULATIONS = flags.DEFINE_list("populations", ["1", "4", "16"], "Members trained together.")
OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "Momentum .9, or Adam.")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "tf32", "bfloat16"], "Of the layers' arithmetic.")
CONVOLUTION = flags.DEFINE_string("convolution", "auto", "How cnnjax convolves, as train.convolution.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved repetitions.")
SECONDS = flags.DEFINE_float("seconds", 3.0, "Aimed length of one contender's part of a round.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table and, as .png, the figure.")

Contender = tuple[str, int]  # name and members


def main(argv: list[str]) -> None:
    """Runs every contender on every network and writes table and figure."""
    del argv
    rows: list[dict[str, Any]] = []
    for model, batch_size in itertools.product(MODELS.value, map(int, BATCH_SIZES.value)):
        rows += measure(model, batch_size)
        table = write_table(rows, "throughput.csv", OUTPUT.value)  # after each: a benchmark takes long
        draw(rows, table.with_suffix(".png"))
        print(f"wrote {table} and {table.with_suffix('.png')}", flush=True)


def contenders() -> dict[Contender, Callable]:
    """Returns who runs, by name and number of members."""
    populations = [int(members) for members in POPULATIONS.value]
    return {
        ("matrix product", 1): workers.matrix_product,
        **{("cnnjax", members): workers.cnnjax for members in populations},
        ("pytorch", 1): workers.pytorch,
        **{("torch.func", members): workers.torch_func for members in populations if members > 1},
        ("source loop", 1): workers.source_loop,
    }


def measure(model: str, batch_size: int) -> list[dict[str, Any]]:
    """Times the contenders on one network, in turn, and returns a row for each."""
    context = mp.get_context("spawn")
    pipes, ready = {}, {}
    for (name, members), worker in contenders().items():
        ours, theirs = context.Pipe()
        work = Work(model, OPTIMIZER.value, batch_size, members, PRECISION.value, SECONDS.value, CONVOLUTION.value)
        context.Process(target=worker, args=(theirs, work), daemon=True).start()
        theirs.close()  # so that a contender that fails is not waited for
        pipes[name, members] = ours
        ready[name, members] = ours.recv()  # built and warm, before the next one starts
    speeds: dict[Contender, list[float]] = {contender: [] for contender in pipes}
    for _ in range(ROUNDS.value):
        for contender, pipe in pipes.items():
            pipe.send(True)
            speeds[contender].append(pipe.recv())
    memory = {}
    for contender, pipe in pipes.items():
        pipe.send(False)
        memory[contender] = pipe.recv()
    operations = workers.training_flops(model)
    rows = []
    for contender in pipes:
        if contender[0] != "matrix product":
            row = row_of(contender, speeds, operations)
            row = {"model": model, "batch_size": batch_size, **row}
            row |= {"seconds_to_start": round(ready[contender], 1), "peak_memory_mb": round(memory[contender] / 1e6)}
            print("  ".join(map(str, row.values())), flush=True)
            rows.append(row)
    return rows


def row_of(contender: Contender, speeds: dict[Contender, list[float]], operations: int) -> dict[str, Any]:
    """A contender's figures; a ratio is the median of the rounds' ratios of each cnnjax population to it."""
    name, members = contender
    images = speeds[contender]
    shares = [speed * operations / peak for speed, peak in zip(images, speeds["matrix product", 1], strict=True)]

    def ratio(population: int) -> float:
        pairs = zip(speeds["cnnjax", population], images, strict=True)
        return round(statistics.median(ours / theirs for ours, theirs in pairs), 3)

    return {
        "optimizer": OPTIMIZER.value,
        "precision": PRECISION.value,
        "convolution": CONVOLUTION.value if name == "cnnjax" else "",
        "contender": name,
        "members": members,
        "rounds": ROUNDS.value,
        "images_per_second": round(statistics.median(images), 1),
        "of_a_member": round(statistics.median(images) / members, 1),
        "slowest": round(min(images), 1),
        "fastest": round(max(images), 1),
        "gflop_per_second": round(statistics.median(images) * operations / 1e9, 1),
        "peak_gflop_per_second": round(statistics.median(speeds["matrix product", 1]) / 1e9, 1),
        "share_of_peak": round(statistics.median(shares), 3),
        **{f"cnnjax_{population}_ratio": ratio(int(population)) for population in POPULATIONS.value},
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws images per second by contender, a panel for each network and batch size, with the range of the rounds."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row["model"], row["batch_size"]) for row in rows))
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (model, batch_size) in zip(grid.flat, panels, strict=False):
        shown = [row for row in rows if (row["model"], row["batch_size"]) == (model, batch_size)]
        speeds = [row["images_per_second"] for row in shown]
        spread = [
            [row["images_per_second"] - row["slowest"] for row in shown],
            [row["fastest"] - row["images_per_second"] for row in shown],
        ]
        colours = ["#2a6f97" if row["contender"] == "cnnjax" else "#adb5bd" for row in shown]
        axes.barh(range(len(shown)), speeds, xerr=spread, color=colours, ecolor="#495057", capsize=2)
        axes.set_yticks(range(len(shown)), [f"{row['contender']} x{row['members']}" for row in shown])
        axes.invert_yaxis()
        axes.set_title(f"{model}, batch size {batch_size}", fontsize=10)
        axes.set_xlabel("images a second (bar: range of the rounds)", fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    app.run(main)
