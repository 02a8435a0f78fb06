"""2-D convolution and pooling that are fast inside a scan and over a population. Pure jax.

XLA's CPU backend runs a convolution gradient inside a loop on a naive path, about 80 times slower than outside it
(jax issue 12868), and `vmap` over kernels becomes a grouped convolution, slow on CPU and GPU. So the three products
of a convolution (output, input gradient, kernel gradient) are written here as matrix products, in chunks of a batch
that stay in the cache, with a batching rule for members that never groups. The gradients are written by hand.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import NO_WINNER, Blocks, join, largest, largest_positive, split, to_winner
from cnnjax.models.conv.products import as_blocks, as_images, correlate, image_gradient, kernel_gradient

Padding = tuple[tuple[int, int], tuple[int, int]]


def same_padding(kernel_size: int) -> Padding:
    """Returns the zero padding that keeps height and width; an even kernel gets the extra row after."""
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
        method: how, a name in `methods.METHODS`, for sizes of kernels that it can do; 'auto' takes the fastest.

    Returns:
        Float[N, H + above + below - K + 1, W + left + right - K + 1, F].
    """
    rows, columns = _output_size(images_NxHxWxC, kernel_KxKxCxF, padding)
    return correlate(
        *((images_NxHxWxC,), _unchanged, kernel_KxKxCxF),
        *(_before(padding), (rows, columns), method),
        lambda output: as_images(output)[:, :rows, :columns],
    )


def _convolve_forward(images: Array, kernel: Array, padding: Padding, method: str) -> tuple[Array, tuple[Array, Array]]:
    return convolve(images, kernel, padding, method), (images, kernel)


def _convolve_backward(
    padding: Padding, method: str, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    return _gradients(*saved, padding, method, (gradient,), _unchanged)


convolve.defvjp(_convolve_forward, _convolve_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve_and_pool(
    images_NxHxWxC: Float[Array, "N H W C"],
    kernel_KxKxCxF: Float[Array, "K K C F"],
    bias_F: Float[Array, " F"],
    padding: Padding,
    method: str = "auto",
) -> Float[Array, "N P Q F"]:
    """Returns max_pool(relu(convolve(images, kernel, padding) + bias)), but writes no step between to memory.

    Values and gradients are those of the three steps one by one: the ReLU is monotone and its derivative at 0 is 0.
    """
    return _convolve_and_pool_forward(images_NxHxWxC, kernel_KxKxCxF, bias_F, padding, method)[0]


def _convolve_and_pool_forward(
    images: Array, kernel: Array, bias: Array, padding: Padding, method: str
) -> tuple[Array, tuple]:
    rows, columns = _output_size(images, kernel, padding)
    pooled, winner = correlate(
        *((images,), _unchanged, kernel),
        *(_before(padding), (rows // 2 * 2, columns // 2 * 2), method),
        lambda output, bias: largest_positive(as_blocks(output), bias),
        bias,
    )
    return pooled, (images, kernel, winner)


def _convolve_and_pool_backward(
    padding: Padding, method: str, saved: tuple, gradient: Array
) -> tuple[Array, Array, Array]:
    images, kernel, winner = saved
    of_bias = jnp.where(winner == NO_WINNER, 0, gradient).sum((0, 1, 2))
    return *_gradients(images, kernel, padding, method, (gradient, winner), to_winner), of_bias


convolve_and_pool.defvjp(_convolve_and_pool_forward, _convolve_and_pool_backward)


def _gradients(
    images: Array,
    kernel: Array,
    padding: Padding,
    method: str,
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
) -> tuple[Array, Array]:
    """The gradients of images and kernel, where `expand` makes that of the output from chunks of `arrays`."""
    before = _before(padding)
    return (
        image_gradient(arrays, expand, kernel, before, images.shape[1:3], method),
        kernel_gradient(images, arrays, expand, kernel.shape, before, method),
    )


def _unchanged(images: Array) -> Array:
    return images


def _before(padding: Padding) -> tuple[int, int]:
    return padding[0][0], padding[1][0]


def _output_size(images: Array, kernel: Array, padding: Padding) -> tuple[int, int]:
    _, height, width, _ = images.shape
    return height + sum(padding[0]) - kernel.shape[0] + 1, width + sum(padding[1]) - kernel.shape[0] + 1


def max_pool(x_NxHxWxC: Float[Array, "N H W C"]) -> Float[Array, "N P Q C"]:
    """Maximum over 2x2 windows with stride 2; an odd last row or column is dropped.

    The gradient goes to the first maximum of a window in row order, as in PyTorch. XLA's reduce_window has a slow
    gradient on CPU (select and scatter).
    """
    _, height, width, _ = x_NxHxWxC.shape
    return _pool(x_NxHxWxC[:, : height // 2 * 2, : width // 2 * 2])


@jax.custom_vjp
def _pool(even: Array) -> Array:
    return largest(split(even))[0]


_pool.defvjp(lambda even: largest(split(even)), lambda winner, gradient: (join(to_winner(gradient, winner)),))
