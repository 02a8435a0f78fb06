"""Convolution whose windows do not overlap, as one matrix product: 1x1 kernels, and patches of vision transformers."""

import math

import jax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to
from cnnjax.models.conv.windows import Window


def fits(kernel_shape: tuple[int, ...], window: Window) -> bool:
    """Returns whether no pixel is under the kernel twice, and the kernel is not dilated."""
    sizes = zip(kernel_shape[:2], window.strides, window.dilation, strict=True)
    return all(kernel <= stride and (kernel == 1 or dilation == 1) for kernel, stride, dilation in sizes)


def convolve(
    images: Float[Array, "N H W C"], kernel: Float[Array, "K L C F"], before: Pair, size: Pair, window: Window
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    (batch, _, _, channels), (rows, columns, _, features) = images.shape, kernel.shape
    (height, width), (down, right) = size, window.strides
    padded = pad_to(images, before, (height * down, width * right))
    blocks = padded.reshape(batch, height, down, width, right, channels)[:, :, :rows, :, :columns]
    patches = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(-1, math.prod(kernel.shape[:3]))
    return _product(patches, kernel.reshape(-1, features)).reshape(batch, height, width, features)


@jax.custom_vjp
def _product(x: Float[Array, "M C"], kernel: Float[Array, "C F"]) -> Float[Array, "M F"]:
    return x @ kernel


_product.defvjp(
    lambda x, kernel: (_product(x, kernel), (x, kernel)),
    lambda saved, grad: (grad @ saved[1].T, saved[0].T @ grad),
)
