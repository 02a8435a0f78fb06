"""What each way to search costs until it names a configuration: 16 configurations of one network on CIFAR-10.

    python -m experiments.search_cost                        # all, about 25 minutes on two cores
    python -m experiments.search_cost --parts=halving,until  # some; the rows of the others stay
    python -m experiments.search_cost --tiny                 # whether it works, in two minutes
    python -m experiments.search_cost --convolution=kernels  # our ways with kernels in C; search_cost_kernels.csv

The study is the smallest network of configs/grid.py on 10,000 training images: two optimizers, learning rates, batch
sizes and lengths. 5,000 of the test images select. Each way runs as a command in a process of its own, once with an
empty compilation cache (cold) and once with the cache of that run (warm), until it has named a winner. The images are
decoded before the first clock starts.

- grid: all 16 configurations with 5 seeds.
- until: `--until=decided` from 2 seeds, with at most 5 of a configuration.
- halving: one seed of each combination for 3 epochs, the better third for 10; then the two that are left race over the
  5 seeds.
- optuna: two populations of 8 configurations, one seed; then the best three train 4 more seeds each.
- pytorch: the same by Optuna with one PyTorch trial at a time; a configuration that comes up again is not trained
  again. Its clock starts when the data is loaded. The row `pytorch grid` extrapolates its speed to the whole grid; the
  shorter trials are read off the longer ones there, as ours are.

The same choice means: the winner is one of those configurations that the whole grid does not exclude from being the
best at 95 %. `behind` says how far its mean over the 5 seeds of the grid is from the best one's, in points: what the
way's own seeds say of it plays no part. `left` counts the configurations that the way itself does not exclude at 95 %,
of those that it trained with two seeds or more.

Writes search_cost.csv, after each way, and prints it.
"""

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging

from cnnjax import stats
from cnnjax.data.load import load_checked
from cnnjax.study.overrides import load_study
from cnnjax.study.schema import Study
from cnnjax.study.search import draw
from experiments.benchmarks.tables import read_table, write_table

if TYPE_CHECKING:
    from cnnjax.analysis.run import Run

WAYS = ("grid", "halving", "until", "optuna", "pytorch")
FINALISTS = 3  # of Optuna's configurations
PARTS = flags.DEFINE_list("parts", list(WAYS), f"Which ways to measure: {', '.join(WAYS)}.")
CACHES = flags.DEFINE_list("caches", ["cold", "warm"], "With which compilation caches: cold has to come before warm.")
KEEP = flags.DEFINE_bool("keep", False, "Measure only what the table lacks, to go on where it was cut off.")
TINY = flags.DEFINE_bool("tiny", False, "Train on 600 images for few epochs.")
FOLDER = flags.DEFINE_string("runs", "runs/search_cost", "Where the runs and their compiled programs are kept.")
TABLE = flags.DEFINE_string("table", None, "Where to write the table (default: beside this file, or for --tiny there).")
CONVOLUTION = flags.DEFINE_string("convolution", "auto", "Our method of convolutions: auto or kernels.")
CHILD = flags.DEFINE_string("child", None, "Run one way in this process, WAY-CACHE; for this program itself.")

Values = Mapping[str, Mapping[Any, float]]  # a measure by configuration and seed


def main(_: list[str]) -> None:
    """Measures the ways, or is one of them."""
    folder = Path(FOLDER.value)
    if CHILD.value:
        logging.set_verbosity(logging.WARNING)
        return run_way(CHILD.value.partition("-")[0], folder / CHILD.value, folder / "cache" / way_of(CHILD.value))
    for name in PARTS.value:
        if name not in WAYS:
            raise SystemExit(f"--parts={name}: use some of {', '.join(WAYS)}")
    folder.mkdir(parents=True, exist_ok=True)
    name = "search_cost.csv" if CONVOLUTION.value == "auto" else f"search_cost_{CONVOLUTION.value}.csv"
    table = Path(TABLE.value) if TABLE.value else (folder if TINY.value else Path(__file__).parent) / name
    rows = read_table(table) if table.exists() else []
    load_checked(study_of("grid", TINY.value))  # the first time decodes the images and keeps them
    for way, cache in itertools.product(PARTS.value, CACHES.value):
        is_there = any((row["way"], row["cache"]) == (way, cache) for row in rows)
        if (way == "pytorch" and cache == "warm") or (KEEP.value and is_there):
            continue
        measured = measure(way, cache, folder)
        names = {(row["way"], row["cache"]) for row in measured}
        rows = [row for row in rows if (row["way"], row["cache"]) not in names] + measured
        rows.sort(key=lambda row: (WAYS.index(way_of(row["way"])), row["way"], row["cache"]))
        write_table(compared(rows, folder), table.name, str(table))
    print(as_text(compared(rows, folder)))


