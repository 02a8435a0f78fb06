"""What the layers of the ladder compute, with PyTorch's arithmetic and fast gradients."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv import convolve, convolve_and_pool, same_padding
from cnnjax.models.specs import BatchNorm, ChannelDropout, Conv, Dense, Layer, LeakyRelu, MaxPool, Relu


@dataclasses.dataclass(frozen=True)
class ConvPool:
    """What `fused` makes of a convolution, a ReLU and a max-pool."""

    conv: Conv


_ZEROS = nn.initializers.zeros  # placeholders: `initialisation` draws all parameters at once

_KEEP_ORDER = (Relu, LeakyRelu, ChannelDropout)  # among the pixels of a channel


def fused(layers: tuple[Layer, ...]) -> tuple[Layer | ConvPool, ...]:
    """Returns layers of the same function that do less work.

    A pool goes before what changes no order among a channel's pixels, and into its convolution where a ReLU follows.
    """
    ordered = list(layers)
    for start in range(1, len(layers)):
        place = start
        while place and isinstance(ordered[place], MaxPool) and isinstance(ordered[place - 1], _KEEP_ORDER):
            ordered[place - 1 : place + 1] = ordered[place], ordered[place - 1]
            place -= 1
    return _pooled_inside(tuple(ordered))


def _pooled_inside(layers: tuple[Layer, ...]) -> tuple[Layer | ConvPool, ...]:
    match layers:
        case (Conv() as conv, MaxPool(), Relu(), *rest):
            return (ConvPool(conv), *_pooled_inside(tuple(rest)))
        case (first, *rest):
            return (first, *_pooled_inside(tuple(rest)))
    return ()


def biases_trained(layers: tuple[Layer | ConvPool, ...]) -> list[bool]:
    """Returns, for each layer, whether its bias has an effect on the output in training.

    Batch norm subtracts the mean of each channel, and with it any bias that an earlier layer added to the channel. The
    exact gradient of such a bias is zero. The computed gradient is rounding error, which Adam scales to full steps.
    """
    trained, is_removed = [], False  # is_removed: a later batch norm subtracts a constant of the layer's channels
    for layer in reversed(layers):
        trained.append(not is_removed)
        match layer:
            case BatchNorm():
                is_removed = True
            case Conv(padding="valid") | Conv(kernel_size=1) | Dense() | MaxPool():
                pass
            case _:
                is_removed = False
    return trained[::-1]


class Convolution(nn.Module):
    """The module of `Conv` and, where it `pools`, of `ConvPool`: parameters kernel [K, K, C, F] and bias [F]."""

    layer: Conv
    pools: bool = False
    method: str = "auto"
    trains_bias: bool = True

    @nn.compact
    def __call__(self, x_NxHxWxC: Float[Array, "N H W C"]) -> Float[Array, "N P Q F"]:
        """Returns the convolution of a batch of images, as it is or through ReLU and max-pool."""
        size, channels = self.layer.kernel_size, x_NxHxWxC.shape[-1]
        kernel = self.param("kernel", _ZEROS, (size, size, channels, self.layer.features))
        bias = _bias(self, self.layer.features)
        kernel, bias = kernel.astype(x_NxHxWxC.dtype), bias.astype(x_NxHxWxC.dtype)
        padding = same_padding(size) if self.layer.padding == "same" else ((0, 0), (0, 0))
        if self.pools:
            return convolve_and_pool(x_NxHxWxC, kernel, bias, padding, self.method)
        return convolve(x_NxHxWxC, kernel, padding, self.method) + bias[None, None, None]


def _bias(module: "Convolution | FullyConnected | BatchNormalization", features: int) -> Float[Array, " F"]:
    """The bias of a module; its gradient is exactly zero where it is not trained."""
    bias = module.param("bias", _ZEROS, (features,))
    return bias if module.trains_bias else lax.stop_gradient(bias)


class FullyConnected(nn.Module):
    """The module of `Dense`: parameters kernel [F, D], as PyTorch's, and bias [F]."""

    features: int
    trains_bias: bool = True

    @nn.compact
    def __call__(self, x_NxD: Float[Array, "N D"]) -> Float[Array, "N F"]:
        """Returns the affine map of a batch of vectors."""
        kernel = self.param("kernel", _ZEROS, (self.features, x_NxD.shape[-1]))
        bias = _bias(self, self.features)
        return _matmul(x_NxD, kernel.astype(x_NxD.dtype)) + bias.astype(x_NxD.dtype)[None]


