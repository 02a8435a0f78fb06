"""Milliseconds of 3x3 convolutions by fused Winograd kernels in C, beside cnnjax's and PyTorch's, on one core.

    python -m experiments.benchmarks.fused_winograd
    python -m experiments.benchmarks.fused_winograd --layers="3x3, 64 to 64 at 32x32" --rounds=10

Needs gcc and a processor with AVX-512. kernels.c transforms a block of tiles, multiplies it and transforms it back in
the caches, by F(2,3) and by F(4,3). They take turns in rounds with the methods of `experiments.benchmarks.directions`,
in float32, each with its kernel's transform; a time is the best. The second line of a direction has the rounding errors
beside those of PyTorch's direct convolution: root mean square, relative to that of the values in float64.
"""

import ctypes
import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app

from experiments.benchmarks import directions
from experiments.benchmarks.directions import BATCH_SIZE, CORE, DIRECTIONS, LAYERS, ROUNDS, Conv

# Of complex, medium and ResNet-18.
CONVOLUTIONS = [
    Conv(pixels, channels, features, 3, 1)
    for pixels, channels, features in ((32, 64, 64), (16, 64, 128), (16, 32, 64), (16, 128, 128), (8, 256, 256))
]
TILES = {2: 48, 4: 24}  # in a block
ERROR_IMAGES = 8  # that errors are measured with


def main(argv: list[str]) -> None:
    """Times every convolution in every direction and prints times and errors."""
    del argv
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORE.value})
    library = build()
    for conv in CONVOLUTIONS:
        if LAYERS.value and str(conv) not in LAYERS.value.split(";"):
            continue
        arrays = draw(conv, BATCH_SIZE.value)
        for direction in DIRECTIONS:
            fused = {f"F({m},3)": functools.partial(compute, library, m, direction, *arrays) for m in TILES}
            runs: dict[str, Callable[[], float]] = {
                "cnnjax": directions.ours(conv, direction, "auto"),
                "pytorch": directions.theirs(conv, direction),
                **{name: functools.partial(_seconds, run) for name, run in fused.items()},
            }
            best = dict.fromkeys(runs, float("inf"))
            for _ in range(ROUNDS.value):
                best = {name: min(best[name], run()) for name, run in runs.items()}
            times = "  ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in best.items())
            print(f"{conv}, {direction}: {times}")
            errors = "  ".join(
                f"{name} {error:.1e}" for name, error in measure_errors(library, conv, direction).items()
            )
            print(f"    error: {errors}", flush=True)


def build() -> ctypes.CDLL:
    """Compiles kernels.c for this processor and loads it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernels.so"
        options = ["-O3", "-march=native", "-funroll-loops", "-shared", "-fPIC"]
        subprocess.run(["gcc", *options, "-o", target, Path(__file__).with_name("kernels.c")], check=True)
        return ctypes.CDLL(str(target))


def draw(conv: Conv, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images, a kernel and a gradient of the output, channels last."""
    numbers = np.random.default_rng(0)
    shape = (batch, conv.pixels, conv.pixels)
    images = numbers.standard_normal((*shape, conv.channels), np.float32)
    kernel = numbers.standard_normal((3, 3, conv.channels, conv.features), np.float32)
    return images, kernel, numbers.standard_normal((*shape, conv.features), np.float32)


def compute(
    library: ctypes.CDLL, m: int, direction: str, images: np.ndarray, kernel: np.ndarray, grad: np.ndarray
) -> np.ndarray:
    """Returns the output, or the gradient of the images or of the kernel, by F(m x m, 3 x 3)."""
    result = np.empty_like({"output": grad, "images": images, "kernel": kernel}[direction])
    shape, features = images.shape, grad.shape[-1]
    if direction == "kernel":
        library.winograd_kernel_grad(m, *map(_pointer, (images, grad, result)), *shape, features, TILES[m])
    elif direction == "output":
        library.winograd_forward(m, *map(_pointer, (images, kernel, result)), *shape, features, 0, TILES[m])
    else:
        sizes = (*shape[:3], features, shape[3])
        library.winograd_forward(m, *map(_pointer, (grad, kernel, result)), *sizes, 1, TILES[m])
    return result


def measure_errors(library: ctypes.CDLL, conv: Conv, direction: str) -> dict[str, float]:
    """Returns the relative errors of PyTorch's direct convolution and of both kernels."""
    arrays = draw(conv, ERROR_IMAGES)
    exact = _direct(direction, *(array.astype(np.float64) for array in arrays))
    found = {"direct": _direct(direction, *arrays)}
    found |= {f"F({m},3)": compute(library, m, direction, *arrays) for m in TILES}
    return {name: float(np.sqrt(np.mean((values - exact) ** 2) / np.mean(exact**2))) for name, values in found.items()}


def _direct(direction: str, *arrays: np.ndarray) -> np.ndarray:
    """Returns what `compute` does, by PyTorch."""
    import torch

    orders = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    images, kernel, grad = (torch.tensor(a).permute(order) for a, order in zip(arrays, orders, strict=True))
    output = torch.nn.functional.conv2d(images.requires_grad_(), kernel.requires_grad_(), padding=1)
    images_grad, kernel_grad = torch.autograd.grad(output, (images, kernel), grad)
    found = {"output": output, "images": images_grad, "kernel": kernel_grad}[direction]
    return found.detach().permute((2, 3, 1, 0) if direction == "kernel" else (0, 2, 3, 1)).numpy()


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
