"""Milliseconds of `cnnjax.models.conv.convolve` beside `lax.conv_general_dilated`: alone, in a scan, over members.

    python -m experiments.benchmarks.convolve
    python -m experiments.benchmarks.convolve --convolutions="3x3,3x3 depthwise" --resume

Each time is that of the output and both gradients of one batch of one member:

- alone: a single compiled call;
- scan: in a `lax.scan` over steps, as training does. XLA's CPU backend computes gradients there that are many times
  slower (jax issues 12868 and 26266);
- vmap: `jax.vmap` over the images and kernels of members. XLA computes grouped convolutions (jax issue 13800).

The two take turns in rounds, and a time is the median; one that takes over two seconds is measured once. Writes
convolve.csv beside this file, after each convolution, and prints the table of the README.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from cnnjax.models.conv import convolve
from experiments.benchmarks.tables import kept_rows, write_table

BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images of a member.")
MEMBERS = flags.DEFINE_integer("members", 4, "Members of vmap.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps of the scan.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved repetitions.")
ONLY = flags.DEFINE_list("convolutions", None, "Which convolutions (default: all).")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

TOO_SLOW = 2.0  # seconds of a call


class Convolution(NamedTuple):
    """A convolution with SAME padding."""

    pixels: int  # height and width of the images
    channels: int
    features: int
    size: int = 3  # height and width of the kernel
    stride: int = 1
    dilation: int = 1
    groups: int = 1


CONVOLUTIONS = {
    "3x3": Convolution(32, 64, 64),
    "3x3 stride 2": Convolution(32, 64, 128, stride=2),
    "3x3 dilation 2": Convolution(32, 64, 64, dilation=2),
    "3x3 depthwise": Convolution(32, 128, 128, groups=128),
    "3x3 in 32 groups": Convolution(16, 128, 128, groups=32),
    "1x1": Convolution(32, 64, 256, 1),
    "1x1 stride 2": Convolution(32, 64, 128, 1, 2),
    "7x7 stride 2": Convolution(64, 3, 64, 7, 2),
    "4x4 stride 4": Convolution(64, 3, 192, 4, 4),
}
MODES = ("alone", "scan", "vmap")


def main(argv: list[str]) -> None:
    """Times every convolution and writes the table."""
    del argv
    rows = kept_rows("convolve.csv", OUTPUT.value)
    done = {row["convolution"] for row in rows}
    for name in ONLY.value or CONVOLUTIONS:
        if name not in done:
            rows += [row for mode in MODES for row in measure(name, mode)]
            write_table(rows, "convolve.csv", OUTPUT.value)
    print_table(rows)
    print(f"wrote {write_table(rows, 'convolve.csv', OUTPUT.value)}")


def measure(name: str, mode: str) -> list[dict[str, Any]]:
    """Times both functions on one convolution, in turns, and returns a row for each."""
    runs = {"convolve": build(CONVOLUTIONS[name], mode, ours), "lax": build(CONVOLUTIONS[name], mode, theirs)}
    times: dict[str, list[float]] = {contender: [run()] for contender, run in runs.items()}
    for _ in range(ROUNDS.value - 1):
        for contender, run in runs.items():
            if times[contender][0] < TOO_SLOW:
                times[contender].append(run())
    calls = {"alone": 1, "scan": STEPS.value, "vmap": MEMBERS.value}[mode]
    return [
        {
            "convolution": name,
            **CONVOLUTIONS[name]._asdict(),
            "batch_size": BATCH_SIZE.value,
            "backend": jax.default_backend(),
            "mode": mode,
            "contender": contender,
            "milliseconds": round(1e3 * statistics.median(seconds) / calls, 3),
            "rounds": len(seconds),
        }
        for contender, seconds in times.items()
    ]


def ours(images: jax.Array, kernel: jax.Array, conv: Convolution) -> jax.Array:
    """Returns the output by `convolve`."""
    return convolve(
        *(images, kernel),
        strides=(conv.stride, conv.stride),
        dilation=(conv.dilation, conv.dilation),
        groups=conv.groups,
    )


def theirs(images: jax.Array, kernel: jax.Array, conv: Convolution) -> jax.Array:
    """Returns the output by `lax.conv_general_dilated`."""
    return lax.conv_general_dilated(
        *(images, kernel, (conv.stride, conv.stride), "SAME"),
        rhs_dilation=(conv.dilation, conv.dilation),
        feature_group_count=conv.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def build(conv: Convolution, mode: str, function: Callable) -> Callable[[], float]:
    """Compiles the output and the gradients of a convolution; a call returns the seconds of all of its members."""
    members = MEMBERS.value if mode == "vmap" else 1
    rng = np.random.default_rng(0)
    images = rng.normal(size=(members, BATCH_SIZE.value, conv.pixels, conv.pixels, conv.channels))
    kernels = rng.normal(0, 0.05, (members, conv.size, conv.size, conv.channels // conv.groups, conv.features))

    def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.square(function(images, kernel, conv)).mean()

    def step(carry: tuple[jax.Array, jax.Array], _: None = None) -> tuple:
        grads = jax.grad(loss, (0, 1))(*carry)
        return jax.tree.map(jnp.subtract, carry, grads), None

    def train(images: jax.Array, kernels: jax.Array) -> Any:
        if mode == "vmap":
            return jax.vmap(lambda *member: step(member)[0])(images, kernels)
        first = images[0], kernels[0]
        return step(first)[0] if mode == "alone" else lax.scan(step, first, None, length=STEPS.value)[0]

    arrays = images.astype(np.float32), kernels.astype(np.float32)
    run = jax.jit(train).lower(*arrays).compile()

    def timed() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(*arrays))
        return time.perf_counter() - start

    first = timed()  # it touches all memory for the first time
    return timed if first < TOO_SLOW else lambda: first


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints the milliseconds of `convolve`, and in brackets how many times those lax takes."""
    print("| convolution | alone | scan | vmap |\n|---|---|---|---|")
    for name in dict.fromkeys(row["convolution"] for row in rows):
        cells = []
        for mode in MODES:
            both = {
                row["contender"]: row["milliseconds"]
                for row in rows
                if (row["convolution"], row["mode"]) == (name, mode)
            }
            ratio = both["lax"] / both["convolve"]
            cells.append(f"{both['convolve']:.1f} ({ratio:.{0 if ratio >= 10 else 1}f})")
        conv = CONVOLUTIONS[name]
        shape = f"{conv.channels} to {conv.features} at {conv.pixels}x{conv.pixels}"
        print(f"| {name}, {shape} | {' | '.join(cells)} |")


if __name__ == "__main__":
    app.run(main)
