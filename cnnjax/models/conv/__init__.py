"""2-D convolution and pooling that are fast inside a scan and over a population. Pure jax.

XLA's CPU backend computes the gradient of a convolution inside a loop about 80 times slower than outside a loop
(jax issue 12868). `vmap` over kernels becomes a grouped convolution, which is slow on CPU and GPU. This package
computes the three products of a convolution (output, gradient of the images, gradient of the kernel) as matrix
products, in chunks of a batch that fit in the cache. The gradients and the batching over members are explicit.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv import depthwise, kernels, pointwise, windows
from cnnjax.models.conv.blocks import (
    NO_WINNER,
    Blocks,
    Pair,
    as_layout,
    largest_positive,
    pad_to,
    to_winner,
)
from cnnjax.models.conv.methods import resolve
from cnnjax.models.conv.pooling import avg_pool as avg_pool
from cnnjax.models.conv.pooling import max_pool as max_pool
from cnnjax.models.conv.products import correlate, image_grad, kernel_grad
from cnnjax.models.conv.windows import PLAIN, Padding, Window

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def same_padding(kernel_size: int) -> Padding:
    """Returns the zero padding that keeps height and width; an even kernel gets the extra row below."""
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    return ((before, after), (before, after))


def convolve(
    images_NxHxWxC: Float[Array, "N H W C"],
    kernel_KxLxDxF: Float[Array, "K L D F"],
    padding: str | Sequence[tuple[int, int]] = "SAME",
    method: str = "auto",
    *,
    strides: Pair = (1, 1),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float[Array, "N P Q F"]:
    """Cross-correlates images with a kernel (what deep learning calls convolution).

    Values and gradients are those of `lax.conv_general_dilated`, up to rounding. Only reverse-mode differentiation
    (`jax.grad`, `jax.vjp`) is supported. Any transformation and any loop may be around it.

    Args:
        images_NxHxWxC: float images, channels last.
        kernel_KxLxDxF: kernel of any height K and width L, input channels D = C / groups, then output channels.
        padding: 'SAME', 'VALID', or zeros ((above, below), (left, right)); negative numbers crop.
        method: a name in `methods.METHODS`, or 'auto' for the fastest. A method that does not support the convolution
            is replaced by the fastest.
        strides: of the output, rows and columns.
        dilation: distance of the kernel's pixels, rows and columns.
        groups: number of groups of channels, each with kernels of its own; C for a depthwise convolution.

    Returns:
        Float[N, P, Q, F], where P is (H + above + below - (K - 1) * dilation - 1) // stride + 1, and Q alike.

    Raises:
        TypeError, ValueError: shapes and arguments do not fit, as `lax.conv_general_dilated` says.
    """
    images_NxHxWxC, kernel_KxLxDxF = jnp.asarray(images_NxHxWxC), jnp.asarray(kernel_KxLxDxF)
    window = Window((strides[0], strides[1]), (dilation[0], dilation[1]))
    plain = functools.partial(
        lax.conv_general_dilated,
        window_strides=window.strides,
        padding=padding,
        rhs_dilation=window.dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )
    _, *size, features = jax.eval_shape(plain, images_NxHxWxC, kernel_KxLxDxF).shape  # raises for invalid arguments
    batch, *image_size, channels = images_NxHxWxC.shape
    extents = window.read((1, 1), kernel_KxLxDxF.shape[:2])
    before = _before(windows.explicit_padding(padding, image_size, extents, window.strides))
    size = size[0], size[1]
    if not all(0 <= front < length for front, length in zip(before, kernel_KxLxDxF.shape[:2], strict=True)):
        # The methods know up to K - 1 zeros.
        images_NxHxWxC = pad_to(images_NxHxWxC, before, window.read(size, kernel_KxLxDxF.shape[:2]))
        before, image_size = (0, 0), [*images_NxHxWxC.shape[1:3]]

    if channels == groups and groups > 1:
        images = jnp.repeat(images_NxHxWxC, features // channels, -1) if features > channels else images_NxHxWxC
        return depthwise.convolve(images, kernel_KxLxDxF, before, size, window)
    one_group = functools.partial(_convolve_group, before=before, size=size, window=window, method=method)
    if groups == 1:
        return one_group(images_NxHxWxC, kernel_KxLxDxF)
    images = images_NxHxWxC.reshape(batch, *image_size, groups, channels // groups)
    kernels = kernel_KxLxDxF.reshape(*kernel_KxLxDxF.shape[:3], groups, features // groups)
    return jax.vmap(one_group, 3, 3)(images, kernels).reshape(batch, *size, features)


def _convolve_group(images: Array, kernel: Array, before: Pair, size: Pair, window: Window, method: str) -> Array:
    """Returns `size` output pixels of a convolution without groups."""
    method = resolve(method, kernel.shape, window, images.dtype)
    if method == "auto" and pointwise.fits(kernel.shape, window):
        return pointwise.convolve(images, kernel, before, size, window)
    if method == "auto" and jax.default_backend() == "cpu":
        if window.strides == (1, 1) and window.dilation != (1, 1):
            # The pixels that a dilated kernel meets are images of their own.
            plain = functools.partial(_convolve, before=(0, 0), window=PLAIN, method=method)
            return windows.by_dilation(plain, images, kernel, before, size, window.dilation)
        if window.strides != (1, 1) and window.dilation == (1, 1) and kernel.shape[2] < 16:
            # Patches of blocks: fewer and longer copies.
            between = windows.between_blocks(kernel, window.strides)
            phases = windows.to_phases(images, before, size, kernel.shape[:2], window)
            return _convolve(phases, between, (0, 0), size, PLAIN, method)
    return _convolve(images, kernel, before, size, window, method)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _convolve(images: Array, kernel: Array, before: Pair, size: Pair, window: Window, method: str) -> Array:
    rows, columns = size
    return correlate(
        *((images,), _identity, kernel, before, size, method),
        lambda output: as_layout(output, in_blocks=False)[:, :rows, :columns],
        window=window,
    )


_convolve.defvjp(
    lambda images, kernel, *static: (_convolve(images, kernel, *static), (images, kernel)),
    lambda before, size, window, method, saved, grad: _grads(before, window, method, (grad,), _identity, *saved),
)


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
    arrays = (jnp.asarray(array) for array in (images_NxHxWxC, kernel_KxKxCxF, bias_F))
    return _convolve_and_pool(*arrays, padding, method)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _convolve_and_pool(images: Array, kernel: Array, bias: Array, padding: Padding, method: str) -> Array:
    return _convolve_and_pool_forward(images, kernel, bias, padding, method)[0]


def _convolve_and_pool_forward(
    images: Array, kernel: Array, bias: Array, padding: Padding, method: str
) -> tuple[Array, tuple]:
    rows, columns = _output_size(images, kernel, padding)
    before, even = _before(padding), (rows // 2 * 2, columns // 2 * 2)
    method = resolve(method, kernel.shape, dtype=images.dtype)
    if method == "kernels":
        pooled, winner = kernels.forward_and_pool(images, kernel, bias, before, even)
        return pooled, (images, kernel, winner)
    pooled, winner = correlate(
        *((images,), _identity, kernel),
        *(before, even, method),
        lambda output, bias: largest_positive(as_layout(output, in_blocks=True), bias),
        bias,
    )
    return pooled, (images, kernel, winner)


def _convolve_and_pool_backward(padding: Padding, method: str, saved: tuple, grad: Array) -> tuple[Array, Array, Array]:
    images, kernel, winner = saved
    before, method = _before(padding), resolve(method, kernel.shape, dtype=images.dtype)
    bias_grad = jnp.where(winner == NO_WINNER, 0, grad).sum((0, 1, 2))
    if method == "kernels":
        images_grad = kernels.image_grad(grad, kernel, before, images.shape[1:3], winner)
        return images_grad, kernels.kernel_grad(images, grad, before, kernel.shape, winner), bias_grad
    grads = _grads(before, PLAIN, method, (grad, winner), to_winner, images, kernel)
    return *grads, bias_grad


_convolve_and_pool.defvjp(_convolve_and_pool_forward, _convolve_and_pool_backward)


def _grads(
    before: Pair,
    window: Window,
    method: str,
    arrays: tuple[Array, ...],
    expand: Callable[..., Array | Blocks],
    images: Array,
    kernel: Array,
) -> tuple[Array, Array]:
    """Returns the gradients of images and kernel; `expand` computes the gradient of the output from `arrays`."""
    return (
        image_grad(arrays, expand, kernel, before, images.shape[1:3], method, window),
        kernel_grad(images, arrays, expand, kernel.shape, before, method, window),
    )


def _identity(images: Array) -> Array:
    return images


def _before(padding: Padding) -> Pair:
    return padding[0][0], padding[1][0]


def _output_size(images: Array, kernel: Array, padding: Padding) -> Pair:
    _, height, width, _ = images.shape
    return height + sum(padding[0]) - kernel.shape[0] + 1, width + sum(padding[1]) - kernel.shape[0] + 1
