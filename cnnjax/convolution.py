"""2-D convolution that is fast inside a scan and over a population. Pure jax.

XLA's CPU backend runs a convolution gradient inside a loop on a naive path, about 80 times slower than outside it
(jax issue 12868), and `vmap` over kernels becomes a grouped convolution, slow on CPU and GPU. So the three products
of a convolution (output, input gradient, kernel gradient) are written here, each as matrix products over patches,
with a batching rule for members that never groups.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]

# Patches of this many bytes are made and multiplied at a time, so that they are still in the cache when they are read
# (measured on CPU: 2 to 5 MB is best for every layer of the ladder; whole batches of small patches cost nothing).
_CHUNK_BYTES = 5 << 20
_WHOLE_BATCH_CHANNELS = 4  # first layers: patches are so small that one product over the batch is fastest


def same_padding(kernel_size: int) -> Padding:
    """Returns the zero padding that keeps height and width; an even kernel gets the extra row after."""
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    return ((before, after), (before, after))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    images_NxHxWxC: Float[Array, "N H W C"],
    kernel_KxKxCxF: Float[Array, "K K C F"],
    padding: Padding,
) -> Float[Array, "N P Q F"]:
    """Cross-correlates images with a kernel (what deep learning calls convolution), stride 1.

    Args:
        images_NxHxWxC: float images, channels last.
        kernel_KxKxCxF: square kernel, input then output channels.
        padding: zeros ((above, below), (left, right)).

    Returns:
        Float[N, H + above + below - K + 1, W + left + right - K + 1, F].
    """
    return _product(images_NxHxWxC, kernel_KxKxCxF, padding)


def _forward(images: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return convolve(images, kernel, padding), (images, kernel)


def _backward(padding: Padding, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    images, kernel = saved
    last = kernel.shape[0] - 1
    # The input gradient is the full convolution of the output gradient with the kernel turned by 180 degrees.
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    (top, bottom), (left, right) = padding
    input_gradient = _product(gradient, turned, ((last - top, last - bottom), (last - left, last - right)))
    return input_gradient, _kernel_gradient(images, gradient, padding)


convolve.defvjp(_forward, _backward)


def _over_members(product: Callable[[Array, Array], Array], first: Array, second: Array, *, small: bool) -> Array:
    """Calls `product`; under vmap, one member after another unless the patches are small.

    One dense product already fills the cores (and one dense cuDNN convolution the GPU): a loop over members keeps
    patches in the cache and needs one member's memory.
    """
    if small:
        return product(first, second)
    return jax.custom_batching.sequential_vmap(product)(first, second)


def _product(images: Array, kernel: Array, padding: Padding) -> Array:
    size, channels = kernel.shape[0], kernel.shape[2]
    small = channels <= _WHOLE_BATCH_CHANNELS

    def product(images: Array, kernel: Array) -> Array:
        if _dense_convolutions() and not small:
            return lax.conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        matrix = kernel.reshape(-1, kernel.shape[-1])

        def one_chunk(chunk: Array) -> Array:
            return _patches(chunk, size, padding) @ matrix

        count = _chunk_count(images, size, padding, whole=small)
        if count == 1:
            return one_chunk(images)
        outputs = lax.map(one_chunk, images.reshape(count, -1, *images.shape[1:]))
        return outputs.reshape(-1, *outputs.shape[2:])

    return _over_members(product, images, kernel, small=small)


def _kernel_gradient(images: Array, gradient: Array, padding: Padding) -> Array:
    channels, features = images.shape[-1], gradient.shape[-1]
    size = images.shape[1] + sum(padding[0]) - gradient.shape[1] + 1
    small = channels <= _WHOLE_BATCH_CHANNELS

    def product(images: Array, gradient: Array) -> Array:
        if _dense_convolutions() and not small:
            return lax.conv_general_dilated(
                images, gradient, (1, 1), padding, dimension_numbers=("CHWN", "IHWO", "HWNC")
            )

        def one_chunk(chunk: Array, gradient: Array) -> Array:
            patches = _patches(chunk, size, padding).reshape(-1, size * size * channels)
            return patches.T @ gradient.reshape(-1, features)

        count = _chunk_count(images, size, padding, whole=small)
        if count == 1:
            total = one_chunk(images, gradient)
        else:
            chunks = tuple(array.reshape(count, -1, *array.shape[1:]) for array in (images, gradient))
            zeros = jnp.zeros((size * size * channels, features), images.dtype)
            total, _ = lax.scan(lambda total, chunk: (total + one_chunk(*chunk), None), zeros, chunks)
        return total.reshape(size, size, channels, features)

    return _over_members(product, images, gradient, small=small)


def _patches(images: Array, size: int, padding: Padding) -> Array:
    """Returns [N, P, Q, size * size * C]: for each output pixel the pixels under the kernel, in kernel order."""
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    height, width = padded.shape[1] - size + 1, padded.shape[2] - size + 1
    shifted = [padded[:, y : y + height, x : x + width] for y in range(size) for x in range(size)]
    return jnp.concatenate(shifted, axis=-1)


def _chunk_count(images: Array, size: int, padding: Padding, *, whole: bool) -> int:
    """In how many equal chunks a batch is multiplied: the fewest whose patches fit the cache."""
    if whole:
        return 1
    batch, height, width, channels = images.shape
    height, width = height + sum(padding[0]) - size + 1, width + sum(padding[1]) - size + 1
    bytes_per_image = height * width * size * size * channels * images.dtype.itemsize
    return next(
        count
        for count in range(1, batch + 1)
        if batch % count == 0 and (count == batch or batch // count * bytes_per_image <= _CHUNK_BYTES)
    )


def _dense_convolutions() -> bool:
    """Whether the backend's own convolution is fast inside a loop: on a GPU it is, on a CPU it is not."""
    return jax.default_backend() != "cpu"
