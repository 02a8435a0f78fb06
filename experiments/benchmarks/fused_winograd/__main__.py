"""Milliseconds of 3x3 convolutions by fused Winograd kernels in C, beside cnnjax's and PyTorch's, on one core.

    pip install -e ".[kernels,bench]" && python -m experiments.benchmarks.fused_winograd
    python -m experiments.benchmarks.fused_winograd --layers="3x3, 64 to 64 at 32x32" --rounds=10

The kernels are those of `train.convolution=kernels` (cnnjax/models/conv/c), by F(2,3) and by F(4,3). They take
turns in rounds with the methods of `experiments.benchmarks.directions`, in float32; a time is the best. The second line
of a direction has the rounding errors beside those of PyTorch's direct convolution: root mean square, relative to that
of the values in float64.
"""

import os
from unittest import mock

import jax
import numpy as np
from absl import app

from cnnjax.models.conv import convolve, kernels
from experiments.benchmarks import directions
from experiments.benchmarks.directions import CORE, DIRECTIONS, LAYERS, ROUNDS, Conv

# Of complex, medium and ResNet-18.
CONVOLUTIONS = [
    Conv(pixels, channels, features, 3, 1)
    for pixels, channels, features in ((32, 64, 64), (16, 64, 128), (16, 32, 64), (16, 128, 128), (8, 256, 256))
]
ERROR_IMAGES = 8  # that errors are measured with


def main(argv: list[str]) -> None:
    """Times every convolution in every direction and prints times and errors."""
    del argv
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORE.value})
    for conv in CONVOLUTIONS:
        if LAYERS.value and str(conv) not in LAYERS.value.split(";"):
            continue
        for direction in DIRECTIONS:
            runs = {"cnnjax": directions.ours(conv, direction, "auto"), "pytorch": directions.theirs(conv, direction)}
            for tile in kernels.TILES:
                with mock.patch.object(kernels, "TILES", (tile,)):
                    runs[f"F({tile},3)"] = directions.ours(conv, direction, "kernels")
            best = dict.fromkeys(runs, float("inf"))
            for _ in range(ROUNDS.value):
                best = {name: min(best[name], run()) for name, run in runs.items()}
            times = "  ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in best.items())
            print(f"{conv}, {direction}: {times}")
            errors = "  ".join(f"{name} {error:.1e}" for name, error in measure_errors(conv, direction).items())
            print(f"    error: {errors}", flush=True)


def measure_errors(conv: Conv, direction: str) -> dict[str, float]:
    """Returns the relative errors of PyTorch's direct convolution and of both kernels."""
    numbers = np.random.default_rng(0)
    shape = (ERROR_IMAGES, conv.pixels, conv.pixels)
    shapes = (*shape, conv.channels), (3, 3, conv.channels, conv.features), (*shape, conv.features)
    arrays = [numbers.standard_normal(each, np.float32) for each in shapes]
    exact = _direct(direction, *(array.astype(np.float64) for array in arrays))
    found = {"direct": _direct(direction, *arrays)}
    for tile in kernels.TILES:
        with mock.patch.object(kernels, "TILES", (tile,)):
            found[f"F({tile},3)"] = _fused(direction, *arrays)
    return {name: float(np.sqrt(np.mean((values - exact) ** 2) / np.mean(exact**2))) for name, values in found.items()}


def _fused(direction: str, images: np.ndarray, kernel: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Returns the output, or the gradient of the images or of the kernel, by our own kernels."""
    output, pullback = jax.vjp(lambda images, kernel: convolve(images, kernel, method="kernels"), images, kernel)
    images_grad, kernel_grad = pullback(grad)
    return np.asarray({"output": output, "images": images_grad, "kernel": kernel_grad}[direction])


def _direct(direction: str, *arrays: np.ndarray) -> np.ndarray:
    """Returns what `_fused` does, by PyTorch."""
    import torch

    orders = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    images, kernel, grad = (torch.tensor(a).permute(order) for a, order in zip(arrays, orders, strict=True))
    output = torch.nn.functional.conv2d(images.requires_grad_(), kernel.requires_grad_(), padding=1)
    images_grad, kernel_grad = torch.autograd.grad(output, (images, kernel), grad)
    found = {"output": output, "images": images_grad, "kernel": kernel_grad}[direction]
    return found.detach().permute((2, 3, 1, 0) if direction == "kernel" else (0, 2, 3, 1)).numpy()


if __name__ == "__main__":
    app.run(main)
