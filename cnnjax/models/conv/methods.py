"""Which way to compute a convolution, by its shape and the backend: the one place that chooses."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from cnnjax.models.conv import block_patches, dense, patches, shifts, winograd
from cnnjax.models.conv.blocks import Blocks


class Method(NamedTuple):
    """A way to compute the products of a convolution."""

    transform: Callable[[Array], Array]  # of the kernel, linear: done once for all chunks
    forward: Callable[..., Array | Blocks]
    kernel_gradient: Callable[..., Array]  # of the transformed kernel
    from_blocks: bool  # whether images are taken in blocks
    to_blocks: bool  # whether the output comes, and its gradient goes, in blocks
    floats_per_pixel: Callable[[int, int, int], int]  # made on the way, from kernel size, channels and features
    loops: bool = False  # over members that are side by side; otherwise one product is of them all
    fits: Callable[[int], bool] = lambda size: True  # whether it can do kernels of a size
    by_place: bool = False  # whether a transformed kernel is a matrix [C, F] for each of some places
    image_gradient: Callable[..., Array] | None = None  # without one, the forward product with the turned kernel
    gradient_floats_per_pixel: Callable[[int, int, int], int] | None = None  # where they are others than forwards

    def transform_turned(self, kernel: Float[Array, "K K C F"]) -> Array:
        """Returns the transform of the kernel turned by 180 degrees, from its features to its channels."""
        turned = kernel[::-1, ::-1]
        if self.by_place:  # behind the additions, of which each would read across channels and features otherwise
            return self.transform(turned).swapaxes(1, 2)
        return self.transform(turned.swapaxes(2, 3))


METHODS = {
    "block_patches": Method(
        *(block_patches.transform, block_patches.forward, block_patches.kernel_gradient),
        from_blocks=False,
        to_blocks=True,
        floats_per_pixel=block_patches.floats_per_pixel,
        fits=lambda size: size % 2 == 1,
    ),
    "winograd": Method(
        *(winograd.transform, winograd.forward, winograd.kernel_gradient),
        from_blocks=True,
        to_blocks=True,
        floats_per_pixel=lambda size, channels, features: 4 * (channels + features),
        fits=lambda size: size == 3,
        by_place=True,
    ),
    "patches": Method(
        *(patches.transform, patches.forward, patches.kernel_gradient),
        from_blocks=False,
        to_blocks=False,
        floats_per_pixel=lambda size, channels, features: size**2 * channels,
    ),
    "dense": Method(
        *(patches.transform, dense.forward, dense.kernel_gradient),
        from_blocks=False,
        to_blocks=False,
        floats_per_pixel=lambda size, channels, features: 0,
        loops=True,
    ),
}
# Forwards, patches are fewer passes over the output than a sum over shifts.
METHODS["shifts"] = METHODS["patches"]._replace(
    kernel_gradient=shifts.kernel_gradient,
    image_gradient=shifts.image_gradient,
    gradient_floats_per_pixel=lambda size, channels, features: channels + features,
)
# A loop of convolutions over members, or one in groups.
METHODS["grouped"] = METHODS["dense"]._replace(loops=False)

# What a chunk of images makes on the way is still in the cache when it is read. But each chunk reads the kernel again,
# or adds to its gradient, so a large kernel wants larger ones (measured on CPU for every layer of the ladder).
_CHUNK_BYTES = 2_750_000


def choose(kernel_shape: tuple[int, ...], pixels: int, wanted: str = "auto") -> str:
    """Names the method for a kernel [K, K, C, F] that makes `pixels` of output an image.

    That is the one `wanted`, a name in METHODS, where it can do such a kernel. Otherwise the one that
    `python -m experiments.benchmarks.convolutions` found fastest:

    Windows of few channels are small enough to be made for a whole batch of all members; in blocks, unless many kernels
    make a CPU's time that of the arithmetic, of which blocks have more. From there on Winograd's saving of arithmetic
    wins on a CPU for every layer of the ladder, but takes twice as long to compile, which small layers of small images
    never pay back. Other kernels of many channels need no patches for their gradients.

    A GPU does the products of all members at once, over patches, until these are large; then its own convolutions, of
    one member after another, are faster. Where the one begins to win is known of few networks only.
    """
    size, _, channels, features = kernel_shape
    is_cpu = jax.default_backend() == "cpu"
    if wanted != "auto" and METHODS[wanted].fits(size):
        return wanted
    if channels <= 4 and METHODS["block_patches"].fits(size) and not (is_cpu and features >= 48):
        return "block_patches"
    if not is_cpu:
        return "patches" if min(channels, features) <= 32 else "dense"
    if pixels * channels > 4096 and METHODS["winograd"].fits(size):
        return "winograd"
    return "shifts" if channels >= 16 else "patches"


def chunk_count(
    method: Method, kernel_shape: tuple[int, ...], batch: int, pixels: int, *, backwards: bool = False
) -> int:
    """Returns in how many equal chunks a batch is computed: as near as can be to what makes them fit the cache."""
    size, _, channels, features = kernel_shape
    floats_per_pixel = (backwards and method.gradient_floats_per_pixel) or method.floats_per_pixel
    bytes_per_image = 4 * pixels * floats_per_pixel(size, channels, features)
    if not bytes_per_image or jax.default_backend() != "cpu":
        return 1
    kernel_bytes = 4 * jax.eval_shape(method.transform, jax.ShapeDtypeStruct(kernel_shape, np.float32)).size
    wanted = max(1, batch * bytes_per_image / (_CHUNK_BYTES + kernel_bytes))
    divisors = (count for count in range(1, batch + 1) if batch % count == 0)
    return min(divisors, key=lambda count: max(count / wanted, wanted / count))
