"""3x3 convolution by Winograd's F(2x2, 3x3): 16 products where a direct convolution needs 36.

An output block of 2x2 pixels depends on the 4x4 input pixels around it. Small fixed matrices (B, G and A of Lavin &
Gray 2016, section 4.1) transform the input, the kernel and the output. Between these transforms there is one matrix
product over channels for each of 16 places. In float32 the rounding errors are those of a direct convolution.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Blocks, Pair, pad_to


def transform(kernel: Float[Array, "3 3 C F"]) -> Float[Array, "16 C F"]:
    """Returns G k G^T, a matrix [C, F] for each place."""
    columns = [_of_kernel(*kernel[:, x]) for x in range(3)]
    return jnp.stack([pixel for u in range(4) for pixel in _of_kernel(*(columns[x][u] for x in range(3)))])


def forward(
    images: Blocks, kernel: Float[Array, "16 C F"], before: Pair, size: Pair, *, swapped: bool = False
) -> Blocks:
    """Returns `size` output blocks of images in blocks, with `before` zeros above and left.

    If `swapped`, F are the channels of the images and C those of the output. The products read the matrices transposed:
    a transposed copy of 512 times 512 channels takes half as long as the products with it.
    """
    windows = _transform_windows(images, before, size)
    matrices = [matrix.T if swapped else matrix for matrix in kernel]
    channels, features = matrices[0].shape
    products = [window.reshape(-1, channels) @ matrix for window, matrix in zip(windows, matrices, strict=True)]
    columns = [_of_output(*products[v::4]) for v in range(4)]
    top, low = (_of_output(*(columns[v][y] for v in range(4))) for y in (0, 1))
    top_left, top_right, low_left, low_right = (pixels.reshape(-1, *size, features) for pixels in (*top, *low))
    return top_left, top_right, low_left, low_right


def kernel_grad(images: Blocks, grad: Blocks, before: Pair, kernel_shape: tuple[int, ...]) -> Float[Array, "16 C F"]:
    """Returns the gradient of the transformed kernel from the gradient of the output blocks."""
    _, channels, features = kernel_shape
    windows = _transform_windows(images, before, grad[0].shape[1:3])
    columns = [_of_output_transposed(grad[x], grad[2 + x]) for x in (0, 1)]
    places = [pixel for u in range(4) for pixel in _of_output_transposed(columns[0][u], columns[1][u])]
    pairs = zip(windows, places, strict=True)
    return jnp.stack([window.reshape(-1, channels).T @ place.reshape(-1, features) for window, place in pairs])


def _transform_windows(images: Blocks, before: Pair, size: Pair) -> list[Array]:
    """Returns B^T d B for the 4x4 windows d around every output block, by place in the window."""
    height, width = size
    padded = [pad_to(pixels, (1, 1), size, 3) for pixels in images]

    def pixel(row: int, column: int) -> Array:
        # The block that holds the window's pixel, and the pixel's place in the block.
        (y, i), (x, j) = divmod(row - before[0], 2), divmod(column - before[1], 2)
        return padded[2 * i + j][:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    columns = [_of_window(*(pixel(row, column) for row in range(4))) for column in range(4)]
    return [place for u in range(4) for place in _of_window(*(columns[x][u] for x in range(4)))]


def _of_kernel(a: Array, b: Array, c: Array) -> tuple[Array, Array, Array, Array]:
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _of_window(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    return a - c, b + c, c - b, b - d


def _of_output(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    return a + b + c, b - c - d


def _of_output_transposed(a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    return a, a + b, a - b, -b
