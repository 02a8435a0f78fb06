"""A whole study from the command to its report, beside PyTorch training the same trials one after another.

    pip install -e ".[bench]" && python -m experiments.benchmarks.sweep --models=baseline --examples=5000
    python -m experiments.benchmarks.sweep --models=baseline,medium,complex --seeds=5      # all of it, for a GPU

The study is configs/grid.py: two optimizers, two learning rates, two batch sizes, 5 and 10 epochs. cnnjax's time is
that of the command with an empty compilation cache: imports, data, compiling, training, evaluation, checkpoints,
records and report. The peers would take hours: their speed is measured on a part, in rounds before and after ours, and
extrapolated to all trials, with nothing added for starting, loading data and writing results. Writes sweep.csv.
"""

import itertools
import multiprocessing as mp
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags

from cnnjax.overrides import load_study
from cnnjax.plan import make_plan
from cnnjax.types import Plan, Trial
from experiments.benchmarks import workers
from experiments.benchmarks.tables import write_table
from experiments.benchmarks.workers import Work

MODELS = flags.DEFINE_list("models", ["baseline"], "Which networks.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each setting.")
EXAMPLES = flags.DEFINE_integer("examples", 50_000, "Training images.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of the peers before our run, and as many after it.")
SECONDS = flags.DEFINE_float("seconds", 3.0, "Aimed length of one peer's part of a round.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

CONFIG = "configs/grid.py"
TEST_EXAMPLES = 10_000
PEERS = {"pytorch": workers.pytorch, "source loop": workers.source_loop}


def main(argv: list[str]) -> None:
    """Times the peers, our study, and the peers again; writes the table."""
    del argv
    overrides = [
        f"models={','.join(MODELS.value)}",
        f"seeds={','.join(map(str, range(SEEDS.value)))}",
        f"data.train_examples={EXAMPLES.value}",
    ]
    plan = make_plan(load_study(CONFIG, overrides))
    before = speeds_of_peers(plan)
    seconds = run_study(overrides)
    after = speeds_of_peers(plan)
    rows = [row_of("cnnjax", plan, seconds, seconds, is_extrapolated=False)]
    for peer in PEERS:
        speeds = {kind: statistics.median(before[peer][kind] + after[peer][kind]) for kind in before[peer]}
        rows.append(row_of(peer, plan, sum(seconds_of(trial, speeds) for trial in plan.trials), seconds, True))
    print(f"wrote {write_table(rows, 'sweep.csv', OUTPUT.value)}")


def run_study(overrides: list[str]) -> float:
    """Runs the command in a folder of its own and returns its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "cnnjax.launch", f"--config={CONFIG}", f"--workdir={folder}/run"),
                *("--compilation_cache=off", *(f"--config.{override}" for override in overrides)),
            ],
            check=True,
        )
        return time.perf_counter() - start


def speeds_of_peers(plan: Plan) -> dict[str, dict[tuple, list[float]]]:
    """Returns images per second of each peer for each kind of trial in a plan, a value for each round."""
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


def row_of(name: str, plan: Plan, seconds: float, ours: float, is_extrapolated: bool) -> dict[str, Any]:
    """A contender's row."""
    row = {
        "models": "+".join(MODELS.value),
        "training_images": EXAMPLES.value,
        "trials": len(plan.trials),
        "trained": plan.trained if name == "cnnjax" else len(plan.trials),
        "contender": name,
        "seconds": round(seconds, 1),
        "is_extrapolated": is_extrapolated,
        "cnnjax_ratio": round(seconds / ours, 2),
    }
    print("  ".join(map(str, row.values())), flush=True)
    return row


if __name__ == "__main__":
    app.run(main)
