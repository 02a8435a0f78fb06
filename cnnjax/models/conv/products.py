"""The matrix products of a convolution, in chunks of a batch and over members.

For stacked members most methods compute one batched product. A backend's own convolution would become a grouped
convolution, which is slow, so it takes one member after another.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv import shifts
from cnnjax.models.conv.blocks import Blocks, Pair, as_layout
from cnnjax.models.conv.methods import METHODS, Method, choose, chunk_count
from cnnjax.models.conv.windows import PLAIN, Window


def correlate(
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    kernel: Float[Array, "K L C F"],
    before: Pair,
    size: Pair,
    wanted: str,
    finish: Callable,
    *extra: Array,
    turned: bool = False,
    window: Window = PLAIN,
) -> Any:
    """Cross-correlates images with a kernel.

    Args:
        arrays: the arguments of `expand`, each with the batch axis first.
        expand: computes the images of a chunk of the arrays, as images or in blocks.
        kernel: the kernel.
        before: zeros above and left of the images.
        size: height and width of the output. The images are cropped, or padded with zeros, accordingly.
        wanted: the name of a method, or 'auto'.
        finish: computes the result from the output of a chunk: images, or blocks with up to one more row and column.
        extra: further arguments of `finish`.
        turned: whether to turn the kernel by 180 degrees and to swap its channels and features.
        window: strides and dilation.

    Returns:
        The results of `finish` for all chunks, concatenated.
    """
    height, width = size
    shape = _turned(kernel.shape) if turned else kernel.shape
    method = METHODS[choose(shape, height * width, wanted, window)]
    count = chunk_count(method, shape, len(arrays[0]), height * width)
    if method.to_blocks:
        size = -(-height // 2), -(-width // 2)
    forward = _in_windows((turned and method.forward_swapped) or method.forward, method, window)

    def product(arrays: tuple[Array, ...], kernel: Array, extra: tuple[Array, ...]) -> Any:
        transformed = (method.transform_turned if turned else method.transform)(kernel)

        def one_chunk(chunk: tuple[Array, ...]) -> Any:
            images = as_layout(expand(*chunk), method.from_blocks)
            return finish(forward(images, transformed, before, size), *extra)

        return _by_chunks(one_chunk, arrays, count)

    return _over_members(method, product)(arrays, kernel, extra)


def image_grad(
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    kernel: Float[Array, "K L C F"],
    before: Pair,
    size: Pair,
    wanted: str,
    window: Window = PLAIN,
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of `size`; `expand` computes the gradient of the output from `arrays`."""
    height, width = size
    method = METHODS[choose(_turned(kernel.shape), height * width, wanted, window)]
    images_grad = method.image_grad or (shifts.image_grad if method.any_window and window != PLAIN else None)
    if images_grad is None:
        # The full correlation of the output's gradient with the turned kernel.
        around = (len(kernel) - 1 - before[0], kernel.shape[1] - 1 - before[1])
        return correlate(
            *(arrays, expand, kernel, around, size, wanted),
            lambda output: as_layout(output, in_blocks=False)[:, :height, :width],
            turned=True,
        )
    count = chunk_count(method, kernel.shape, len(arrays[0]), height * width, backwards=True)
    images_grad = _in_windows(images_grad, method, window)

    def product(arrays: tuple[Array, ...], kernel: Array) -> Array:
        def one_chunk(chunk: tuple[Array, ...]) -> Array:
            return images_grad(as_layout(expand(*chunk), in_blocks=False), kernel, before, size)

        return _by_chunks(one_chunk, arrays, count)

    return _over_members(method, product)(arrays, kernel)


def kernel_grad(
    images: Float[Array, "N H W C"],
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    kernel_shape: tuple[int, ...],
    before: Pair,
    wanted: str,
    window: Window = PLAIN,
) -> Float[Array, "K L C F"]:
    """Returns the gradient of a kernel; `expand` computes the gradient of the output from `arrays`."""
    _, height, width, _ = images.shape
    method = METHODS[choose(kernel_shape, height * width, wanted, window)]
    count = chunk_count(method, kernel_shape, len(images), height * width, backwards=True)
    chunk_grad = _in_windows(method.kernel_grad, method, window)

    untransformed = jax.ShapeDtypeStruct(kernel_shape, images.dtype)
    transformed = jax.eval_shape(method.transform, untransformed)

    def product(images: Array, arrays: tuple[Array, ...]) -> Array:
        def one_chunk(images: Array, *chunk: Array) -> Array:
            grad = as_layout(expand(*chunk), method.to_blocks)
            return chunk_grad(as_layout(images, method.from_blocks), grad, before, transformed.shape)

        if count == 1:
            total = one_chunk(images, *arrays)
        else:
            total = jnp.zeros_like(transformed)
            chunks = _cut((images, *arrays), count)
            total, _ = lax.scan(lambda total, chunk: (total + one_chunk(*chunk), None), total, chunks)
        return jax.linear_transpose(method.transform, untransformed)(total)[0]

    return _over_members(method, product)(images, arrays)


def _in_windows(function: Callable, method: Method, window: Window) -> Callable:
    return functools.partial(function, window=window) if method.any_window else function


def _turned(kernel_shape: tuple[int, ...]) -> tuple[int, ...]:
    rows, columns, channels, features = kernel_shape
    return rows, columns, features, channels


def _by_chunks(one_chunk: Callable, arrays: tuple[Array, ...], count: int) -> Any:
    """Returns the results of all chunks of the arrays, concatenated."""
    if count == 1:
        return one_chunk(arrays)
    results = lax.map(one_chunk, _cut(arrays, count))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)


def _cut(arrays: tuple[Array, ...], count: int) -> tuple[Array, ...]:
    return tuple(array.reshape(count, -1, *array.shape[1:]) for array in arrays)


def _over_members(method: Method, product: Callable) -> Callable:
    return jax.custom_batching.sequential_vmap(product) if method.loops else product
