"""Milliseconds of every convolution of the ladder by every method: what `convolution.methods.choose` goes by.

    python -m experiments.benchmarks.convolutions --populations=1,4 --batch_size=64
    python -m experiments.benchmarks.convolutions --methods=block_patches,winograd,patches --rounds=3

For each layer (at 32x32 pixels) the output and the gradients of a batch are computed inside a compiled loop, as
training does, for a population spread over the devices: with the ReLU and the max-pool behind it where a network has
them there, and without the gradient of its images where it is the first. The methods take turns in rounds; a time is
the median over the rounds, for one member. Writes convolutions.csv beside this file, after each layer. A method that
takes over a second a member is timed once, one that runs out of memory is left out. On a CPU those that XLA convolves
by itself (dense, grouped) and the one that is interpreted (pallas) take minutes a layer, all together hours. Random
images: speed does not depend on what they show.
"""

import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import NamedSharding, PartitionSpec

from cnnjax.models.conv import convolve, convolve_and_pool, same_padding
from cnnjax.models.conv.methods import METHODS, choose
from cnnjax.models.fusion import ConvPool, fused
from cnnjax.models.ladder import LADDER
from cnnjax.models.network import MATMUL
from cnnjax.models.specs import Conv
from cnnjax.models.summary import ModuleParts, describe_network, layer_table
from cnnjax.training.devices import is_out_of_memory, make_mesh, put, use_every_core
from cnnjax.training.population import map_members
from experiments.benchmarks.tables import kept_rows, write_table