def way_of(name: str) -> str:
    """Returns the way of WAY-CACHE, or of a row that is derived from it."""
    return name.partition("-")[0].partition(" ")[0]


def measure(way: str, cache: str, folder: Path) -> list[dict[str, Any]]:
    """Runs a way in a process of its own, and returns its row, and one that is extrapolated from it."""
    for name in (f"{way}-{cache}", *([f"cache/{way}"] if cache == "cold" else [])):
        shutil.rmtree(folder / name, ignore_errors=True)
    flags_of_child = [
        f"--child={way}-{cache}",
        f"--runs={folder}",
        f"--convolution={CONVOLUTION.value}",
        *(["--tiny"] if TINY.value else []),
    ]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "experiments.search_cost", *flags_of_child], check=True)
    seconds = time.perf_counter() - start
    found = json.loads((folder / f"{way}-{cache}.json").read_text())
    row = {
        **{"way": way, "cache": cache, "seconds": round(found.get("seconds", seconds), 1)},
        **{"compile_seconds": round(found.get("compile_seconds", 0), 1), "images": found["images"]},
        **{"winner": found["winner"], "left": len(found["may_be_best"]), "of": found["compared"]},
    }
    print("  ".join(map(str, row.values())), flush=True)
    if "grid_seconds" not in found:
        return [row]
    whole = {"seconds": round(found["grid_seconds"], 1), "compile_seconds": 0, "images": found["grid_images"]}
    return [row, {"way": f"{way} grid", "cache": cache, **whole, "winner": "", "left": "", "of": ""}]


