"""Max-pool and average pool with gradients that are fast on a CPU; those of XLA's reduce_window are slow there."""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from cnnjax.models.conv.blocks import Pair, join, largest, pad_to, split, to_winner
from cnnjax.models.conv.windows import Window, explicit_padding


def max_pool(
    x_NxHxWxC: Float[Array, "N H W C"],
    window_shape: Pair = (2, 2),
    strides: Pair | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> Float[Array, "N P Q C"]:
    """Returns the maximum over windows. By default they are 2x2 with stride 2; an odd last row or column is dropped.

    The gradient goes to the first maximum of a window in row order, as in PyTorch.

    Args:
        x_NxHxWxC: float images, channels last.
        window_shape: height and width of the windows.
        strides: of rows and columns; by default the windows do not overlap.
        padding: 'SAME', 'VALID', or pixels ((above, below), (left, right)) that are never the maximum.
    """
    _, *image_size, _ = x_NxHxWxC.shape
    window, shape = Window(strides or window_shape), (window_shape[0], window_shape[1])
    pairs = explicit_padding(padding, image_size, shape, window.strides)
    extents = zip(image_size, pairs, shape, window.strides, strict=True)
    rows, columns = ((length + sum(around) - extent) // stride + 1 for length, around, extent, stride in extents)
    before = pairs[0][0], pairs[1][0]
    if shape == tuple(window.strides) == (2, 2) and before == (0, 0):
        return _pool_blocks(pad_to(x_NxHxWxC, before, (rows * 2, columns * 2)))
    return _pool(x_NxHxWxC, shape, before, (rows, columns), window)


def avg_pool(
    x_NxHxWxC: Float[Array, "N H W C"], window_shape: Pair = (2, 2), strides: Pair | None = None
) -> Float[Array, "N P Q C"]:
    """Returns the mean over windows; incomplete windows at the end of a row or column are dropped."""
    x_NxHxWxC, window = jnp.asarray(x_NxHxWxC), Window(strides or window_shape)
    extents = zip(x_NxHxWxC.shape[1:3], window_shape, window.strides, strict=True)
    rows, columns = ((length - extent) // stride + 1 for length, extent, stride in extents)
    first, *others = window.slices(x_NxHxWxC, window_shape, (rows, columns))
    return sum(others, start=first) / math.prod(window_shape)


@jax.custom_vjp
def _pool_blocks(even: Array) -> Array:
    return largest(split(even))[0]


_pool_blocks.defvjp(lambda even: largest(split(even)), lambda winner, grad: (join(to_winner(grad, winner)),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool(images: Array, shape: Pair, before: Pair, size: Pair, window: Window) -> Array:
    return _forward(images, shape, before, size, window)[0]


def _forward(
    images: Array, shape: Pair, before: Pair, size: Pair, window: Window
) -> tuple[Float[Array, "N P Q C"], tuple[Int[Array, "N P Q C"], Pair]]:
    """Returns the maxima, the place of each in its window, and the size of the images."""
    padded = pad_to(images, before, window.read(size, shape), fill=-jnp.inf)
    first, *others = window.slices(padded, shape, size)
    value, winner = first, jnp.zeros(first.shape, jnp.int8 if math.prod(shape) < 128 else jnp.int32)
    for place, pixels in enumerate(others, 1):
        winner = jnp.where(pixels > value, jnp.array(place, winner.dtype), winner)
        value = jnp.maximum(value, pixels)
    return value, (winner, images.shape[1:3])


def _backward(shape: Pair, before: Pair, size: Pair, window: Window, saved: tuple, grad: Array) -> tuple[Array]:
    winner, image_size = saved
    (rows, columns), (down, right) = window.phases(size, shape), window.strides
    behind = rows - size[0], columns - size[1]  # that far a pixel is from the first window that has it
    widen = ((0, 0), *((far, far) for far in behind), (0, 0))
    # Without the barrier XLA would pad again for every place.
    winner, grad = lax.optimization_barrier((jnp.pad(winner, widen, constant_values=-1), jnp.pad(grad, widen)))

    def phase(first_row: int, first_column: int) -> Array:
        """Returns the gradient of the pixels at one place of each block of the size of the strides."""
        total = jnp.zeros((), grad.dtype)
        for row, column in itertools.product(range(first_row, shape[0], down), range(first_column, shape[1], right)):
            top, left = behind[0] - row // down, behind[1] - column // right
            at = (slice(None), slice(top, top + rows), slice(left, left + columns))
            total += jnp.where(winner[at] == row * shape[1] + column, grad[at], 0)
        return jnp.broadcast_to(total, (len(grad), rows, columns, grad.shape[-1]))

    lines = [jnp.stack([phase(row, column) for column in range(right)], 3) for row in range(down)]
    pixels = jnp.stack(lines, 2).reshape(len(grad), rows * down, columns * right, -1)
    return (pad_to(pixels, (-before[0], -before[1]), image_size),)


_pool.defvjp(_forward, _backward)
