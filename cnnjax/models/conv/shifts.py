"""The gradients of a convolution as sums of matrix products, one for each shift of the images under the kernel.

A pixel of the kernel is a matrix [C, F]. A convolution is the sum of K * K products of such matrices with shifted
images ("kn2row", Vasudevan et al. 2017). With enough channels for efficient products, the gradients need no patches.
The gradient of the images costs as much as the forward pass. As a correlation with the turned kernel it would cost
more with valid padding, because the images have more pixels than the output.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to


def image_grad(
    grad: Float[Array, "N P Q F"], kernel: Float[Array, "K K C F"], before: Pair, size: Pair
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of `size`, with `before` zeros above and left, from that of the output."""
    (batch, rows, columns, features), (kernel_size, _, channels, _) = grad.shape, kernel.shape
    pixels, shifts_SxCxF = grad.reshape(-1, features), kernel.reshape(-1, channels, features)
    exact = jnp.promote_types(grad.dtype, jnp.float32)  # a sum in bfloat16 would be rounded K * K times

    def add_product(shift: Array, padded: Array) -> Array:
        at = (0, shift // kernel_size, shift % kernel_size, 0)
        product = jnp.matmul(pixels, shifts_SxCxF[shift].T, preferred_element_type=exact)
        product = product.reshape(batch, rows, columns, channels)
        return lax.dynamic_update_slice(padded, lax.dynamic_slice(padded, at, product.shape) + product, at)

    padded = jnp.zeros((batch, rows + kernel_size - 1, columns + kernel_size - 1, channels), exact)
    padded = lax.fori_loop(0, kernel_size**2, add_product, padded)
    return pad_to(padded, (-before[0], -before[1]), size).astype(grad.dtype)


def kernel_grad(
    images: Float[Array, "N H W C"], grad: Float[Array, "N P Q F"], before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "K K C F"]:
    """Returns the gradient of a kernel from the gradient of the output."""
    (batch, rows, columns, features), kernel_size = grad.shape, kernel_shape[0]
    padded = pad_to(images, before, (rows, columns), kernel_size)

    def product(shift: Array) -> Array:
        at = (0, shift // kernel_size, shift % kernel_size, 0)
        shifted = lax.dynamic_slice(padded, at, (batch, rows, columns, images.shape[-1]))
        return shifted.reshape(-1, images.shape[-1]).T @ grad.reshape(-1, features)

    return lax.map(product, jnp.arange(kernel_size**2)).reshape(kernel_shape)