POPULATIONS = flags.DEFINE_list("populations", ["4"], "Members.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images of a member.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved repetitions.")
MODELS = flags.DEFINE_list("models", None, "Whose convolutions (default: those of the whole ladder).")
PRECISION = flags.DEFINE_enum("precision", "float32", sorted(MATMUL), "Of the arithmetic.")
ONLY = flags.DEFINE_list("methods", sorted(METHODS), "Which ways to convolve.")
SIZE = flags.DEFINE_integer("image_size", 32, "Height and width of the images.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

STEPS = 3  # of the compiled loop
TOO_SLOW = 1.0  # seconds for one member


def main(argv: list[str]) -> None:
    """Times every layer and writes the table."""
    del argv
    populations = [int(members) for members in POPULATIONS.value]
    use_every_core(max(populations))
    rows = kept_rows("convolutions.csv", OUTPUT.value)
    done = {(row["input"], row["features"], row["kernel"], row["padding"], row["population"]) for row in rows}
    for (place, users), population in itertools.product(places().items(), populations):
        conv = place.conv
        if (place.input, conv.features, conv.kernel_size, conv.padding, population) not in done:
            rows += measure(place, ", ".join(users), population)
            write_table(rows, "convolutions.csv", OUTPUT.value)
    print(f"wrote {write_table(rows, 'convolutions.csv', OUTPUT.value)}")


class Place(NamedTuple):
    """A convolution where it stands in a network."""

    shape: tuple[int, ...]  # of an image that it takes
    conv: Conv
    is_first: bool  # needs no gradient of its images
    is_pooled: bool  # a ReLU and a max-pool follow

    @property
    def input(self) -> str:
        """The shape as the table has it."""
        return "x".join(map(str, self.shape))

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """[K, K, C, F]."""
        return (self.conv.kernel_size, self.conv.kernel_size, self.shape[2], self.conv.features)


def places() -> dict[Place, list[str]]:
    """Returns the distinct convolutions of the ladder, and the networks that use them."""
    found: dict[Place, list[str]] = {}
    for name in MODELS.value or LADDER:
        network = describe_network(name, 10, (SIZE.value, SIZE.value, 3))
        if isinstance(network, ModuleParts):
            continue
        pooled = [isinstance(layer, ConvPool) for layer in fused(network.layers) if isinstance(layer, Conv | ConvPool)]
        shape: tuple[int, ...] = (SIZE.value, SIZE.value, 3)
        for index, row in enumerate(layer_table(network, (SIZE.value, SIZE.value, 3))):
            if isinstance(row.layer, Conv):
                found.setdefault(Place(shape, row.layer, index == 0, pooled.pop(0)), []).append(name)
            shape = row.output
    return found


def measure(place: Place, users: str, population: int) -> list[dict[str, Any]]:
    """Times the methods on one layer, in turns, and returns a row for each."""
    shape, layer = place.shape, place.conv
    output = shape[0] - (layer.kernel_size - 1 if layer.padding == "valid" else 0)
    chosen = choose(place.kernel_shape, output**2)
    fitting = [name for name in ONLY.value if METHODS[name].fits(layer.kernel_size)]
    with ThreadPoolExecutor() as pool:  # a GPU's compiler takes seconds for each, on one core
        built = dict(zip(fitting, pool.map(functools.partial(build, place, population), fitting), strict=True))
    runs = {name: run for name, run in built.items() if run is not None}
    times: dict[str, list[float]] = {name: [run()] for name, run in runs.items()}
    for _ in range(ROUNDS.value - 1):
        for name, run in runs.items():
            if times[name][0] < TOO_SLOW:
                times[name].append(run())
    best = min(times, key=lambda name: statistics.median(times[name]), default=None)
    rows = []
    for name, seconds in times.items():
        row = {
            "networks": users,
            "input": place.input,
            "features": layer.features,
            "kernel": layer.kernel_size,
            "padding": layer.padding,
            "is_first": place.is_first,
            "is_pooled": place.is_pooled,
            "backend": jax.default_backend(),
            "population": population,
            "batch_size": BATCH_SIZE.value,
            "precision": PRECISION.value,
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


def build(place: Place, population: int, method: str) -> Callable[[], float] | None:
    """Compiles a layer's output and gradients by one method; a call returns the seconds for one member.

    None stands for a method that runs out of memory.
    """
    layer = place.conv
    padding = same_padding(layer.kernel_size) if layer.padding == "same" else ((0, 0), (0, 0))
    rng = np.random.default_rng(0)
    dtype = jnp.bfloat16 if PRECISION.value == "bfloat16" else jnp.float32
    images = rng.normal(size=(population, BATCH_SIZE.value, *place.shape)).astype(dtype)
    kernels = rng.normal(0, 0.05, (population, *place.kernel_shape)).astype(dtype)

    def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
        if place.is_pooled:
            output = convolve_and_pool(images, kernel, kernel[0, 0, 0], padding, method)
        else:
            output = convolve(images, kernel, padding, method)
        return jnp.square(output).mean()

    def train(member: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, kernel = member

        def step(carry: tuple, _: None) -> tuple:
            images, kernel = carry
            if place.is_first:
                return (images, kernel - jax.grad(loss, 1)(images, kernel)), None
            of_images, of_kernel = jax.grad(loss, (0, 1))(images, kernel)
            return (images - of_images, kernel - of_kernel), None

        (images, kernel), _ = jax.lax.scan(step, (images, kernel), None, length=STEPS)
        return images.sum() + kernel.sum()

    members = PartitionSpec("members")
    devices = jax.local_devices()
    mesh = make_mesh(devices[: math.gcd(population, len(devices))])  # as many as share the members equally
    each = functools.partial(map_members, train)
    mapped = jax.jit(jax.shard_map(each, mesh=mesh, in_specs=members, out_specs=members, check_vma=False))
    arrays = put((images, kernels), NamedSharding(mesh, members))  # before the clock starts: a GPU's copy takes long
    try:
        with jax.default_matmul_precision(MATMUL[PRECISION.value]):
            run = mapped.lower(arrays).compile()
        jax.block_until_ready(run(arrays))
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        print(f"{method} runs out of memory with {population} members of {place.input}", flush=True)
        return None

    def timed() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(arrays))
        return (time.perf_counter() - start) / STEPS / population

    return timed


if __name__ == "__main__":
    app.run(main)
