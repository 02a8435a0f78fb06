"""A whole study from the command to its report, beside PyTorch training the same trials one after another.

    pip install -e ".[bench]" && python -m experiments.benchmarks.sweep --models=baseline --examples=5000
    python -m experiments.benchmarks.sweep --models=baseline,medium,complex --seeds=5      # all of it, for a GPU

The study is configs/grid.py: two optimizers, two learning rates, two batch sizes, 5 and 10 epochs. cnnjax's time is
that of the command with an empty compilation cache: imports, data, compiling, training, evaluation, checkpoints,
records and report. The peers would take hours: their speed is measured on a part, in rounds before and after ours, and
extrapolated to all trials, with nothing added for starting, loading data and writing results. `--rounds=0` leaves them
out. Where CIFAR-10 is neither prepared nor given by `--data`, the images are made up: speed does not depend on what
they show. Writes sweep.csv, also when it is interrupted: with the trials that were finished by then.
"""

import contextlib
import itertools
import multiprocessing as mp
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import app, flags

from cnnjax.data.prepare import data_folder
from cnnjax.study import flags as study_flags
from cnnjax.study.overrides import load_study
from cnnjax.study.plan import Plan, make_plan
from cnnjax.study.trials import Trial
from experiments.benchmarks import workers
from experiments.benchmarks.tables import write_table
from experiments.benchmarks.workers import Work

flags.adopt_module_key_flags(study_flags)  # --config, by default configs/grid.py
MODELS = flags.DEFINE_list("models", ["baseline"], "Which networks.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each configuration.")
EXAMPLES = flags.DEFINE_integer("examples", 50_000, "Training images.")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "tf32", "bfloat16"], "Of the layers' arithmetic.")
DATA = flags.DEFINE_string("data", None, "CIFAR-10 in a form that data.path takes.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of the peers before our run, and as many after it.")
SECONDS = flags.DEFINE_float("seconds", 3.0, "Aimed length of one peer's part of a round.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

TEST_EXAMPLES = 10_000
PEERS = {"pytorch": workers.pytorch, "source loop": workers.source_loop}


def main(argv: list[str]) -> None:
    """Times the peers, our study, and the peers again; writes the table."""
    del argv
    values = [
        f"models={','.join(MODELS.value)}",
        f"seeds={','.join(map(str, range(SEEDS.value)))}",
        f"data.train_examples={EXAMPLES.value}",
        f"train.precision={PRECISION.value}",
    ]
    plan = make_plan(load_study(study_path(), values))
    before = speeds_of_peers(plan)
    with tempfile.TemporaryDirectory() as folder:
        ours = run_study(Path(folder), values)
    rows = [row_of("cnnjax", plan, ours["seconds"], 1.0, False) | ours]
    write_table(rows, "sweep.csv", OUTPUT.value)
    after = speeds_of_peers(plan)
    for peer in PEERS if before else ():
        speeds = {kind: statistics.median(before[peer][kind] + after[peer][kind]) for kind in before[peer]}
        seconds = sum(seconds_of(trial, speeds) for trial in plan.trials)
        rows.append(row_of(peer, plan, seconds, seconds / ours["seconds"], True))
    print(f"wrote {write_table(rows, 'sweep.csv', OUTPUT.value)}")


def study_path() -> str:
    """Returns which study runs."""
    return study_flags.CONFIG.value or "configs/grid.py"


def run_study(folder: Path, values: list[str]) -> dict[str, Any]:
    """Runs the command in a folder of its own; returns its seconds and what it reached."""
    images = images_of(folder)
    start = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cnnjax.launch", f"--config={study_path()}", f"--workdir={folder}/run"),
            *("--compilation_cache=off", *(f"--config.{value}" for value in (*values, *images))),
        ]
    )
    try:
        process.wait()
    except KeyboardInterrupt:  # it has been interrupted as well
        process.wait()
    seconds = time.perf_counter() - start
    results = pd.DataFrame({"seconds": []})
    with contextlib.suppress(FileNotFoundError):
        results = pd.read_csv(folder / "run/trials.csv")
    return {
        "seconds": round(seconds, 1),
        "training_seconds": round(results["seconds"].sum(), 1),
        "finished_trials": len(results),
        "exit_status": process.returncode,
        "precision": PRECISION.value,
        "images": "made up" if images and not DATA.value else "CIFAR-10",
    }


def images_of(folder: Path) -> list[str]:
    """Returns the overrides that say which images to use: those of `--data`, the prepared ones, or made-up ones."""
    if DATA.value:
        return [f"data.path={DATA.value}"]
    if any((data_folder() / "cifar10").glob("**/dataset_info.json")):
        return []
    rng = np.random.default_rng(0)
    counts = {"train": EXAMPLES.value, "test": min(TEST_EXAMPLES, EXAMPLES.value)}
    arrays: dict[str, Any] = {
        f"x_{split}": rng.integers(0, 256, (count, 32, 32, 3), np.uint8) for split, count in counts.items()
    }
    arrays |= {f"y_{split}": np.arange(count) % 10 for split, count in counts.items()}
    np.savez(folder / "made_up.npz", **arrays)
    return [f"data.path={folder}/made_up.npz"]


def speeds_of_peers(plan: Plan) -> dict[str, dict[tuple, list[float]]]:
    """Returns images per second of each peer for each kind of trial in a plan, a value for each round."""
    if not ROUNDS.value:
        return {}
    speeds: dict[str, dict[tuple, list[float]]] = {peer: {} for peer in PEERS}
    context = mp.get_context("spawn")
    for kind in dict.fromkeys(kind_of(trial) for trial in plan.trials):
        model, optimizer, batch_size = kind
        pipes = {}
        for peer, worker in PEERS.items():
            pipes[peer], theirs = context.Pipe()
            work = Work(model, optimizer, batch_size, 1, "float32", SECONDS.value)
            context.Process(target=worker, args=(theirs, work), daemon=True).start()
            pipes[peer].recv()
        for _, (peer, pipe) in itertools.product(range(ROUNDS.value), pipes.items()):
            pipe.send(True)
            speeds[peer].setdefault(kind, []).append(pipe.recv())
        for pipe in pipes.values():
            pipe.send(False)
            pipe.recv()
    return speeds


def kind_of(trial: Trial) -> tuple[str, str, int]:
    """What a peer's speed depends on."""
    return trial.static.model, trial.static.optimizer, trial.static.batch_size


def seconds_of(trial: Trial, speeds: dict[tuple, float]) -> float:
    """How long a peer takes for a trial: its epochs, and the test set once at a third of the cost of training."""
    return (trial.epochs * EXAMPLES.value + TEST_EXAMPLES / 3) / speeds[kind_of(trial)]


def row_of(name: str, plan: Plan, seconds: float, ratio: float, is_extrapolated: bool) -> dict[str, Any]:
    """A contender's row."""
    row = {
        "models": "+".join(MODELS.value),
        "training_images": EXAMPLES.value,
        "trials": len(plan.trials),
        "trained": plan.trained if name == "cnnjax" else len(plan.trials),
        "contender": name,
        "seconds": round(seconds, 1),
        "is_extrapolated": is_extrapolated,
        "cnnjax_ratio": round(ratio, 2),
    }
    print("  ".join(map(str, row.values())), flush=True)
    return row


if __name__ == "__main__":
    app.run(main)
