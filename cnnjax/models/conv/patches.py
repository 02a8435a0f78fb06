"""Convolution as a matrix product over patches: the pixels under the kernel, for each output pixel."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv.blocks import Pair
from cnnjax.models.conv.windows import PLAIN, Window, to_phases


def forward(
    images: Float[Array, "N H W C"], kernel: Float[Array, "K L C F"], before: Pair, size: Pair, window: Window = PLAIN
) -> Float[Array, "N P Q F"]:
    """Returns `size` output pixels of images with `before` zeros above and left."""
    return _patches(images, kernel.shape[:2], before, size, window) @ kernel.reshape(-1, kernel.shape[-1])


def kernel_grad(
    images: Float[Array, "N H W C"],
    grad: Float[Array, "N P Q F"],
    before: Pair,
    kernel_shape: tuple[int, ...],
    window: Window = PLAIN,
) -> Float[Array, "K L C F"]:
    """Returns the gradient of a kernel from the gradient of the output."""
    patches = _patches(images, kernel_shape[:2], before, grad.shape[1:3], window)
    product = patches.reshape(-1, patches.shape[-1]).T @ grad.reshape(-1, kernel_shape[-1])
    return product.reshape(kernel_shape)


def _patches(images: Array, kernel_size: Sequence[int], before: Pair, size: Pair, window: Window) -> Array:
    """Returns the patches [N, P, Q, K * L * C]; the last axis has the order of a kernel."""
    (batch, _, _, channels), places = images.shape, math.prod(kernel_size)
    phases = to_phases(images, before, size, kernel_size, window)
    shape = (batch, *size, channels)
    starts = functools.partial(window.start, kernel_width=kernel_size[1], channels=channels)
    if jax.default_backend() != "cpu":  # a GPU concatenates in a single kernel
        corners = [starts(place) for place in range(places)]
        return jnp.concatenate([lax.slice(phases, at, np.add(at, shape)) for at in corners], -1)

    def copy_pixels(place: Array, patches: Array) -> Array:
        under = lax.dynamic_slice(phases, starts(place), shape)
        return lax.dynamic_update_slice(patches, under, (0, 0, 0, place * channels))

    # On a CPU a loop is faster: XLA copies concatenated arrays twice, and compiles a function for each of the slices.
    return lax.fori_loop(0, places, copy_pixels, jnp.zeros((batch, *size, places * channels), images.dtype))
