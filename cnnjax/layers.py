"""Layers of the ladder: what a rung is written in, with PyTorch's arithmetic and fast gradients.

A rung is a tuple of these small frozen descriptions; `models.Network` applies them in order.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.convolution import convolve, same_padding


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with bias, stride 1; `padding` is 'same' or 'valid'."""

    features: int
    kernel_size: int = 3
    padding: str = "same"


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer with bias; `features` None means one per class."""

    features: int | None = None


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Zeroes units with probability `rate`, unless the trial sets a rate of its own."""

    rate: float


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Normalises each channel over the batch, with learned scale and shift."""


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Maximum over 2x2 windows, stride 2; an odd last row or column is dropped."""


_ZEROS = nn.initializers.zeros  # placeholders: `initialisation` draws all parameters at once

Layer = Conv | Dense | Dropout | BatchNorm | Relu | MaxPool


class Convolution(nn.Module):
    """The module of `Conv`: parameters kernel [K, K, C, F] and bias [F]."""

    layer: Conv

    @nn.compact
    def __call__(self, x_NxHxWxC: Float[Array, "N H W C"]) -> Float[Array, "N P Q F"]:
        """Returns the convolution of a batch of images."""
        size, channels = self.layer.kernel_size, x_NxHxWxC.shape[-1]
        kernel = self.param("kernel", _ZEROS, (size, size, channels, self.layer.features))
        bias = self.param("bias", _ZEROS, (self.layer.features,))
        padding = same_padding(size) if self.layer.padding == "same" else ((0, 0), (0, 0))
        return convolve(x_NxHxWxC, kernel, padding) + bias[None, None, None]


class FullyConnected(nn.Module):
    """The module of `Dense`: parameters kernel [D, F] and bias [F]."""

    features: int

    @nn.compact
    def __call__(self, x_NxD: Float[Array, "N D"]) -> Float[Array, "N F"]:
        """Returns the affine map of a batch of vectors."""
        kernel = self.param("kernel", _ZEROS, (x_NxD.shape[-1], self.features))
        bias = self.param("bias", _ZEROS, (self.features,))
        return x_NxD @ kernel + bias[None]


class BatchNormalisation(nn.Module):
    """The module of `BatchNorm`, as PyTorch's: statistics over all axes but the last.

    Training normalises by the batch's biased variance; the running variance takes the unbiased one. Flax's own
    BatchNorm keeps the biased one.
    """

    epsilon: float = 1e-5
    retained: float = 0.9  # share of the running statistics that one batch leaves in place

    @nn.compact
    def __call__(self, x: Float[Array, "*batch C"], train: bool) -> Float[Array, "*batch C"]:
        """Returns the normalised batch; in training, also moves the running statistics."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        mean, var = running_mean.value, running_var.value
        rows = x.reshape(-1, channels)
        if train:
            mean = rows.mean(0)
            var = jnp.square(rows - mean[None]).mean(0)
            if not self.is_initializing():
                count = rows.shape[0]
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value += (1 - self.retained) * (mean - running_mean.value)
                running_var.value += (1 - self.retained) * (unbiased - running_var.value)
        normalised = (rows - mean[None]) * (scale * lax.rsqrt(var + self.epsilon))[None] + bias[None]
        return normalised.reshape(x.shape)


def dropout(x: Float[Array, "..."], rate: Float[Array, ""], key: Array) -> Float[Array, "..."]:
    """Zeroes each unit with probability `rate` (a traced scalar in [0, 1)) and scales the others by 1 / (1 - rate).

    Sixteen random bits decide a unit, half the cost of 32; the rate is rounded to 1/65536 and the scale is that of
    the rounded rate, so the expectation is exact.
    """
    threshold = jnp.round(rate * 65536).astype(jnp.uint32)
    keep = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32) >= threshold
    scale = 65536 / (65536 - threshold.astype(x.dtype))
    return jnp.where(keep, x * scale, 0.0)


@jax.custom_vjp
def max_pool(x_NxHxWxC: Float[Array, "N H W C"]) -> Float[Array, "N P Q C"]:
    """Maximum over 2x2 windows with stride 2.

    The gradient goes to the first maximum of a window in row order, as in PyTorch. XLA's reduce_window has a slow
    gradient on CPU (select and scatter); four strided views compare elementwise.
    """
    return functools.reduce(jnp.maximum, _window_views(x_NxHxWxC))


def _window_views(x: Array) -> list[Array]:
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]


def _max_pool_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    maximum = max_pool(x)
    return maximum, (x, maximum)


def _max_pool_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, maximum = saved
    open_window = jnp.ones(maximum.shape, bool)
    parts = []
    for view in _window_views(x):
        chosen = (view == maximum) & open_window
        open_window &= ~chosen
        parts.append(jnp.where(chosen, gradient, 0.0))
    batch, height, width, channels = maximum.shape
    rows = [jnp.stack(parts[i : i + 2], 3).reshape(batch, height, 2 * width, channels) for i in (0, 2)]
    full = jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, channels)
    spare = [(0, 0), (0, x.shape[1] - 2 * height), (0, x.shape[2] - 2 * width), (0, 0)]
    return (jnp.pad(full, spare),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
