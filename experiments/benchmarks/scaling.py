"""Whether cost grows as the work does: seconds of training against members, epochs and images.

    python -m experiments.benchmarks.scaling --model=baseline
    python -m experiments.benchmarks.scaling --redraw          # the figure again, from the table

Each of the three grows alone; every point is timed in rounds, the points taking turns. Writes scaling.csv and
scaling.png beside this file; `relative` is the cost of a unit of work (one member, epoch, image) beside that of the
first point.
"""

import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from cnnjax.training.devices import use_every_core
from experiments.benchmarks.tables import read_table, table_path, write_table
from experiments.benchmarks.workers import Work, population_of

MODEL = flags.DEFINE_string("model", "baseline", "Which network.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images a step.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Repetitions, of which the median counts.")
REDRAW = flags.DEFINE_bool("redraw", False, "Time nothing; draw the table that is there.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table and, as .png, the figure.")

MEMBERS = (1, 2, 4, 8, 16, 32, 64)
EPOCHS = (1, 2, 5, 10, 20)
IMAGES = (5_000, 10_000, 20_000, 50_000)
FEW = 1_280  # images, where it is not they that grow


def main(argv: list[str]) -> None:
    """Times the three series, and writes table and figure."""
    del argv
    if REDRAW.value:
        path = table_path("scaling.csv", OUTPUT.value)
        draw(read_table(path), path.with_suffix(".png"))
        return
    use_every_core(max(MEMBERS))
    series: dict[str, dict[int, Callable[[], float]]] = {
        "members": {count: build(members=count) for count in MEMBERS},
        "epochs": {count: build(epochs=count) for count in EPOCHS},
        "images": {count: build(images=count) for count in IMAGES},
    }
    rows = [row for name, points in series.items() for row in measure(name, points)]
    path = write_table(rows, "scaling.csv", OUTPUT.value)
    draw(rows, path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png')}")


def build(members: int = 2, epochs: int = 1, images: int = FEW) -> Callable[[], float]:
    """Compiles one point; a call trains it and returns the seconds."""
    work = Work(MODEL.value, "sgd", BATCH_SIZE.value, members, "float32", 0.0)
    return functools.partial(population_of(work, images // BATCH_SIZE.value, epochs)[1], epochs)


def measure(name: str, points: dict[int, Callable[[], float]]) -> list[dict[str, Any]]:
    """Times the points of one series in turn, and returns a row for each."""
    times: dict[int, list[float]] = {count: [] for count in points}
    for _ in range(ROUNDS.value):
        for count, run in points.items():
            times[count].append(run())
    units = {count: statistics.median(seconds) / count for count, seconds in times.items()}
    rows = []
    for count, seconds in times.items():
        row = {
            "model": MODEL.value,
            "grows": name,
            "count": count,
            "rounds": ROUNDS.value,
            "seconds": round(statistics.median(seconds), 4),
            "fastest": round(min(seconds), 4),
            "slowest": round(max(seconds), 4),
            "relative": round(units[count] / units[min(units)], 3),
        }
        print("  ".join(map(str, row.values())), flush=True)
        rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws seconds against the count of each series, on logarithmic axes, beside a straight line of proportion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("members", "epochs", "images"), strict=True):
        points = [row for row in rows if row["grows"] == name]
        counts, seconds = [row["count"] for row in points], [row["seconds"] for row in points]
        spread = [
            [row["seconds"] - row["fastest"] for row in points],
            [row["slowest"] - row["seconds"] for row in points],
        ]
        axes.errorbar(counts, seconds, spread, marker="o", ms=4, capsize=2, label="measured (bar: range)")
        ideal = [seconds[-1] * count / counts[-1] for count in counts]
        axes.plot(counts, ideal, ls=":", color="#868e96", label="in proportion")
        axes.set(xscale="log", yscale="log", xlabel=name, ylabel="seconds")
        axes.set_xticks(counts, [f"{count // 1000}k" if count >= 1000 else str(count) for count in counts])
        axes.set_xticks([], minor=True)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    app.run(main)
