"""How a kernel moves over images: by strides, with its pixels dilated.

Images are stored by phase: the pixels of a block of the size of the strides are channels. The pixels under one place
of the kernel, for all output pixels, are then a slice without strides.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair, pad_to

Padding = tuple[tuple[int, int], tuple[int, int]]


class Window(NamedTuple):
    """Strides of the output and dilation of the kernel, each of rows and columns."""

    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)

    def read(self, size: Sequence[int], kernel_size: Sequence[int]) -> Pair:
        """Returns the height and width of the images that `size` output pixels read."""
        sizes = zip(size, kernel_size, *self, strict=True)
        rows, columns = ((n - 1) * stride + (kernel - 1) * dilation + 1 for n, kernel, stride, dilation in sizes)
        return rows, columns

    def slices(
        self, padded: Float[Array, "N H W C"], kernel_size: Sequence[int], size: Pair
    ) -> Iterator[Float[Array, "N P Q C"]]:
        """Yields the pixels under each place of the kernel for `size` output pixels."""
        (height, width), (down, right), (dilate_rows, dilate_columns) = size, *self
        for row, column in itertools.product(*map(range, kernel_size)):
            top, left = row * dilate_rows, column * dilate_columns
            yield padded[:, top : top + (height - 1) * down + 1 : down, left : left + (width - 1) * right + 1 : right]

    def around(self, kernel_size: Sequence[int], before: Pair) -> Pair:
        """Returns the zeros above and left of the spread gradient of the output, for the gradient of the images.

        That gradient is the correlation of the spread gradient with the kernel, turned by 180 degrees, without strides.
        """
        rows, columns = self.read((1, 1), kernel_size)
        return rows - 1 - before[0], columns - 1 - before[1]

    def phases(self, size: Sequence[int], kernel_size: Sequence[int]) -> Pair:
        """Returns the height and width of the phases that `size` output pixels read."""
        sizes = zip(size, kernel_size, *self, strict=True)
        rows, columns = (n + (kernel - 1) * dilation // stride for n, kernel, stride, dilation in sizes)
        return rows, columns

    def start(self, place: int | Array, kernel_width: int, channels: int) -> tuple[int | Array, ...]:
        """Returns where the slice [N, P, Q, C] of the phases under a place of the kernel begins."""
        (rows, columns), (down, right) = self.strides, self.dilation
        row, column = place // kernel_width * down, place % kernel_width * right
        if self.strides == (1, 1):
            return 0, row, column, 0
        return 0, row // rows, column // columns, (row % rows * columns + column % columns) * channels


PLAIN = Window()


def explicit_padding(
    padding: str | Sequence[tuple[int, int]], image_size: Sequence[int], extents: Sequence[int], strides: Pair
) -> Padding:
    """Returns the padding of rows and columns as numbers; `extents` are the height and width of the dilated kernel."""
    pairs = lax.padtype_to_pads(image_size, extents, strides, padding) if isinstance(padding, str) else padding
    (above, below), (left, right) = pairs
    return (above, below), (left, right)


def spread(grad: Float[Array, "N P Q F"], strides: Pair) -> Float[Array, "N H W F"]:
    """Returns the gradient of the output with zeros between its pixels, as many as the strides skip."""
    between = [(0, 0, stride - 1) for stride in strides]
    return lax.pad(grad, jnp.zeros((), grad.dtype), ((0, 0, 0), *between, (0, 0, 0)))


def to_phases(
    images: Float[Array, "N H W C"], before: Pair, size: Sequence[int], kernel_size: Sequence[int], window: Window
) -> Float[Array, "N R Q S*C"]:
    """Returns the phases of images with `before` zeros above and left, for `size` output pixels of a convolution."""
    (batch, _, _, channels), (rows, columns) = images.shape, window.phases(size, kernel_size)
    down, right = window.strides
    padded = pad_to(images, before, (rows * down, columns * right))
    if window.strides == (1, 1):
        return padded
    blocks = padded.reshape(batch, rows, down, columns, right, channels).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, rows, columns, down * right * channels)


def from_phases(phases: Float[Array, "N R Q S*C"], before: Pair, size: Pair, window: Window) -> Float[Array, "N H W C"]:
    """Returns images of `size` from their phases: the inverse of `to_phases`, with zeros for pixels not in a phase."""
    (batch, rows, columns, channels), (down, right) = phases.shape, window.strides
    if window.strides != (1, 1):
        blocks = phases.reshape(batch, rows, columns, down, right, channels // (down * right))
        phases = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * down, columns * right, -1)
    return pad_to(phases, (-before[0], -before[1]), size)


def between_blocks(kernel: Float[Array, "K L C F"], strides: Pair) -> Float[Array, "R S T*C F"]:
    """Returns the kernel between the phases of images and the output; it has no strides."""
    (rows, columns, channels, features), (down, right) = kernel.shape, strides
    padded = jnp.pad(kernel, ((0, -rows % down), (0, -columns % right), (0, 0), (0, 0)))
    blocks = padded.reshape(-(-rows // down), down, -(-columns // right), right, channels, features)
    return blocks.transpose(0, 2, 1, 3, 4, 5).reshape(*blocks.shape[:3:2], down * right * channels, features)


def by_dilation(
    convolve: Callable[..., Array],
    images: Float[Array, "N H W C"],
    kernel: Float[Array, "K L C F"],
    before: Pair,
    size: Pair,
    dilation: Pair,
) -> Float[Array, "N P Q F"]:
    """Returns a dilated convolution: without dilation, of the images of every `dilation`-th row and column.

    Args:
        convolve: computes `size` output pixels from images without padding, and the kernel.
        images: the images.
        kernel: the kernel.
        before: zeros above and left of the images.
        size: height and width of the output.
        dilation: of rows and columns.
    """
    (batch, _, _, channels), (down, right) = images.shape, dilation
    height, width = -(-size[0] // down), -(-size[1] // right)
    rows, columns = height + kernel.shape[0] - 1, width + kernel.shape[1] - 1
    padded = pad_to(images, before, (rows * down, columns * right))
    parts = padded.reshape(batch, rows, down, columns, right, channels).transpose(0, 2, 4, 1, 3, 5)
    output = convolve(parts.reshape(-1, rows, columns, channels), kernel, size=(height, width))
    wholes = output.reshape(batch, down, right, height, width, -1).transpose(0, 3, 1, 4, 2, 5)
    return wholes.reshape(batch, height * down, width * right, -1)[:, : size[0], : size[1]]
