"""The gradients of a convolution as sums of products, one for each shift of the images under the kernel.

A pixel of the kernel is a matrix [C, F], and a convolution the sum of K * K products with it, of shifted images
("kn2row", Vasudevan et al. 2017). Of channels enough to fill a product the gradients need no patches so. That of the
images costs what the output did; as a correlation with the turned kernel it would cost as much for every pixel of the
images, and between valid padding they are larger than the output.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to


def image_gradient(
    gradient: Float[Array, "N P Q F"], kernel: Float[Array, "K K C F"], before: Pair, size: Pair
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of `size`, with `before` zeros above and left, from that of the output."""
    (batch, rows, columns, features), (kernel_size, _, channels, _) = gradient.shape, kernel.shape
    pixels, shifts_SxCxF = gradient.reshape(-1, features), kernel.reshape(-1, channels, features)
    exact = jnp.promote_types(gradient.dtype, jnp.float32)  # a sum, which half a precision would round K * K times

    def add_product(shift: Array, padded: Array) -> Array:
        at = (0, shift // kernel_size, shift % kernel_size, 0)
        product = jnp.matmul(pixels, shifts_SxCxF[shift].T, preferred_element_type=exact)
        product = product.reshape(batch, rows, columns, channels)
        return lax.dynamic_update_slice(padded, lax.dynamic_slice(padded, at, product.shape) + product, at)

    padded = jnp.zeros((batch, rows + kernel_size - 1, columns + kernel_size - 1, channels), exact)
    padded = lax.fori_loop(0, kernel_size**2, add_product, padded)
    return pad_to(padded, (-before[0], -before[1]), size).astype(gradient.dtype)


def kernel_gradient(
    images: Float[Array, "N H W C"], gradient: Float[Array, "N P Q F"], before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "K K C F"]:
    """Returns the gradient of a kernel from that of the output."""
    (batch, rows, columns, features), kernel_size = gradient.shape, kernel_shape[0]
    padded = pad_to(images, before, (rows + kernel_size - 1, columns + kernel_size - 1))

    def product(shift: Array) -> Array:
        at = (0, shift // kernel_size, shift % kernel_size, 0)
        shifted = lax.dynamic_slice(padded, at, (batch, rows, columns, images.shape[-1]))
        return shifted.reshape(-1, images.shape[-1]).T @ gradient.reshape(-1, features)

    return lax.map(product, jnp.arange(kernel_size**2)).reshape(kernel_shape)
