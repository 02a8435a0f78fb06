"""Training images per second of cnnjax populations beside PyTorch: tuned, stacked by torch.func, and as in a notebook.

    pip install -e ".[bench]" && python -m experiments.benchmarks.throughput
    python -m experiments.benchmarks.throughput --models=complex --batch_sizes=64 --populations=4

Every contender lives in a process of its own and runs when it is told to, one after another, in rounds: a drift of the
machine's speed meets all of them alike. A large matrix product runs along, as the machine's peak. Writes throughput.csv
and throughput.png beside this file, after each network: medians over the rounds with their range, cnnjax's ratio to
each contender taken round by round, and the share of the peak that the arithmetic of the layers reaches. A contender
that fails, for want of memory say, is named and left out. The contender `own splits` is cnnjax with another split of
the data for each member, `plain flax` cnnjax with the network as a user writes it (medium and complex only),
`one device` and `in shards` cnnjax in another layout than it chooses, `deterministic` cnnjax with operations on a GPU
that give equal bits each time.
"""

import contextlib
import itertools
import multiprocessing as mp
import os
import statistics
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from absl import app, flags

from cnnjax.utils.text import counted
from experiments.benchmarks import workers
from experiments.benchmarks.tables import kept_rows, write_table
from experiments.benchmarks.workers import Work

MODELS = flags.DEFINE_list("models", ["baseline", "medium", "complex", "base"], "Which networks.")
BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["32", "64"], "Images a step.")
POPULATIONS = flags.DEFINE_list("populations", ["1", "4", "16"], "Members trained together.")
OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "Momentum .9, or Adam.")
PRECISIONS = flags.DEFINE_multi_enum(
    "precision", ["float32"], ["float32", "tf32", "bfloat16"], "Of the layers' arithmetic; may be given several times."
)
CONTENDERS = flags.DEFINE_list(
    "contenders",
    ["cnnjax", "pytorch", "torch.func", "source loop"],
    "Who runs; `own splits`, `plain flax`, `one device`, `in shards`, `deterministic` may.",
)
CONVOLUTION = flags.DEFINE_string("convolution", "auto", "How cnnjax convolves, as train.convolution.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved repetitions.")
SECONDS = flags.DEFINE_float("seconds", 3.0, "Aimed length of one contender's part of a round.")
AT_ONCE = flags.DEFINE_integer("start_at_once", 1, "How many contenders compile and warm up at the same time.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table and, as .png, the figure.")

Contender = tuple[str, int]  # name and members
Unit = tuple[str, int, str]  # model, batch size and precision: what is measured in one go

WORKERS = {
    "matrix product": workers.matrix_product,
    "cnnjax": workers.cnnjax,
    "own splits": workers.own_splits,
    "plain flax": workers.plain_flax,
    "one device": workers.one_device,
    "in shards": workers.in_shards,
    "deterministic": workers.deterministic,
    "pytorch": workers.pytorch,
    "torch.func": workers.torch_func,
    "source loop": workers.source_loop,
}


def main(argv: list[str]) -> None:
    """Runs every contender on every network and writes table and figure."""
    del argv
    rows = kept_rows("throughput.csv", OUTPUT.value)
    done = {unit_of(row) for row in rows}
    for unit in itertools.product(PRECISIONS.value, MODELS.value, map(int, BATCH_SIZES.value)):
        precision, model, batch_size = unit
        if (model, batch_size, precision) in done:
            continue
        rows += measure((model, batch_size, precision))
        table = write_table(rows, "throughput.csv", OUTPUT.value)  # after each: a benchmark takes long
        draw(rows, table.with_suffix(".png"))
        print(f"wrote {table} and {table.with_suffix('.png')}", flush=True)


def unit_of(row: dict[str, Any]) -> Unit:
    """Returns what a row of the table belongs to."""
    return row["model"], row["batch_size"], row["precision"]


def contenders() -> list[Contender]:
    """Returns who runs: those that train one model at a time once, the others for each population."""
    populations = [int(members) for members in POPULATIONS.value]
    members = {
        "cnnjax": populations,
        "own splits": populations,
        "plain flax": populations,
        "one device": populations,
        "in shards": populations,
        "deterministic": populations,
        "torch.func": [members for members in populations if members > 1],
    }
    names = ["matrix product", *CONTENDERS.value]
    return [(name, count) for name in names for count in members.get(name, [1])]


