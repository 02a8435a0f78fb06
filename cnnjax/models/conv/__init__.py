"""2-D convolution and pooling that are fast inside a scan and over a population. Pure jax.

XLA's CPU backend computes the gradient of a convolution inside a loop about 80 times slower than outside a loop
(jax issue 12868). `vmap` over kernels becomes a grouped convolution, which is slow on CPU and GPU. This package
computes the three products of a convolution (output, gradient of the images, gradient of the kernel) as matrix
products, in chunks of a batch that fit in the cache. The gradients and the batching over members are explicit.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import (
    NO_WINNER,
    Blocks,
    Pair,
    as_layout,
    join,
    largest,
    largest_positive,
    split,
    to_winner,
)
from cnnjax.models.conv.products import correlate, image_grad, kernel_grad

Padding = tuple[tuple[int, int], tuple[int, int]]


def same_padding(kernel_size: int) -> Padding:
    """Returns the zero padding that keeps height and width; an even kernel gets the extra row below."""
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    return ((before, after), (before, after))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    images_NxHxWxC: Float[Array, "N H W C"],
    kernel_KxKxCxF: Float[Array, "K K C F"],
    padding: Padding,
    method: str = "auto",
) -> Float[Array, "N P Q F"]:
    """Cross-correlates images with a kernel (what deep learning calls convolution), stride 1.

    Args:
        images_NxHxWxC: float images, channels last.
        kernel_KxKxCxF: square kernel, input then output channels.
        padding: zeros ((above, below), (left, right)).
        method: a name in `methods.METHODS`, or 'auto' for the fastest. A method that does not support the kernel's
            size is replaced by the fastest.

    Returns:
        Float[N, H + above + below - K + 1, W + left + right - K + 1, F].
    """
    rows, columns = _output_size(images_NxHxWxC, kernel_KxKxCxF, padding)
    return correlate(
        *((images_NxHxWxC,), _identity, kernel_KxKxCxF),
        *(_before(padding), (rows, columns), method),
        lambda output: as_layout(output, in_blocks=False)[:, :rows, :columns],
    )


convolve.defvjp(
    lambda images, kernel, padding, method: (convolve(images, kernel, padding, method), (images, kernel)),
    lambda padding, method, saved, grad: _grads(padding, method, (grad,), _identity, *saved),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve_and_pool(
    images_NxHxWxC: Float[Array, "N H W C"],
    kernel_KxKxCxF: Float[Array, "K K C F"],
    bias_F: Float[Array, " F"],
    padding: Padding,
    method: str = "auto",
) -> Float[Array, "N P Q F"]:
    """Returns max_pool(relu(convolve(images, kernel, padding) + bias)) without writing the steps to memory.

    Values and gradients equal those of the separate steps: the ReLU is monotone, and its derivative at 0 is 0.
    """
    return _convolve_and_pool_forward(images_NxHxWxC, kernel_KxKxCxF, bias_F, padding, method)[0]


def _convolve_and_pool_forward(
    images: Array, kernel: Array, bias: Array, padding: Padding, method: str
) -> tuple[Array, tuple]:
    rows, columns = _output_size(images, kernel, padding)
    pooled, winner = correlate(
        *((images,), _identity, kernel),
        *(_before(padding), (rows // 2 * 2, columns // 2 * 2), method),
        lambda output, bias: largest_positive(as_layout(output, in_blocks=True), bias),
        bias,
    )
    return pooled, (images, kernel, winner)


def _convolve_and_pool_backward(padding: Padding, method: str, saved: tuple, grad: Array) -> tuple[Array, Array, Array]:
    images, kernel, winner = saved
    bias_grad = jnp.where(winner == NO_WINNER, 0, grad).sum((0, 1, 2))
    return *_grads(padding, method, (grad, winner), to_winner, images, kernel), bias_grad


convolve_and_pool.defvjp(_convolve_and_pool_forward, _convolve_and_pool_backward)


def _grads(
    padding: Padding,
    method: str,
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    images: Array,
    kernel: Array,
) -> tuple[Array, Array]:
    """Returns the gradients of images and kernel; `expand` computes the gradient of the output from `arrays`."""
    before = _before(padding)
    return (
        image_grad(arrays, expand, kernel, before, images.shape[1:3], method),
        kernel_grad(images, arrays, expand, kernel.shape, before, method),
    )


def _identity(images: Array) -> Array:
    return images


def _before(padding: Padding) -> Pair:
    return padding[0][0], padding[1][0]


def _output_size(images: Array, kernel: Array, padding: Padding) -> Pair:
    _, height, width, _ = images.shape
    return height + sum(padding[0]) - kernel.shape[0] + 1, width + sum(padding[1]) - kernel.shape[0] + 1


def max_pool(x_NxHxWxC: Float[Array, "N H W C"]) -> Float[Array, "N P Q C"]:
    """Returns the maximum over 2x2 windows with stride 2; an odd last row or column is dropped.

    The gradient goes to the first maximum of a window in row order, as in PyTorch. XLA's reduce_window has a slow
    gradient on CPU (select and scatter).
    """
    _, height, width, _ = x_NxHxWxC.shape
    return _pool(x_NxHxWxC[:, : height // 2 * 2, : width // 2 * 2])


@jax.custom_vjp
def _pool(even: Array) -> Array:
    return largest(split(even))[0]


_pool.defvjp(lambda even: largest(split(even)), lambda winner, grad: (join(to_winner(grad, winner)),))
