"""Training images per second of a cnnjax population beside a tuned PyTorch loop and the source studies' own loop.

    pip install -e ".[bench]" && python -m experiments.benchmarks.throughput --population=4 --batch_size=64

Every contender lives in a process of its own and runs when it is told to, one after another, in rounds: a drift of the
machine's speed meets all of them alike. Writes throughput.csv beside this file: medians over the rounds with their
range, and cnnjax's ratio to each peer taken round by round. Random images: speed does not depend on what they show.
"""

import csv
import multiprocessing as mp
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

MODELS = flags.DEFINE_list("models", ["baseline", "medium", "complex"], "Which rungs.")
OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "Momentum .9, or Adam.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images a step.")
POPULATION = flags.DEFINE_integer("population", 4, "Members trained together by cnnjax.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved repetitions.")
SECONDS = flags.DEFINE_float("seconds", 4.0, "Aimed length of one contender's part of a round.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

EXAMPLES = 6400


def main(argv: list[str]) -> None:
    """Runs every contender on every model and writes the table."""
    del argv
    rows = [row for model in MODELS.value for row in measure(model)]
    output = Path(OUTPUT.value) if OUTPUT.value else Path(__file__).with_name("throughput.csv")
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {output}")


def measure(model: str) -> list[dict[str, Any]]:
    """Times the contenders on one model, in turn, and returns a row for each."""
    contenders = {"cnnjax": cnnjax_worker, "pytorch": pytorch_worker, "source loop": source_worker}
    context = mp.get_context("spawn")
    pipes = {}
    for name, worker in contenders.items():
        ours, theirs = context.Pipe()
        arguments = (theirs, model, OPTIMIZER.value, BATCH_SIZE.value, POPULATION.value, SECONDS.value)
        context.Process(target=worker, args=arguments, daemon=True).start()
        pipes[name] = ours
        ours.recv()  # built and warm, before the next one starts
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS.value):
        for name, pipe in pipes.items():
            pipe.send(True)
            speeds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    return [row_of(model, name, speeds) for name in contenders]


def row_of(model: str, name: str, speeds: dict[str, list[float]]) -> dict[str, Any]:
    """A contender's row; cnnjax's ratio to it is the median of the rounds' ratios."""
    ratios = [a / b for a, b in zip(speeds["cnnjax"], speeds[name], strict=True)]
    row = {
        "model": model,
        "contender": name,
        "optimizer": OPTIMIZER.value,
        "batch_size": BATCH_SIZE.value,
        "population": POPULATION.value if name == "cnnjax" else 1,
        "rounds": ROUNDS.value,
        "images_per_second": round(statistics.median(speeds[name]), 1),
        "slowest": round(min(speeds[name]), 1),
        "fastest": round(max(speeds[name]), 1),
        "cnnjax_ratio": round(statistics.median(ratios), 3),
    }
    print("  ".join(f"{value}" for value in row.values()), flush=True)
    return row


def answer(pipe: Any, run: Callable[[int], float], images_per_step: int, seconds: float) -> None:
    """Warms a contender up, fits the number of steps to the wanted time, and runs a round whenever told to."""
    run(1)
    steps = max(1, round(seconds / max(run(2) / 2, 1e-6)))
    pipe.send(steps)
    while pipe.recv():
        pipe.send(steps * images_per_step / run(steps))


def random_images() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the shape of CIFAR-10."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (EXAMPLES, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, EXAMPLES)


def pytorch_worker(pipe: Any, model: str, optimizer: str, batch: int, members: int, seconds: float) -> None:
    """The tuned loop: one run after another is its only way to train several, so it trains one."""
    import torch

    from experiments.benchmarks.pytorch_peer import Peer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    answer(pipe, Peer(model, optimizer, batch, device, *random_images()).run, batch, seconds)


def source_worker(pipe: Any, model: str, optimizer: str, batch: int, members: int, seconds: float) -> None:
    """The source studies' loop: one PIL image at a time."""
    import torch

    from experiments.benchmarks.source_loop import SourceLoop

    device = "cuda" if torch.cuda.is_available() else "cpu"
    answer(pipe, SourceLoop(model, optimizer, batch, device, *random_images()).run, batch, seconds)


def cnnjax_worker(pipe: Any, model: str, optimizer: str, batch: int, members: int, seconds: float) -> None:
    """A population as a study trains it: `run(steps)` is epochs over as many images as `steps` batches hold."""
    import jax

    from cnnjax.data import Dataset, Split
    from cnnjax.devices import make_mesh, use_every_core
    from cnnjax.plan import make_plan
    from cnnjax.population import Population, put_data, stack_members
    from cnnjax.study import from_config

    images, labels = random_images()
    study = from_config(
        {
            "models": model,
            "seeds": tuple(range(members)),
            "data": {"augment": ("flip", "crop")},
            "train": {"optimizer": optimizer, "momentum": 0.9, "batch_size": batch, "learning_rate": 1e-3},
        }
    )
    (program,) = make_plan(study).programs
    use_every_core(members)
    mesh = make_mesh(jax.local_devices())
    settings, streams = stack_members(program.members)
    # An epoch of a tenth of a round, so that rounds of any length are whole epochs of one program.
    built: dict[int, Callable[[], float]] = {}

    def build(steps: int) -> Callable[[], float]:
        split = Split(np.resize(images, (steps * batch, *images.shape[1:])), np.resize(labels, steps * batch))
        tiny = Split(images[:batch], labels[:batch].astype(np.int32))
        split = Split(split.images, split.labels.astype(np.int32))
        classes = tuple("0123456789")
        dataset = Dataset("random", split, None, tiny, classes, np.full(3, 0.5), np.full(3, 0.25))
        data = put_data(dataset, "half", mesh)
        population = Population(study, program.static, dataset.image_shape, len(classes), mesh)
        state = population.init(settings, streams)
        population.advance(state, settings, streams, data, 1)

        def timed() -> float:
            start = time.perf_counter()
            population.advance(state, settings, streams, data, 1)
            return time.perf_counter() - start

        return timed

    def run(steps: int) -> float:
        if steps not in built:
            built.clear()
            built[steps] = build(steps)
        return built[steps]()

    answer(pipe, run, batch * members, seconds)


if __name__ == "__main__":
    app.run(main)
