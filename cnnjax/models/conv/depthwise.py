"""Depthwise convolution, a kernel for each channel: the sum of shifted images times a weight per channel."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to
from cnnjax.models.conv.windows import Window, spread


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(
    images: Float[Array, "N H W C"], kernel: Float[Array, "K L 1 C"], before: Pair, size: Pair, window: Window
) -> Float[Array, "N P Q C"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    weights = kernel.reshape(-1, kernel.shape[-1])
    slices = window.slices(_pad(images, kernel.shape, before, size, window), kernel.shape[:2], size)
    first, *others = (pixels * weight for pixels, weight in zip(slices, weights, strict=True))
    return sum(others, start=first)


def _backward(before: Pair, size: Pair, window: Window, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    images, kernel = saved
    _, height, width, _ = images.shape
    full = Window(dilation=window.dilation)
    images_grad = convolve(
        *(spread(grad, window.strides), kernel[::-1, ::-1]),
        *(window.around(kernel.shape[:2], before), (height, width), full),
    )
    slices = window.slices(_pad(images, kernel.shape, before, size, window), kernel.shape[:2], size)
    return images_grad, jnp.stack([(pixels * grad).sum((0, 1, 2)) for pixels in slices]).reshape(kernel.shape)


convolve.defvjp(
    lambda images, kernel, before, size, window: (convolve(images, kernel, before, size, window), (images, kernel)),
    _backward,
)


def _pad(images: Array, kernel_shape: tuple[int, ...], before: Pair, size: Pair, window: Window) -> Array:
    # Without the barrier XLA would pad again for every slice.
    return lax.optimization_barrier(pad_to(images, before, window.read(size, kernel_shape[:2])))