@jax.custom_vjp
def _matmul(x_NxD: Float[Array, "N D"], kernel_FxD: Float[Array, "F D"]) -> Float[Array, "N F"]:
    """The product x @ kernel.T, whose kernel gradient is laid out as the kernel is.

    JAX's own rule makes its transpose, and the optimizer then reads a large kernel across the grain of memory. That the
    kernel lies [F, D] is for its gradient, too: on a CPU, the product that makes [D, F] is up to 10 times slower.
    """
    # A large kernel is read faster as the first factor; without the barrier XLA turns the two round again.
    return lax.optimization_barrier(kernel_FxD @ x_NxD.T).T


def _matmul_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return gradient @ kernel, lax.dot_general(gradient, x, (((0,), (0,)), ((), ())))


_matmul.defvjp(lambda x, kernel: (_matmul(x, kernel), (x, kernel)), _matmul_backward)


class BatchNormalization(nn.Module):
    """The module of `BatchNorm`, as PyTorch's: statistics over all axes but the last.

    Training normalizes by the batch's biased variance; the running variance takes the unbiased one. Flax's own
    BatchNorm keeps the biased one. One row alone, which PyTorch refuses, has no such variance: it leaves the running
    statistics as they are.
    """

    epsilon: float = 1e-5
    retained: float = 0.9  # share of the running statistics that one batch leaves in place
    trains_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch C"], train: bool) -> Float[Array, "*batch C"]:
        """Returns the normalized batch; in training, also moves the running statistics."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = _bias(self, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        rows = x.reshape(-1, channels).astype(jnp.float32)
        if not train:
            factor = scale * lax.rsqrt(running_var.value + self.epsilon)
            normalized = (rows - running_mean.value[None]) * factor[None] + bias[None]
            return normalized.astype(x.dtype).reshape(x.shape)
        normalized, mean, var = _normalize_batch(rows, scale, bias, self.epsilon)
        count = rows.shape[0]
        if count > 1 and not self.is_initializing():
            unbiased = var * (count / (count - 1))
            running_mean.value += (1 - self.retained) * (mean - running_mean.value)
            running_var.value += (1 - self.retained) * (unbiased - running_var.value)
        return normalized.astype(x.dtype).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize_batch(
    rows_RxC: Float[Array, "R C"], scale_C: Float[Array, " C"], bias_C: Float[Array, " C"], epsilon: float
) -> tuple[Float[Array, "R C"], Float[Array, " C"], Float[Array, " C"]]:
    """Returns rows normalized by their own statistics, and these: mean and biased variance, which carry no gradient.

    The gradient (Ioffe & Szegedy 2015, section 3) is written so that it passes over the rows twice; the derived one
    passes over them, and writes as much to memory, six times.
    """
    mean = rows_RxC.mean(0)
    centered = rows_RxC - mean[None]
    var = jnp.square(centered).mean(0)
    return centered * (scale_C * lax.rsqrt(var + epsilon))[None] + bias_C[None], mean, var


def _normalize_batch_forward(rows: Array, scale: Array, bias: Array, epsilon: float) -> tuple[tuple, tuple]:
    normalized, mean, var = _normalize_batch(rows, scale, bias, epsilon)
    return (normalized, mean, var), (rows, scale, mean, lax.rsqrt(var + epsilon))


def _normalize_batch_backward(epsilon: float, saved: tuple, gradients: tuple) -> tuple[Array, Array, Array]:
    rows, scale, mean, per_std = saved
    gradient, _, _ = gradients
    centered = rows - mean[None]
    of_bias = gradient.sum(0)
    of_scale = (centered * gradient).sum(0) * per_std
    along = of_scale * per_std / rows.shape[0]
    of_rows = (gradient - (of_bias / rows.shape[0])[None] - centered * along[None]) * (scale * per_std)[None]
    return of_rows, of_scale, of_bias


_normalize_batch.defvjp(_normalize_batch_forward, _normalize_batch_backward)


def dropout(x: Float[Array, "..."], rate: Float[Array, ""], key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Zeroes each unit with probability `rate` (a traced scalar in [0, 1)) and scales the others by 1 / (1 - rate).

    Units along an axis that is 1 in `shape`, otherwise that of `x`, share their fate.

    Sixteen random bits decide a unit, half the cost of 32; the rate is rounded to 1/65536 and the scale is that of
    the rounded rate, so the expectation is exact.
    """
    threshold = jnp.minimum(jnp.round(rate * 65536), 65535).astype(jnp.uint32)  # 65536 would keep none, times infinity
    keep = jax.random.bits(key, shape, jnp.uint16).astype(jnp.uint32) >= threshold
    scale = 65536 / (65536 - threshold.astype(jnp.float32))
    return jnp.where(keep, x * scale.astype(x.dtype), 0)