def compared(rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Adds to each row its cost beside that of the whole grid, and what the whole grid says of its winner.

    Rows stay as they are if the whole grid has not been measured in this folder.
    """
    grid = {row["cache"]: row for row in rows if row["way"] == "grid"}
    files = [file for file in (folder / "grid-cold.json", folder / "grid-warm.json") if file.exists()]
    if not grid or not files:
        return [{**dict.fromkeys(_COLUMNS, ""), **row} for row in rows]
    of_grid = json.loads(files[0].read_text())
    best = max(of_grid["means"].values())

    def beside(row: dict[str, Any]) -> dict[str, Any]:
        whole = grid.get(row["cache"]) or next(iter(grid.values()))
        costs = {f"{name}_share": round(row[name] / whole[name], 3) for name in ("seconds", "images")}
        found: dict[str, Any] = {}
        if winner := row["winner"]:
            found["behind"] = round(100 * (best - of_grid["means"][winner]), 2)
            found["same_choice"] = winner in of_grid["may_be_best"]
        return {**dict.fromkeys(_COLUMNS, ""), **row, **costs, **found}

    return [beside(row) for row in rows]


_COLUMNS = (
    *("way", "cache", "seconds", "compile_seconds", "images", "seconds_share", "images_share"),
    *("winner", "behind", "same_choice", "left", "of"),
)


def as_text(rows: list[dict[str, Any]]) -> str:
    """Returns the table as text."""
    import pandas as pd

    return pd.DataFrame(rows, columns=list(_COLUMNS)).to_string(index=False)


def study_of(way: str, is_tiny: bool = False, convolution: str = "auto") -> Study:
    """Returns the study that a way begins with."""
    seeds, epochs, images = (3, 4, 600) if is_tiny else (5, 10, 10_000)
    values = {
        "models": "baseline",
        "select": "val_accuracy",
        "data.validation": 0.5,
        "data.validation_from": "test",
        "data.train_examples": images,
        "train.epochs": f"{epochs // 2},{epochs}",
        "train.convolution": convolution,
        "seeds": {"until": "0,1", "optuna": "0"}.get(way) or ",".join(map(str, range(seeds))),
    }
    if way == "halving":
        values |= {"train.epochs": epochs, "search.method": "halving", "search.trials": 8, "search.rungs": 2}
    if way == "optuna":
        values |= {"search.method": "optuna", "search.trials": 16, "search.batch": 8}

    def load(seed: int) -> Study:
        seeded = {"search.seed": seed} if way == "halving" else {}
        return load_study("configs/grid.py", [f"{key}={value}" for key, value in (values | seeded).items()])

    if way != "halving":
        return load(0)
    # The first search seed whose eight draws are the eight combinations of optimizer, rate and batch size.
    every = (load(seed) for seed in itertools.count())
    return next(study for study in every if len({*map(str, draw(study))}) == 8)


def run_way(way: str, workdir: Path, cache: Path) -> None:
    """Runs a way in this process and writes what it found beside the folder of its run."""
    if way == "pytorch":
        from experiments.benchmarks.pytorch_search import Searcher

        searcher = Searcher(study_of("grid", TINY.value))
        values = {name_of(point._asdict()): of for point, of in searcher.search(FINALISTS).items()}
        found = conclude(values, searcher.examples) | searcher.costs()
    else:
        found = _run_ours(way, workdir, cache)
    workdir.with_name(f"{workdir.name}.json").write_text(json.dumps(found))


def _run_ours(way: str, workdir: Path, cache: Path) -> dict[str, Any]:
    import jax

    from cnnjax.analysis.evidence import weigh
    from cnnjax.analysis.read import read_run
    from cnnjax.commands.launch import launch
    from cnnjax.training.program import enable_compilation_cache
    from cnnjax.utils.progress import Progress

    compiling: list[float] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):  # tracing, lowering, and compiling or reading from the cache
            compiling.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    enable_compilation_cache(str(cache))
    study = study_of(way, TINY.value, CONVOLUTION.value)
    until: dict[str, Any] = {"until": "decided", "max_seeds": 3 if TINY.value else 5} if way == "until" else {}
    with Progress(is_shown=True) as progress:
        launch(study, workdir, progress=progress, report=False, **until)
        if way == "optuna":
            add_seeds(workdir, len(study_of("grid", TINY.value).seeds) - 1)
            launch(study, workdir, progress=progress, report=False)
    run = read_run(workdir)
    named = {int(c): name_of(row) for c, row in run.configurations.iterrows()}
    values = {name: run.by_seed(c, run.select) for c, name in named.items() if run.configurations.loc[c, "n"] > 1}
    if way == "until" and (evidence := weigh(run)):  # knows of the looks
        may_be_best = [named[int(rank.name)] for rank in evidence.ranks if rank.may_be_best]  # type: ignore[call-overload]
        found = {"winner": named[evidence.configurations[0]], "may_be_best": may_be_best, "compared": len(values)}
    else:
        found = conclude(values, run.data["counts"]["validation"])
    return found | {"images": images_of(workdir, run), "compile_seconds": sum(compiling)}


def conclude(values: Values, examples: int) -> dict[str, Any]:
    """Returns the winner of configurations, which of them may be the best at 95 %, and their means.

    Args:
        values: validation accuracies.
        examples: the number of validation examples.
    """
    ranks = stats.rank({name: dict(of) for name, of in values.items()}, most=1, scale=stats.Scale("logit", examples))
    return {
        "winner": ranks[0].name,
        "may_be_best": [rank.name for rank in ranks if rank.may_be_best],
        "compared": len(ranks),
        "means": {rank.name: rank.mean for rank in ranks},
    }


def add_seeds(workdir: Path, count: int) -> None:
    """Asks for more seeds of the best configurations of a finished run, which the next launch trains."""
    import dataclasses

    from cnnjax.analysis.read import read_run
    from cnnjax.commands.growth import with_added_seeds
    from cnnjax.runs.run_dir import RunFolder
    from cnnjax.study.schema import from_run
    from cnnjax.study.trials import configuration_id, list_trials

    run, folder = read_run(workdir), RunFolder(workdir)
    study = with_added_seeds(folder, from_run(run.config))
    trials, first = {trial.id: trial for trial in list_trials(study)}, run.ok.groupby("configuration")["trial"].first()
    seeds = tuple(range(max(study.seeds) + 1, max(study.seeds) + 1 + count))
    chosen = [configuration_id(trials[first[c]]) for c in run.ranked[:FINALISTS]]
    folder.write_config(dataclasses.replace(study, added=dict.fromkeys(chosen, seeds)).to_dict(), [], None)


def images_of(workdir: Path, run: "Run") -> int:
    """Returns the images that a run has trained on: those of each recorded epoch."""
    epochs = sum('"member"' in line for file in workdir.glob("programs/*/metrics.jsonl") for line in file.open())
    return epochs * int(run.data["counts"]["train"])


def name_of(row: Mapping[str, Any]) -> str:
    """Returns how the table calls a configuration, from its axes by column."""
    return f"{row['optimizer']} {row['learning_rate']:g}, batch {row['batch_size']}, {row['epochs']:g} epochs"


if __name__ == "__main__":
    app.run(main)
