"""The products of a convolution, in chunks of a batch and over members.

Of members side by side most products are one batched product. A backend's own convolution would be one in groups,
which is slow: it takes one member after another.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Blocks, join, split
from cnnjax.models.conv.methods import METHODS, Method, choose, chunk_count


def as_images(output: Array | Blocks) -> Array:
    """Returns an output as images, whether it came so or in blocks."""
    return join(output) if isinstance(output, tuple) else output


def as_blocks(output: Array | Blocks) -> Blocks:
    """Returns an output in blocks, whether it came so or as images."""
    return output if isinstance(output, tuple) else split(output)


def correlate(
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    kernel: Float[Array, "K K C F"],
    before: tuple[int, int],
    pixels: tuple[int, int],
    wanted: str,
    finish: Callable,
    *extra: Array,
    turned: bool = False,
) -> Any:
    """Cross-correlates images with a kernel.

    Args:
        arrays: what the images are made of, a batch first.
        expand: makes the images of a chunk of the arrays, as images or in blocks.
        kernel: the kernel.
        before: zeros above and left of the images.
        pixels: height and width of the output; behind their last pixel the images are cut, or zero.
        wanted: the name of a method, or 'auto'.
        finish: turns the output of a chunk (images, or blocks that may hold one more row and column) into the result.
        extra: further arguments of `finish`.
        turned: turn the kernel by 180 degrees, and correlate from its features to its channels.

    Returns:
        The results of `finish`, their chunks put together.
    """
    height, width = pixels
    shape = _turned(kernel.shape) if turned else kernel.shape
    method = METHODS[choose(shape, height * width, wanted)]
    count = chunk_count(method, shape, len(arrays[0]), height * width)
    size = (-(-height // 2), -(-width // 2)) if method.to_blocks else pixels

    def product(arrays: tuple[Array, ...], kernel: Array, extra: tuple[Array, ...]) -> Any:
        transformed = (method.transform_turned if turned else method.transform)(kernel)

        def one_chunk(chunk: tuple[Array, ...]) -> Any:
            images = _as(method.from_blocks, expand(*chunk))
            return finish(method.forward(images, transformed, before, size), *extra)

        return _by_chunks(one_chunk, arrays, count)

    return _over_members(method, product)(arrays, kernel, extra)


def image_gradient(
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    kernel: Float[Array, "K K C F"],
    before: tuple[int, int],
    pixels: tuple[int, int],
    wanted: str,
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of height and width `pixels`, where `expand` makes that of the output."""
    height, width = pixels
    method = METHODS[choose(_turned(kernel.shape), height * width, wanted)]
    if (of_images := method.image_gradient) is None:
        # It is the full correlation of the output's gradient with the turned kernel.
        last = len(kernel) - 1
        around = (last - before[0], last - before[1])
        return correlate(
            *(arrays, expand, kernel, around, pixels, wanted),
            lambda output: as_images(output)[:, :height, :width],
            turned=True,
        )
    count = chunk_count(method, kernel.shape, len(arrays[0]), height * width, backwards=True)

    def product(arrays: tuple[Array, ...], kernel: Array) -> Array:
        return _by_chunks(lambda chunk: of_images(as_images(expand(*chunk)), kernel, before, pixels), arrays, count)

    return _over_members(method, product)(arrays, kernel)


def kernel_gradient(
    images: Float[Array, "N H W C"],
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    kernel_shape: tuple[int, ...],
    before: tuple[int, int],
    wanted: str,
) -> Float[Array, "K K C F"]:
    """Returns the gradient of a kernel, where `expand` makes that of the output from a chunk of `arrays`."""
    _, height, width, _ = images.shape
    method = METHODS[choose(kernel_shape, height * width, wanted)]
    count = chunk_count(method, kernel_shape, len(images), height * width, backwards=True)

    untransformed = jax.ShapeDtypeStruct(kernel_shape, images.dtype)
    transformed = jax.eval_shape(method.transform, untransformed)

    def product(images: Array, arrays: tuple[Array, ...]) -> Array:
        def one_chunk(images: Array, *chunk: Array) -> Array:
            gradient = _as(method.to_blocks, expand(*chunk))
            return method.kernel_gradient(_as(method.from_blocks, images), gradient, before, transformed.shape)

        if count == 1:
            total = one_chunk(images, *arrays)
        else:
            total = jnp.zeros_like(transformed)
            chunks = _cut((images, *arrays), count)
            total, _ = lax.scan(lambda total, chunk: (total + one_chunk(*chunk), None), total, chunks)
        return jax.linear_transpose(method.transform, untransformed)(total)[0]

    return _over_members(method, product)(images, arrays)


def _turned(kernel_shape: tuple[int, ...]) -> tuple[int, ...]:
    size, _, channels, features = kernel_shape
    return size, size, features, channels


def _as(in_blocks: bool, images: Array | Blocks) -> Array | Blocks:
    return as_blocks(images) if in_blocks else as_images(images)


def _by_chunks(one_chunk: Callable, arrays: tuple[Array, ...], count: int) -> Any:
    """The results of chunks of the arrays, put together."""
    if count == 1:
        return one_chunk(arrays)
    results = lax.map(one_chunk, _cut(arrays, count))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)


def _cut(arrays: tuple[Array, ...], count: int) -> tuple[Array, ...]:
    return tuple(array.reshape(count, -1, *array.shape[1:]) for array in arrays)


def _over_members(method: Method, product: Callable) -> Callable:
    return jax.custom_batching.sequential_vmap(product) if method.loops else product
