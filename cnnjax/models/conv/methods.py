"""The methods to compute a convolution, and the choice of one by shape and backend."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from cnnjax.models.conv import block_patches, dense, kernels, patches, shifts, winograd
from cnnjax.models.conv.blocks import Blocks
from cnnjax.models.conv.windows import PLAIN, Window


class Method(NamedTuple):
    """A method that computes the matrix products of a convolution."""

    forward: Callable[..., Array | Blocks]
    kernel_grad: Callable[..., Array]  # of the transformed kernel
    transform: Callable[[Array], Array] = lambda kernel: kernel  # linear, of the kernel: once for all chunks
    from_blocks: bool = False  # whether the images are passed in blocks
    to_blocks: bool = False  # whether the output and its gradient are in blocks
    floats_per_pixel: Callable[[int, int, int], int] = lambda places, channels, features: 0  # temporary, forward pass
    loops: bool = False  # over stacked members; otherwise all members share one product
    fits: Callable[[int], bool] = lambda size: True  # whether kernels of this size are supported
    any_window: bool = False  # whether strides, dilation and rectangular kernels are supported
    forward_swapped: Callable[..., Array | Blocks] | None = None  # with C and F of the transformed kernel swapped
    image_grad: Callable[..., Array] | None = None  # None: the forward product with the turned kernel
    grad_floats_per_pixel: Callable[[int, int, int], int] | None = None  # None: as in the forward pass

    def transform_turned(self, kernel: Float[Array, "K K C F"]) -> Array:
        """Returns the transform of the kernel turned by 180 degrees, with channels and features swapped.

        They are not swapped for `forward_swapped`.
        """
        turned = kernel[::-1, ::-1]
        return self.transform(turned if self.forward_swapped else turned.swapaxes(2, 3))

    def supports(self, kernel_shape: tuple[int, ...], window: Window) -> bool:
        """Returns whether the method computes such a convolution."""
        is_plain = window == PLAIN and kernel_shape[0] == kernel_shape[1]
        return self.any_window or (is_plain and self.fits(kernel_shape[0]))


def _pallas_forward(*arguments: Any) -> Array:
    from cnnjax.models.conv import pallas  # not at the top: the import takes long

    return pallas.forward(*arguments)


def _pallas_kernel_grad(*arguments: Any) -> Array:
    from cnnjax.models.conv import pallas

    return pallas.kernel_grad(*arguments)


METHODS = {
    "block_patches": Method(
        *(block_patches.forward, block_patches.kernel_grad, block_patches.transform),
        to_blocks=True,
        floats_per_pixel=block_patches.floats_per_pixel,
        fits=lambda size: size % 2 == 1,
    ),
    "winograd": Method(
        *(winograd.forward, winograd.kernel_grad, winograd.transform),
        from_blocks=True,
        to_blocks=True,
        floats_per_pixel=lambda places, channels, features: 4 * (channels + features),
        fits=lambda size: size == 3,
        forward_swapped=functools.partial(winograd.forward, swapped=True),
    ),
    "patches": Method(
        *(patches.forward, patches.kernel_grad),
        floats_per_pixel=lambda places, channels, features: places * channels,
        any_window=True,
    ),
    "dense": Method(dense.forward, dense.kernel_grad, image_grad=dense.image_grad, any_window=True, loops=True),
}
METHODS["pallas"] = Method(_pallas_forward, _pallas_kernel_grad)  # `choose` never takes it: no GPU has measured it
METHODS["grouped"] = METHODS["dense"]._replace(loops=False)  # `vmap` over members makes it a grouped convolution
METHODS["kernels"] = Method(
    *(kernels.forward, kernels.kernel_grad), fits=lambda size: size == 3, image_grad=kernels.image_grad, loops=True
)
# The forward pass is that of patches, which write the output fewer times than a sum over shifts.
METHODS["shifts"] = METHODS["patches"]._replace(
    kernel_grad=shifts.kernel_grad,
    image_grad=shifts.image_grad,
    grad_floats_per_pixel=lambda places, channels, features: channels + features,
)

# The temporary arrays of a chunk of images fit in the cache. Each chunk reads the kernel again, or adds to its
# gradient, so a large kernel needs larger chunks (measured on CPU for every layer of the ladder).
_CHUNK_BYTES = 2_750_000


def resolve(wanted: str, kernel_shape: tuple[int, ...], window: Window = PLAIN, dtype: Any = np.float32) -> str:
    """Returns the wanted method; `auto` for our own kernels in C where they do not fit."""
    is_unfit = wanted == "kernels" and not kernels.fits(kernel_shape, window, dtype)
    return "auto" if is_unfit else wanted


def choose(kernel_shape: tuple[int, ...], pixels: int, wanted: str = "auto", window: Window = PLAIN) -> str:
    """Returns the name of the method for a kernel [K, L, C, F] and `pixels` output pixels per image.

    `wanted`, a name in METHODS, is returned if it supports the convolution. Otherwise the choice follows the
    measurements of `python -m experiments.benchmarks.convolutions`.

    Patches of few channels are small enough for a whole batch of all members. Blocks are faster, except on a CPU with
    many features: there the arithmetic dominates, and blocks need more of it. With more channels Winograd's method is
    the fastest on a CPU for every layer of the ladder. It takes twice as long to compile, which does not pay off for
    small layers of small images. Other kernels with many channels compute their gradients without patches.

    A GPU computes the products of all members at once, over patches. For large patches its own convolutions, one member
    after another, are faster. The threshold was measured for few networks only.
    """
    *_, channels, features = kernel_shape

    def supports(name: str) -> bool:
        return METHODS[name].supports(kernel_shape, window)

    if wanted != "auto" and supports(wanted):
        return wanted
    is_cpu = jax.default_backend() == "cpu"
    if channels <= 4 and supports("block_patches") and not (is_cpu and features >= 48):
        return "block_patches"
    if not is_cpu:
        return "patches" if min(channels, features) <= 32 else "dense"
    if pixels * channels > 4096 and supports("winograd"):
        return "winograd"
    return "shifts" if channels >= 16 else "patches"


def chunk_count(
    method: Method, kernel_shape: tuple[int, ...], batch: int, pixels: int, *, backwards: bool = False
) -> int:
    """Returns the number of equal chunks of a batch: the divisor of `batch` that fits the cache best."""
    rows, columns, channels, features = kernel_shape
    floats_per_pixel = (backwards and method.grad_floats_per_pixel) or method.floats_per_pixel
    bytes_per_image = 4 * pixels * floats_per_pixel(rows * columns, channels, features)
    if not bytes_per_image or jax.default_backend() != "cpu":
        return 1
    kernel_bytes = 4 * jax.eval_shape(method.transform, jax.ShapeDtypeStruct(kernel_shape, np.float32)).size
    wanted = max(1, batch * bytes_per_image / (_CHUNK_BYTES + kernel_bytes))
    divisors = (count for count in range(1, batch + 1) if batch % count == 0)
    return min(divisors, key=lambda count: max(count / wanted, wanted / count))
