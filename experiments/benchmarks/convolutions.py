"""Milliseconds of every convolution of the ladder by every method: what `convolution.methods.choose` goes by.

    python -m experiments.benchmarks.convolutions --population=4 --batch_size=64
    python -m experiments.benchmarks.convolutions --methods=block_patches,winograd,patches --rounds=3

For each layer (at 32x32 pixels) the output and both gradients of a batch are computed inside a compiled loop, as
training does, for a population spread over the devices. The methods take turns in rounds; a time is the median over
the rounds, for one member. Writes convolutions.csv beside this file. A method that takes over a second a member is
timed once; on a CPU those that XLA convolves by itself (dense, grouped) take minutes a layer, all together hours.
Random images: speed does not depend on what they show.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import PartitionSpec

from cnnjax import models
from cnnjax.convolution import convolve, same_padding
from cnnjax.convolution.methods import METHODS, choose
from cnnjax.devices import make_mesh, map_members, use_every_core
from cnnjax.ladder import Conv
from experiments.benchmarks.tables import write_table

POPULATION = flags.DEFINE_integer("population", 4, "Members.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images of a member.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved repetitions.")
ONLY = flags.DEFINE_list("methods", sorted(METHODS), "Which ways to convolve.")
SIZE = flags.DEFINE_integer("image_size", 32, "Height and width of the images.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

STEPS = 3  # of the compiled loop
TOO_SLOW = 1.0  # seconds for one member


def main(argv: list[str]) -> None:
    """Times every layer and writes the table."""
    del argv
    use_every_core(POPULATION.value)
    rows = [row for (shape, layer), users in layers().items() for row in measure(shape, layer, ", ".join(users))]
    print(f"wrote {write_table(rows, 'convolutions.csv', OUTPUT.value)}")


def layers() -> dict[tuple[tuple[int, ...], Conv], list[str]]:
    """Returns the distinct convolutions of the ladder, by the shape of their input, and the networks that use them."""
    found: dict[tuple[tuple[int, ...], Conv], list[str]] = {}
    for name in models.LADDER:
        shape: tuple[int, ...] = (SIZE.value, SIZE.value, 3)
        for row in models.layer_table(models.build(name, 10), (SIZE.value, SIZE.value, 3)):
            if isinstance(row.layer, Conv):
                found.setdefault((shape, row.layer), []).append(name)
            shape = row.output
    return found


def measure(shape: tuple[int, ...], layer: Conv, users: str) -> list[dict[str, Any]]:
    """Times the methods on one layer, in turns, and returns a row for each."""
    output = shape[0] - (layer.kernel_size - 1 if layer.padding == "valid" else 0)
    chosen = choose(layer.kernel_size, shape[2], output**2)
    runs = {name: build(shape, layer, name) for name in ONLY.value if METHODS[name].fits(layer.kernel_size)}
    times: dict[str, list[float]] = {name: [run()] for name, run in runs.items()}
    for _ in range(ROUNDS.value - 1):
        for name, run in runs.items():
            if times[name][0] < TOO_SLOW:
                times[name].append(run())
    best = min(times, key=lambda name: statistics.median(times[name]))
    rows = []
    for name, seconds in times.items():
        row = {
            "networks": users,
            "input": "x".join(map(str, shape)),
            "features": layer.features,
            "kernel": layer.kernel_size,
            "padding": layer.padding,
            "backend": jax.default_backend(),
            "population": POPULATION.value,
            "batch_size": BATCH_SIZE.value,
            "method": name,
            "milliseconds": round(1e3 * statistics.median(seconds), 3),
            "fastest": round(1e3 * min(seconds), 3),
            "slowest": round(1e3 * max(seconds), 3),
            "rounds": len(seconds),
            "is_best": name == best,
            "is_chosen": name == chosen,
        }
        print("  ".join(f"{value}" for value in row.values()), flush=True)
        rows.append(row)
    return rows


def build(shape: tuple[int, ...], layer: Conv, method: str) -> Callable[[], float]:
    """Compiles a layer's output and gradients by one method; a call returns the seconds for one member."""
    padding = same_padding(layer.kernel_size) if layer.padding == "same" else ((0, 0), (0, 0))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(POPULATION.value, BATCH_SIZE.value, *shape)).astype(np.float32)
    kernels = rng.normal(
        0, 0.05, (POPULATION.value, layer.kernel_size, layer.kernel_size, shape[2], layer.features)
    ).astype(np.float32)

    def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.square(convolve(images, kernel, padding, method)).mean()

    def train(member: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, kernel = member

        def step(carry: tuple, _: None) -> tuple:
            of_images, of_kernel = jax.grad(loss, (0, 1))(*carry)
            return (carry[0] - of_images, carry[1] - of_kernel), None

        (images, kernel), _ = jax.lax.scan(step, (images, kernel), None, length=STEPS)
        return images.sum() + kernel.sum()

    members = PartitionSpec("members")
    mesh = make_mesh(jax.local_devices())
    each = functools.partial(map_members, train)
    run = jax.jit(jax.shard_map(each, mesh=mesh, in_specs=members, out_specs=members, check_vma=False))
    jax.block_until_ready(run((images, kernels)))

    def timed() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run((images, kernels)))
        return (time.perf_counter() - start) / STEPS / POPULATION.value

    return timed


if __name__ == "__main__":
    app.run(main)
