"""Max-pool and average pool of any window, with PyTorch's gradients. Pure jax."""

import functools
from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models import conv


def max_pool(x_NxHxWxC: Float[Array, "N H W C"], window: int = 2, stride: int = 2) -> Float[Array, "N P Q C"]:
    """Returns the maximum over square windows; incomplete windows at the end of a row or column are dropped.

    The gradient goes to the first maximum of a window in row order, as in PyTorch.
    """
    if window == stride == 2:
        return conv.max_pool(x_NxHxWxC)
    return functools.reduce(_larger, _places(x_NxHxWxC, window, stride))


def avg_pool(x_NxHxWxC: Float[Array, "N H W C"], window: int = 2, stride: int = 2) -> Float[Array, "N P Q C"]:
    """Returns the mean over square windows; incomplete windows at the end of a row or column are dropped."""
    return sum(_places(x_NxHxWxC, window, stride)) / window**2


def _larger(first: Array, second: Array) -> Array:
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def _places(x: Array, window: int, stride: int) -> Iterator[Array]:
    """Yields, for each place in a window, in row order, its pixel of every window: [N, P, Q, C].

    The gradients of XLA's `reduce_window` are slow on a CPU. Those of slices are zeros around them.
    """
    n, height, width, channels = x.shape
    rows, columns = ((size - window) // stride * stride for size in (height, width))
    for y in range(window):
        for z in range(window):
            yield lax.slice(x, (0, y, z, 0), (n, y + rows + 1, z + columns + 1, channels), (1, stride, stride, 1))
