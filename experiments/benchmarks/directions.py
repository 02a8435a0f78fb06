"""Milliseconds of the output and of each gradient of ResNet-18's convolutions, beside PyTorch's, on one core.

    python -m experiments.benchmarks.directions
    python -m experiments.benchmarks.directions --layers="3x3, 512 to 512 at 4x4" --methods=winograd,patches,shifts

Each is computed alone in a compiled loop, as training does; PyTorch has channels last and one thread. They take turns
in rounds, and a time is the best. Members train on a core each: to have both cores of a machine busy, start the command
twice, with `--core=0` and `--core=1`. Prints a line for each, with nominal GFLOP/s.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from absl import app, flags

CORE = flags.DEFINE_integer("core", 0, "On which core.")
LAYERS = flags.DEFINE_string("layers", None, "Which convolutions, separated by semicolons (default: all).")
METHODS = flags.DEFINE_list("methods", ["auto"], "Which methods of `cnnjax.models.conv`.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images.")
ROUNDS = flags.DEFINE_integer("rounds", 4, "Interleaved repetitions.")

STEPS = 3  # of the compiled loop
DIRECTIONS = ("output", "images", "kernel")  # what is computed: the output, and the gradients


class Conv(NamedTuple):
    """A convolution with zeros around, as ResNet-18 has it."""

    pixels: int  # height and width of the images
    channels: int
    features: int
    size: int
    stride: int

    def __str__(self) -> str:
        """Returns the name in the README's table."""
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        sizes = f"{self.size}x{self.size}{stride}, {self.channels} to {self.features}"
        return f"{sizes} at {self.pixels}x{self.pixels}"


CONVOLUTIONS = [
    *(Conv(2048 // channels, channels, channels, 3, 1) for channels in (64, 128, 256, 512)),
    *(Conv(2048 // channels, channels, 2 * channels, size, 2) for size in (3, 1) for channels in (64, 128, 256)),
]


def main(argv: list[str]) -> None:
    """Times every convolution in every direction and prints the times."""
    del argv
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORE.value})
    for conv in CONVOLUTIONS:
        if LAYERS.value and str(conv) not in LAYERS.value.split(";"):
            continue
        for direction in DIRECTIONS:
            runs = {"pytorch": theirs(conv, direction)} | {name: ours(conv, direction, name) for name in METHODS.value}
            best = dict.fromkeys(runs, float("inf"))
            for _ in range(ROUNDS.value):
                best = {name: min(best[name], run()) for name, run in runs.items()}
            pixels = BATCH_SIZE.value * (conv.pixels // conv.stride) ** 2
            operations = 2 * pixels * conv.size**2 * conv.channels * conv.features / 1e9
            times = "  ".join(f"{name} {1e3 * s:.1f} ({operations / s:.0f} GFLOP/s)" for name, s in best.items())
            print(f"{conv}, {direction}: {times}", flush=True)


def ours(conv: Conv, direction: str, method: str) -> Callable[[], float]:
    """Compiles a direction by one method; a call returns its seconds."""
    import jax
    import jax.numpy as jnp

    from cnnjax.models.conv import convolve

    before = (conv.size - 1) // 2
    shape = (BATCH_SIZE.value, conv.pixels, conv.pixels, conv.channels)
    kernel_shape = (conv.size, conv.size, conv.channels, conv.features)
    pad = ((before, before),) * 2

    def function(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(images, kernel, pad, method, strides=(conv.stride,) * 2)

    images, kernel = (jax.random.normal(jax.random.key(0), each) for each in (shape, kernel_shape))
    grad = jnp.ones(jax.eval_shape(function, images, kernel).shape)

    def step(carry: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], None]:
        *arrays, _ = carry
        value, pullback = jax.vjp(function, *arrays[:2])
        result = value if direction == "output" else pullback(arrays[2])[direction == "kernel"]
        # The next step depends on this one, or XLA would compute it once.
        changed = [array.at[0, 0, 0, 0].add(1e-9 * result[0, 0, 0, 0]) for array in arrays]
        return (*changed, result), None

    def loop(*arrays: jax.Array) -> jax.Array:
        last = jnp.zeros_like({"output": grad, "images": images, "kernel": kernel}[direction])
        return jax.lax.scan(step, (*arrays, last), None, length=STEPS)[0][-1]

    run = jax.jit(loop).lower(images, kernel, grad).compile()
    return _timed(lambda: run(images, kernel, grad).block_until_ready(), 1)


def theirs(conv: Conv, direction: str) -> Callable[[], float]:
    """Returns what takes the seconds of PyTorch."""
    import torch

    torch.set_num_threads(1)
    pixels, padding = conv.pixels // conv.stride, (conv.size - 1) // 2
    shapes = (
        (BATCH_SIZE.value, conv.channels, conv.pixels, conv.pixels),
        (conv.features, conv.channels, conv.size, conv.size),
        (BATCH_SIZE.value, conv.features, pixels, pixels),
    )
    images, kernel, grad = (torch.randn(shape).to(memory_format=torch.channels_last) for shape in shapes)

    def run() -> object:
        if direction == "output":
            return torch.nn.functional.conv2d(images, kernel, stride=conv.stride, padding=padding)
        wanted = [direction == "images", direction == "kernel", False]
        both = ([conv.stride] * 2, [padding] * 2, [1, 1])
        return torch.ops.aten.convolution_backward(grad, images, kernel, None, *both, False, [0, 0], 1, wanted)

    return _timed(run, STEPS)


def _timed(run: Callable[[], object], calls: int) -> Callable[[], float]:
    """Returns what returns the seconds of one of `STEPS` steps."""
    run()

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / STEPS

    return seconds


if __name__ == "__main__":
    app.run(main)
