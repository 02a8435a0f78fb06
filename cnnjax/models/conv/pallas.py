"""Convolution as a matrix product over patches that are never written to memory: Pallas kernels for a GPU.

Each program of a kernel gathers the patches of its tile from the images, part by part, into registers and multiplies
them with the convolution's kernel, or with the gradient of the output ("implicit GEMM", Chetlur et al. 2014).
`jax.vmap` over members adds an axis to the grid: all members are one launch. On a CPU the kernels are interpreted,
which is for tests only.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from cnnjax.models.conv.blocks import Pair

# Sizes of tiles: rows are output pixels, columns are features, the middle ones are places of the kernel times channels.
_ROWS, _MIDDLE, _COLUMNS = 128, 32, 64
_ROWS_OF_PART = 4096  # output pixels that one program adds up for the gradient of a kernel
_PARAMS = triton.CompilerParams(num_warps=4, num_stages=3)


def forward(images: Float[Array, "N H W C"], kernel: Float[Array, "K K C F"], before: Pair, size: Pair) -> Array:
    """Returns `size` output pixels [N, P, Q, F] of images with `before` zeros above and left."""
    features, rows = kernel.shape[-1], len(images) * math.prod(size)
    middle = math.prod(kernel.shape[:3])
    columns, step = _tile(features, _COLUMNS), _tile(middle, _MIDDLE)
    pixels_at = functools.partial(_patches_at, images.shape, len(kernel), before, size)

    def program(images_ref: Array, kernel_ref: Array, output_ref: Array) -> None:
        row = pl.program_id(0) * _ROWS + jnp.arange(_ROWS)
        column = pl.program_id(1) * columns + jnp.arange(columns)

        def add(part: Array, total: Array) -> Array:
            place = part * step + jnp.arange(step)
            at, is_inside = pixels_at(row, place)
            patches = triton.load(images_ref.at[at], mask=is_inside, other=0)
            return total + _dot(patches, _load_matrix(kernel_ref, place, column, (middle, features)))

        zeros = jnp.zeros((_ROWS, columns), jnp.float32)
        total = jax.lax.fori_loop(0, pl.cdiv(middle, step), add, zeros)
        _store_matrix(output_ref, row, column, (rows, features), total)

    grid = pl.cdiv(rows, _ROWS), pl.cdiv(features, columns)
    output = _call(program, grid, rows * features, images.dtype, images, kernel)
    return output.reshape(len(images), *size, features)


def kernel_grad(
    images: Float[Array, "N H W C"], grad: Float[Array, "N P Q F"], before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "K K C F"]:
    """Returns the gradient of a kernel from the gradient of the output.

    Parts of the output's pixels are added up by programs of their own, and their sums in a fixed order: a kernel has
    too few elements to occupy a GPU.
    """
    middle, features, rows = math.prod(kernel_shape[:3]), kernel_shape[-1], math.prod(grad.shape[:3])
    columns, step = _tile(features, _COLUMNS), _tile(middle, _COLUMNS)
    parts = pl.cdiv(rows, _ROWS_OF_PART)
    pixels_at = functools.partial(_patches_at, images.shape, kernel_shape[0], before, grad.shape[1:3])

    def program(images_ref: Array, grad_ref: Array, output_ref: Array) -> None:
        place = pl.program_id(0) * step + jnp.arange(step)
        column = pl.program_id(1) * columns + jnp.arange(columns)
        part = pl.program_id(2)

        def add(tile: Array, total: Array) -> Array:
            row = part * _ROWS_OF_PART + tile * _MIDDLE + jnp.arange(_MIDDLE)
            at, is_inside = pixels_at(row, place)
            patches = triton.load(images_ref.at[at], mask=is_inside, other=0)
            return total + _dot(patches.T, _load_matrix(grad_ref, row, column, (rows, features)))

        zeros = jnp.zeros((step, columns), jnp.float32)
        total = jax.lax.fori_loop(0, pl.cdiv(min(rows, _ROWS_OF_PART), _MIDDLE), add, zeros)
        _store_matrix(output_ref, place, column, (middle, features), total, first=part * middle * features)

    grid = pl.cdiv(middle, step), pl.cdiv(features, columns), parts
    sums = _call(program, grid, parts * middle * features, jnp.float32, images, grad)
    return sums.reshape(parts, *kernel_shape).sum(0).astype(images.dtype)


def _tile(length: int, largest: int) -> int:
    """Returns a power of two for an axis: at least 16, which Triton's products need."""
    return min(largest, max(16, pl.next_power_of_2(length)))


def _patches_at(
    shape: tuple[int, ...],
    kernel_size: int,
    before: Pair,
    size: Pair,
    row: Int[Array, " M"],
    place: Int[Array, " J"],
) -> tuple[Int[Array, "M J"], Array]:
    """Returns where the matrix of patches lies in the flat images, and which of its elements are inside the images.

    Args:
        shape: of the images.
        kernel_size: of the convolution.
        before: zeros above and left.
        size: height and width of the output.
        row: output pixels, numbered over the batch.
        place: elements of a patch, in the order of a kernel: rows, columns, channels.
    """
    batch, height, width, channels = shape
    image, pixel = (row // math.prod(size))[:, None], (row % math.prod(size))[:, None]
    shift, channel = (place // channels)[None], (place % channels)[None]
    y = pixel // size[1] + shift // kernel_size - before[0]
    x = pixel % size[1] + shift % kernel_size - before[1]
    is_inside = (image < batch) & (shift < kernel_size**2) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return ((image * height + y) * width + x) * channels + channel, is_inside


def _load_matrix(ref: Array, row: Array, column: Array, shape: tuple[int, int]) -> Array:
    """Returns a tile of a matrix that lies flat in memory, with zeros outside."""
    is_inside = (row < shape[0])[:, None] & (column < shape[1])[None]
    return triton.load(ref.at[row[:, None] * shape[1] + column[None]], mask=is_inside, other=0)


def _store_matrix(
    ref: Array, row: Array, column: Array, shape: tuple[int, int], tile: Array, first: int | Array = 0
) -> None:
    is_inside = (row < shape[0])[:, None] & (column < shape[1])[None]
    at = first + row[:, None] * shape[1] + column[None]
    triton.store(ref.at[at], tile.astype(ref.dtype), mask=is_inside)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _call(program: object, grid: tuple[int, ...], length: int, dtype: jnp.dtype, *arrays: Array) -> Array:
    """Returns the flat output of a kernel over flat arrays; zeros if one is empty."""
    if not length or not all(array.size for array in arrays):
        return jnp.zeros(length, dtype)
    call = pl.pallas_call(
        program,
        out_shape=jax.ShapeDtypeStruct((length,), dtype),
        grid=grid,
        compiler_params=_PARAMS,
        interpret=jax.default_backend() == "cpu",
    )
    return call(*(array.reshape(-1) for array in arrays))