def measure(unit: Unit) -> list[dict[str, Any]]:
    """Times the contenders on one network, in turn, and returns a row for each that did not fail."""
    pipes: dict[Contender, Connection] = {}
    ready: dict[Contender, float] = {}
    for first in range(0, len(contenders()), AT_ONCE.value):
        started = {contender: start(contender, unit) for contender in contenders()[first : first + AT_ONCE.value]}
        pipes |= started
        for contender, pipe in started.items():  # warm, before the next ones start
            receive(ready, contender, pipe)
    rounds: list[dict[Contender, float]] = []
    for _ in range(ROUNDS.value):
        rounds.append({})
        for contender in list(ready):
            if not ask(True, rounds[-1], contender, pipes[contender]):
                del ready[contender]
    memory: dict[Contender, float] = {}
    for contender in ready:
        ask(False, memory, contender, pipes[contender])
    if not any(name == "cnnjax" for name, _ in memory):
        raise RuntimeError(f"cnnjax failed with every population of {unit}")
    speeds = {contender: [speeds[contender] for speeds in rounds] for contender in memory}
    model, batch_size, precision = unit
    rows = []
    for contender in speeds:
        if contender[0] != "matrix product":
            row = {"model": model, "batch_size": batch_size, "optimizer": OPTIMIZER.value, "precision": precision}
            row |= row_of(contender, speeds, workers.training_flops(model))
            row |= {"seconds_to_start": round(ready[contender], 1), "peak_memory_mb": round(memory[contender] / 1e6)}
            print("  ".join(map(str, row.values())), flush=True)
            rows.append(row)
    return rows


def start(contender: Contender, unit: Unit) -> Connection:
    """Starts a contender's process; returns the pipe to it."""
    # Contenders share a GPU, of which jax would take three quarters for itself.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    name, members = contender
    model, batch_size, precision = unit
    work = Work(model, OPTIMIZER.value, batch_size, members, precision, SECONDS.value, CONVOLUTION.value)
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=WORKERS[name], args=(theirs, work), daemon=True).start()
    theirs.close()  # so that a contender that fails is not waited for
    return ours


def receive(answers: dict[Contender, float], contender: Contender, pipe: Connection) -> bool:
    """Stores a contender's answer; returns whether one came."""
    try:
        answers[contender] = pipe.recv()
    except (EOFError, ConnectionError):
        print(f"{contender[0]} with {counted(contender[1], 'member')} failed and is left out", flush=True)
    return contender in answers


def ask(question: bool, answers: dict[Contender, float], contender: Contender, pipe: Connection) -> bool:
    """Sends a question to a contender and stores the answer; returns whether one came."""
    with contextlib.suppress(ConnectionError):  # it failed meanwhile, and so does not answer
        pipe.send(question)
    return receive(answers, contender, pipe)


def row_of(contender: Contender, speeds: dict[Contender, list[float]], operations: int) -> dict[str, Any]:
    """A contender's figures; a ratio is the median of the rounds' ratios of each cnnjax population to it."""
    name, members = contender
    images = speeds[contender]
    shares = [speed * operations / peak for speed, peak in zip(images, speeds["matrix product", 1], strict=True)]

    def ratio(population: int) -> float | str:
        ours = speeds.get(("cnnjax", population))
        if ours is None:
            return ""
        return round(statistics.median(one / other for one, other in zip(ours, images, strict=True)), 3)

    return {
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
    """Draws images per second by contender, with the range of the rounds; a panel for each network and batch size."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(map(unit_of, rows)))
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, unit in zip(grid.flat, panels, strict=False):
        shown = [row for row in rows if unit_of(row) == unit]
        speeds = [row["images_per_second"] for row in shown]
        spread = [
            [row["images_per_second"] - row["slowest"] for row in shown],
            [row["fastest"] - row["images_per_second"] for row in shown],
        ]
        colors = ["#2a6f97" if row["contender"] == "cnnjax" else "#adb5bd" for row in shown]
        axes.barh(range(len(shown)), speeds, xerr=spread, color=colors, ecolor="#495057", capsize=2)
        axes.set_yticks(range(len(shown)), [f"{row['contender']} x{row['members']}" for row in shown])
        axes.invert_yaxis()
        axes.set_title("{}, batch size {}, {}".format(*unit), fontsize=9)
        axes.set_xlabel("images a second (bar: range of the rounds)", fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    app.run(main)
