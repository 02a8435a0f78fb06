"""What a study of ten thousand trials would cost, on paper, from measured figures.

    python -m experiments.benchmarks.price
    python -m experiments.benchmarks.price --images_per_second=baseline=400000,medium=60000,complex=9000

The study is that of `size`: configs/grid.py with many seeds. Training comes from the images per second of
throughput.csv, or on GPUs from those that `--images_per_second` or `--throughput`, a table of the same form, says that
one GPU trains; everything else from size.csv. Machines of 16 cores are taken to be as many times as fast as the cores
that were measured, as they have more of them; several machines or GPUs, to share the members without loss. What one
process does for all of them (records, report, plan) is not shared out.
"""

from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from cnnjax.study.plan import make_plan
from experiments.benchmarks.size import CHUNKS, TRAIN_EXAMPLES, make_study
from experiments.benchmarks.tables import read_table, table_path

SPEEDS = flags.DEFINE_list("images_per_second", [], "Of one GPU: MODEL=NUMBER,...")
THROUGHPUT = flags.DEFINE_string("throughput", None, "A throughput.csv that was measured on one GPU.")
CORES = flags.DEFINE_integer("cores", 2, "On how many cores throughput.csv and size.csv were measured.")
_EPOCHS = 10


class Price(NamedTuple):
    """Seconds of a study on some workers; those of training, checkpoints and compilation pass on all at once."""

    workers: str
    train: float
    checkpoints: float
    compile: float
    records: float
    report: float

    @property
    def total(self) -> float:
        """All of it, one after another."""
        return sum(self[1:])


def fastest(path: Path) -> dict[str, dict[str, Any]]:
    """The fastest row of cnnjax of each model in a table of throughput."""
    rows = [row for row in read_table(path) if row["contender"] == "cnnjax"]
    return {m: max((r for r in rows if r["model"] == m), key=lambda r: r["images_per_second"]) for m in CHUNKS}


def main(argv: list[str]) -> None:
    """Prints a row for each number of machines and of GPUs."""
    del argv
    measured = [row for row in read_table(table_path("size.csv")) if row["trials"] > 9000 or row["stage"] == "data"]
    seconds = {row["stage"]: row["seconds"] for row in measured}
    trials = max(row["trials"] for row in measured)
    plan = make_plan(make_study(trials, wide=False))
    on_cpu = fastest(table_path("throughput.csv"))
    members = {model: sum(len(p.members) for p in plan.programs if p.static.model == model) for model in CHUNKS}
    images = {model: count * _EPOCHS * TRAIN_EXAMPLES for model, count in members.items()}
    print(f"{len(plan.trials):,} trials: {plan.trained:,} trained in {len(plan.programs)} programs")
    for model, row in on_cpu.items():
        print(
            f"  {model:<9} {members[model]:,} members, {images[model] / 1e6:,.0f} million images; on {CORES.value} "
            f"cores {row['images_per_second']:,.0f} a second, {row['seconds_to_start']} s to compile and start"
        )
    records, report = seconds["plan"] + seconds["records"], seconds["report"]
    # Every machine compiles every program.
    compiling = sum(on_cpu[p.static.model]["seconds_to_start"] for p in plan.programs)
    saving = sum(
        seconds[f"checkpoint {model}"] * _EPOCHS * len(range(0, len(p.members), size))
        for model, size in CHUNKS.items()
        for p in plan.programs
        if p.static.model == model
    )
    training = sum(images[model] / row["images_per_second"] for model, row in on_cpu.items())
    rows = [Price(f"the {CORES.value} cores measured", training, saving, compiling, records, report)]
    for machines in (1, 4, 16, 64):
        faster = 16 / CORES.value * machines
        rows.append(Price(f"{machines} x 16 cores", training / faster, saving / machines, compiling, records, report))
    show(rows)
    speeds = {name: float(number) for name, _, number in (text.partition("=") for text in SPEEDS.value)}
    if THROUGHPUT.value:
        speeds = {model: row["images_per_second"] for model, row in fastest(Path(THROUGHPUT.value)).items()}
    if missing := CHUNKS.keys() - speeds:
        print(f"GPUs: none was measured; say what one trains: --images_per_second={'=...,'.join(sorted(missing))}=...")
        return
    print("GPUs, each of which trains " + ", ".join(f"{speeds[m]:,.0f} images a second of {m}" for m in CHUNKS))
    training = sum(images[model] / speeds[model] for model in CHUNKS)
    show([Price(f"{gpus} GPUs", training / gpus, saving, compiling, records, report) for gpus in (1, 8, 64)])


def show(rows: list[Price]) -> None:
    """Prints hours, and what is the largest part beside training."""
    head = [name for name in Price._fields if name != "workers"]
    print(f"\n{'hours':<22}" + "".join(f"{name:>12}" for name in [*head, "total"]) + "  beside training")
    for row in rows:
        parts = "".join(f"{value / 3600:>12.3f}" for value in [*row[1:], row.total])
        beside = {name: getattr(row, name) for name in head if name != "train"}
        most = max(beside, key=lambda name: beside[name])
        print(f"{row.workers:<22}{parts}  {sum(beside.values()) / row.total:.1%}, most of it {most}")
    print()


if __name__ == "__main__":
    app.run(main)
