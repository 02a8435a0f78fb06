"""The backend's own convolution, one member at a time: on a GPU, cuDNN's."""

from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to
from cnnjax.models.conv.windows import PLAIN, Window, spread


def forward(
    images: Float[Array, "N H W C"], kernel: Float[Array, "K L C F"], before: Pair, size: Pair, window: Window = PLAIN
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    padded = pad_to(images, before, window.read(size, kernel.shape[:2]))
    return lax.conv_general_dilated(
        *(padded, kernel, window.strides, "VALID"),
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def image_grad(
    grad: Float[Array, "N P Q F"], kernel: Float[Array, "K L C F"], before: Pair, size: Pair, window: Window = PLAIN
) -> Float[Array, "N H W C"]:
    """Returns the gradient of images of `size`, with `before` zeros above and left, from that of the output."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    around, full = window.around(kernel.shape[:2], before), Window(dilation=window.dilation)
    return forward(spread(grad, window.strides), turned, around, size, full)


def kernel_grad(
    images: Float[Array, "N H W C"],
    grad: Float[Array, "N P Q F"],
    before: Pair,
    kernel_shape: tuple[int, ...],
    window: Window = PLAIN,
) -> Float[Array, "K L C F"]:
    """Returns the gradient of a kernel from the gradient of the output."""
    padded = pad_to(images, before, window.read(grad.shape[1:3], kernel_shape[:2]))
    return lax.conv_general_dilated(
        *(padded, grad, window.dilation, "VALID"),
        rhs_dilation=window.strides,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )
