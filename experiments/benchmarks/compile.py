"""Seconds to compile the programs of a study: one after another, and all at once in threads.

    python -m experiments.benchmarks.compile
    python -m experiments.benchmarks.compile --config=configs/grid.py:smoke --seeds=1

Each way has a process of its own and no compilation cache; initialization, training and prediction of a program count
together, tracing included. Writes compile.csv beside this file, after each program: those of one way are on their own
or beside each other, and a row `all` has the time of the whole way. Random images: only their shape matters.
"""

import functools
import multiprocessing as mp
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from absl import app, flags

from cnnjax.study import flags as study_flags
from cnnjax.study.overrides import load_study
from experiments.benchmarks.tables import kept_rows, write_table

flags.adopt_module_key_flags(study_flags)  # --config, by default configs/grid.py
MODELS = flags.DEFINE_list("models", ["baseline", "medium", "complex"], "Which networks.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each configuration.")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "tf32", "bfloat16"], "Of the layers' arithmetic.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

WAYS = ("one after another", "all at once")
EXAMPLES = 50_000


def main(argv: list[str]) -> None:
    """Compiles in every way and writes the table."""
    del argv
    rows = kept_rows("compile.csv", OUTPUT.value)
    done = {row["way"] for row in rows if row["program"] == "all"}
    rows = [row for row in rows if row["way"] in done]  # a way that was cut off starts anew
    context = mp.get_context("spawn")
    for way in WAYS:
        if way in done:
            continue
        ours, theirs = context.Pipe()
        config = study_flags.CONFIG.value or "configs/grid.py"
        arguments = (theirs, way, config, MODELS.value, SEEDS.value, PRECISION.value)
        process = context.Process(target=compile_study, args=arguments, daemon=True)
        process.start()
        theirs.close()
        while row := receive(ours):
            print("  ".join(map(str, row.values())), flush=True)
            rows.append(row)
            write_table(rows, "compile.csv", OUTPUT.value)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{way}: the process ended with exit status {process.exitcode}")
    print(f"wrote {write_table(rows, 'compile.csv', OUTPUT.value)}")


def receive(pipe: Connection) -> dict[str, Any] | None:
    """Returns the next row, or None at the end."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def compile_study(pipe: Connection, way: str, config: str, model_names: list[str], seeds: int, precision: str) -> None:
    """Compiles the programs of a study; sends a row for each, and one for all."""
    from cnnjax.training.devices import use_every_core

    use_every_core(seeds)
    import jax

    from cnnjax.study.plan import Program, make_plan
    from cnnjax.training.device_data import put_data
    from cnnjax.training.devices import make_mesh
    from cnnjax.training.population import Population
    from experiments.benchmarks.workers import random_dataset

    values = [
        f"models={','.join(model_names)}",
        f"seeds={','.join(map(str, range(seeds)))}",
        f"train.precision={precision}",
    ]
    study = load_study(config, values)
    dataset = random_dataset(study.data.train_examples[0] or EXAMPLES, 10_000)
    mesh = make_mesh(jax.local_devices()[: 1 if jax.default_backend() != "cpu" else None])
    data = put_data(dataset, study, mesh)
    programs = make_plan(study).programs
    count = len(mesh.devices)

    def compile_program(program: Program) -> dict[str, Any]:
        start = time.perf_counter()
        members = program.members[: max(count, len(program.members) // count * count)]
        population = Population(study, program.static, dataset.image_shape, 10, mesh)
        population.compile(*population.stack(members), data)
        static = program.static
        name = f"{static.model} {static.optimizer} {static.batch_size}"
        return row_of(name, len(members), time.perf_counter() - start)

    row_of = functools.partial(_row, way, precision, jax.default_backend())
    start = time.perf_counter()
    if way == "one after another":
        for program in programs:
            pipe.send(compile_program(program))
    else:
        with ThreadPoolExecutor(len(programs)) as pool:
            for row in pool.map(compile_program, programs):
                pipe.send(row)
    pipe.send(row_of("all", sum(len(program.members) for program in programs), time.perf_counter() - start))


def _row(way: str, precision: str, backend: str, program: str, members: int, seconds: float) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    row = {"way": way, "backend": backend, "cores": cores, "precision": precision}
    return row | {"program": program, "members": members, "seconds": round(seconds, 2)}


if __name__ == "__main__":
    app.run(main)
