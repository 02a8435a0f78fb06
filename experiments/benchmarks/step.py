"""Where the time of a training step goes: microseconds an image of each part of a network, forwards and backwards.

    python -m experiments.benchmarks.step --models=baseline,medium,complex

One member trains on one core, or one GPU, under jax's profiler. Every operation of the compiled program carries
the place in the source that it comes from; the time of an operation, without that of the operations inside it, counts
for the part that the place belongs to. Writes step.csv beside this file.
"""

import gzip
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.benchmarks.tables import write_table
from experiments.benchmarks.workers import Work, population_of

MODELS = flags.DEFINE_list("models", ["baseline", "medium", "complex"], "Which networks.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images a step.")
STEPS = flags.DEFINE_integer("steps", 10, "Steps of the epoch that is traced.")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "tf32", "bfloat16"], "Of the layers' arithmetic.")
SHOW = flags.DEFINE_bool("show", False, "Print the slowest operations, too, with their places in the source.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = (?:.*?metadata=\{[^}]*op_name="([^"]*)")?', re.MULTILINE)
_LAYER = re.compile(r"Network\)*/((?:conv|bn|dense)\d+)/")


def main(argv: list[str]) -> None:
    """Profiles every network and writes the table."""
    del argv
    if hasattr(os, "sched_setaffinity"):  # the times of threads side by side would not add up
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = [row for model in MODELS.value for row in measure(model)]
    print(f"wrote {write_table(rows, 'step.csv', OUTPUT.value)}")


def measure(model: str) -> list[dict[str, Any]]:
    """Traces an epoch of one member; returns a row for each part, the most expensive first."""
    import jax

    population, timed = population_of(Work(model, "sgd", BATCH_SIZE.value, 1, PRECISION.value, 0.0), STEPS.value)
    places = dict(_INSTRUCTION.findall(population.text(1)))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            seconds = timed(1)
        (file,) = Path(folder).glob("**/perfetto_trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    images = STEPS.value * BATCH_SIZE.value
    micros: dict[str, float] = defaultdict(float)
    operations: dict[tuple[str, str], float] = defaultdict(float)
    for name, place, duration in own_times(events, places):
        micros[part_of(place)] += duration / images
        operations[name, place] += duration / images
    micros["between the operations"] = seconds * 1e6 / images - sum(micros.values())
    if SHOW.value:
        for (name, place), spent in sorted(operations.items(), key=lambda item: -item[1])[:40]:
            print(f"{spent:9.2f}  {name:<40} {place}")
    rows = []
    for part, spent in sorted(micros.items(), key=lambda item: -item[1]):
        share = spent * images / seconds / 1e6
        row = {"model": model, "batch_size": BATCH_SIZE.value, "precision": PRECISION.value, "part": part}
        rows.append(row | {"microseconds_an_image": round(spent, 2), "share": round(share, 3)})
        print(f"{model:<10} {part:<28} {spent:9.2f} us an image  {100 * share:5.1f} %", flush=True)
    return rows


def own_times(events: list[dict[str, Any]], places: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """Yields name, place and microseconds of each operation that ran, without the time of those inside it.

    Args:
        events: of a trace, as Chrome's format has them: complete ones ("X") nest by time in each thread.
        places: where an operation comes from, by its name; one that says nothing comes from where the one around it
            does.
    """
    threads: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and event["name"] in places:
            threads[event["pid"], event["tid"]].append(event)
    for thread in threads.values():
        around: list[tuple[float, str, str]] = []  # the operations that an event lies in: ends, names and places
        for event in sorted(thread, key=lambda event: (event["ts"], -event["dur"])):
            while around and around[-1][0] <= event["ts"]:
                around.pop()
            place = places[event["name"]]
            if around:
                _, name, outer = around[-1]
                place = place or outer
                yield name, outer, -event["dur"]
            yield event["name"], place, event["dur"]
            around.append((event["ts"] + event["dur"], event["name"], place))


def part_of(place: str) -> str:
    """Returns the part of a step that a place in the source belongs to: a layer and its direction, or what is around.

    Args:
        place: as XLA writes it, "jit(f)/while/body/transpose(jvp(Network))/conv0/dot_general".
    """
    if layer := _LAYER.search(place):
        return f"{layer[1]} {'backwards' if 'transpose(' in place else 'forwards'}"
    if "Network)" in place:
        return "activations, pooling, dropout"
    return next((scope for scope in ("augment", "loss", "update") if f"/{scope}/" in place), "the rest")


if __name__ == "__main__":
    app.run(main)
