"""The gradients of a convolution as sums of matrix products, one for each shift of the images under the kernel.

A pixel of the kernel is a matrix [C, F]. A convolution is the sum of K * L products of such matrices with shifted
images ("kn2row", Vasudevan et al. 2017). With enough channels for efficient products, the gradients need no patches.
The gradient of the images costs as much as the forward pass. As a correlation with the turned kernel it would cost
more with valid padding, because the images have more pixels than the output.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair
from cnnjax.models.conv.windows import PLAIN, Window, from_phases, to_phases


def image_grad(
    grad: Float[Array, "N P Q F"],
    kernel: Float[Array, "K L C F"],
    before: Pair,
    size: Pair,
    window: Window = PLAIN,
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of `size`, with `before` zeros above and left, from that of the output."""
    (batch, *output, features), (*kernel_size, channels, _) = grad.shape, kernel.shape
    pixels, shifts_SxCxF = grad.reshape(-1, features), kernel.reshape(-1, channels, features)
    exact = jnp.promote_types(grad.dtype, jnp.float32)  # a sum in bfloat16 would be rounded K * L times

    def add_product(shift: Array, phases: Array) -> Array:
        at = window.start(shift, kernel_size[1], channels)
        product = jnp.matmul(pixels, shifts_SxCxF[shift].T, preferred_element_type=exact)
        product = product.reshape(batch, *output, channels)
        return lax.dynamic_update_slice(phases, lax.dynamic_slice(phases, at, product.shape) + product, at)

    rows, columns = window.phases(output, kernel_size)
    phases = jnp.zeros((batch, rows, columns, math.prod(window.strides) * channels), exact)
    phases = lax.fori_loop(0, math.prod(kernel_size), add_product, phases)
    return from_phases(phases, before, size, window).astype(grad.dtype)


def kernel_grad(
    images: Float[Array, "N H W C"],
    grad: Float[Array, "N P Q F"],
    before: Pair,
    kernel_shape: tuple[int, ...],
    window: Window = PLAIN,
) -> Float[Array, "K L C F"]:
    """Returns the gradient of a kernel from the gradient of the output."""
    (batch, *output, features), (*kernel_size, channels, _) = grad.shape, kernel_shape
    phases = to_phases(images, before, output, kernel_size, window)

    def product(shift: Array) -> Array:
        at = window.start(shift, kernel_size[1], channels)
        shifted = lax.dynamic_slice(phases, at, (batch, *output, channels))
        return shifted.reshape(-1, channels).T @ grad.reshape(-1, features)

    return lax.map(product, jnp.arange(math.prod(kernel_size))).reshape(kernel_shape)
