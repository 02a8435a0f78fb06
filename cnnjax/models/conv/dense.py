"""The backend's own convolution, one member at a time: on a GPU, cuDNN's."""

from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to


def forward(
    images: Float[Array, "N H W C"], kernel: Float[Array, "K K C F"], before: Pair, size: Pair
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    padded = pad_to(images, before, size, kernel.shape[0])
    return lax.conv_general_dilated(padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def kernel_grad(
    images: Float[Array, "N H W C"], grad: Float[Array, "N P Q F"], before: Pair, kernel_shape: tuple[int, ...]
) -> Float[Array, "K K C F"]:
    """Returns the gradient of a kernel from the gradient of the output."""
    padded = pad_to(images, before, grad.shape[1:3], kernel_shape[0])
    return lax.conv_general_dilated(padded, grad, (1, 1), "VALID", dimension_numbers=("CHWN", "IHWO", "HWNC"))
