"""The computations of the ladder's layers, with PyTorch's arithmetic and fast gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.conv import convolve, convolve_and_pool, same_padding
from cnnjax.models.fusion import ConvPool
from cnnjax.models.shards import mean_over_shards, shard_of
from cnnjax.models.specs import AvgPool, BatchNorm, Conv, Dense, GlobalAvgPool, Layer, MaxPool, Residual

_ZEROS = nn.initializers.zeros  # placeholders: `init.initial_parameters` draws all parameters at once


def biases_trained(layers: tuple[Layer | ConvPool, ...], last: bool = True) -> list[bool]:
    """Returns, for each layer, whether its bias has an effect on the output in training.

    Batch norm subtracts the mean of each channel, and with it any bias that an earlier layer added to the channel. The
    exact gradient of such a bias is zero. The computed gradient is rounding error, which Adam scales to full steps.

    Args:
        layers: in order.
        last: whether a constant that is added to a channel of the last layer's output has an effect.
    """
    trained = [last]
    for layer in reversed(layers[1:]):
        trained.append(_has_effect_in_front(layer, trained[-1]))
    return trained[: len(layers)][::-1]


def _has_effect_in_front(layer: Layer | ConvPool, behind: bool) -> bool:
    """Returns whether a constant added to a channel of a layer's input has an effect, from that of its output."""
    match layer:
        case BatchNorm():
            return False
        case Conv(padding="valid") | Conv(kernel_size=1) | Dense() | MaxPool() | AvgPool() | GlobalAvgPool():
            return behind
        case Residual():
            parts = (layer.layers, layer.shortcut)
            return any(functools.reduce(lambda b, each: _has_effect_in_front(each, b), p[::-1], behind) for p in parts)
    return True


class Convolution(nn.Module):
    """The module of `Conv` and, if it `pools`, of `ConvPool`. Parameters: kernel [K, K, C / groups, F] and bias [F]."""

    layer: Conv
    pools: bool = False
    method: str = "auto"
    trains_bias: bool = True

    @nn.compact
    def __call__(self, x_NxHxWxC: Float[Array, "N H W C"]) -> Float[Array, "N P Q F"]:
        """Returns the convolution of a batch of images, followed by ReLU and max-pool if it `pools`."""
        layer, channels = self.layer, x_NxHxWxC.shape[-1]
        size = layer.kernel_size
        kernel = self.param("kernel", _ZEROS, (size, size, channels // layer.groups, layer.features))
        bias = _bias(self, layer.features) if layer.bias else jnp.zeros(layer.features)
        kernel, bias = kernel.astype(x_NxHxWxC.dtype), bias.astype(x_NxHxWxC.dtype)
        padding = same_padding(layer.dilation * (size - 1) + 1) if layer.padding == "same" else ((0, 0), (0, 0))
        if self.pools:
            return convolve_and_pool(x_NxHxWxC, kernel, bias, padding, self.method)
        output = convolve(
            *(x_NxHxWxC, kernel, padding, self.method),
            strides=(layer.stride, layer.stride),
            dilation=(layer.dilation, layer.dilation),
            groups=layer.groups,
        )
        return output + bias[None, None, None] if layer.bias else output


def _bias(module: nn.Module, features: int) -> Float[Array, " F"]:
    """Returns the bias of a module; the gradient is exactly zero if the bias is not trained."""
    bias = module.param("bias", _ZEROS, (features,))
    return bias if module.trains_bias else lax.stop_gradient(bias)


class FullyConnected(nn.Module):
    """The module of `Dense`. Parameters: kernel [F, D], as in PyTorch, and bias [F]."""

    features: int
    trains_bias: bool = True
    has_bias: bool = True

    @nn.compact
    def __call__(self, x_NxD: Float[Array, "N D"]) -> Float[Array, "N F"]:
        """Returns the affine map of a batch of vectors."""
        kernel = self.param("kernel", _ZEROS, (self.features, x_NxD.shape[-1]))
        bias = _bias(self, self.features) if self.has_bias else jnp.zeros(self.features)
        return _matmul(x_NxD, kernel.astype(x_NxD.dtype)) + bias.astype(x_NxD.dtype)[None]


@jax.custom_vjp
def _matmul(x_NxD: Float[Array, "N D"], kernel_FxD: Float[Array, "F D"]) -> Float[Array, "N F"]:
    """Returns x @ kernel.T. The gradient of the kernel has the memory layout of the kernel.

    JAX's own rule computes the transposed gradient, and the optimizer then reads a large kernel with strides. The
    kernel is [F, D] because of its gradient: on a CPU the product that computes [D, F] is up to 10 times slower.
    """
    # A large kernel is read faster as the first factor. Without the barrier XLA swaps the factors again.
    return lax.optimization_barrier(kernel_FxD @ x_NxD.T).T


def _matmul_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return grad @ kernel, lax.dot_general(grad, x, (((0,), (0,)), ((), ())))


_matmul.defvjp(lambda x, kernel: (_matmul(x, kernel), (x, kernel)), _matmul_backward)


class BatchNormalization(nn.Module):
    """The module of `BatchNorm`, as in PyTorch: statistics over all axes but the last.

    Training normalizes by the biased variance of the batch. The running variance averages the unbiased variance, as in
    PyTorch and unlike Flax's BatchNorm. A single row has no unbiased variance: PyTorch refuses it, here it leaves the
    running statistics unchanged.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9  # weight of the old running statistics in each update
    trains_bias: bool = True
    shards: int = 1  # of a training batch, over devices: the statistics are those of the whole batch

    @nn.compact
    def __call__(self, x: Float[Array, "*batch C"], train: bool) -> Float[Array, "*batch C"]:
        """Returns the normalized batch; in training, also updates the running statistics."""
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
        normalized, mean, var = _normalize_batch(rows, scale, bias, self.epsilon, self.shards)
        count = rows.shape[0] * self.shards
        if count > 1 and not self.is_initializing():
            unbiased = var * (count / (count - 1))
            running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
            running_var.value += (1 - self.momentum) * (unbiased - running_var.value)
        return normalized.astype(x.dtype).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize_batch(
    rows_RxC: Float[Array, "R C"], scale_C: Float[Array, " C"], bias_C: Float[Array, " C"], epsilon: float, shards: int
) -> tuple[Float[Array, "R C"], Float[Array, " C"], Float[Array, " C"]]:
    """Returns rows normalized by their mean and biased variance, the mean, and the variance.

    No gradient flows through the returned mean and variance. The gradient (Ioffe & Szegedy 2015, section 3) reads the
    rows twice. JAX's automatic gradient reads them, and writes arrays of their size, six times.
    """
    mean = mean_over_shards(rows_RxC.mean(0), shards)
    centered = rows_RxC - mean[None]
    var = mean_over_shards(jnp.square(centered).mean(0), shards)
    return centered * (scale_C * lax.rsqrt(var + epsilon))[None] + bias_C[None], mean, var


def _normalize_batch_forward(
    rows: Array, scale: Array, bias: Array, epsilon: float, shards: int
) -> tuple[tuple, tuple]:
    normalized, mean, var = _normalize_batch(rows, scale, bias, epsilon, shards)
    return (normalized, mean, var), (rows, scale, mean, lax.rsqrt(var + epsilon))


def _normalize_batch_backward(epsilon: float, shards: int, saved: tuple, grads: tuple) -> tuple[Array, Array, Array]:
    rows, scale, mean, per_std = saved
    grad, _, _ = grads
    centered = rows - mean[None]
    bias_grad = grad.sum(0)
    scale_grad = (centered * grad).sum(0) * per_std
    of_bias, of_scale = mean_over_shards((bias_grad, scale_grad), shards)  # the parameters' grads are averaged later
    along = of_scale * per_std / rows.shape[0]
    rows_grad = (grad - (of_bias / rows.shape[0])[None] - centered * along[None]) * (scale * per_std)[None]
    return rows_grad, scale_grad, bias_grad


_normalize_batch.defvjp(_normalize_batch_forward, _normalize_batch_backward)


class GroupNormalization(nn.Module):
    """The module of `GroupNorm` and `LayerNorm`, as in PyTorch: normalizes by the biased variance of each group.

    Parameters: scale [C] and bias [C].
    """

    groups: int
    trains_bias: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "N *pixels C"], axes: tuple[int, ...]) -> Float[Array, "N *pixels C"]:
        """Returns the normalized batch. Each group of channels has its own mean and variance over `axes` of `x`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = _bias(self, channels)
        grouped = x.reshape(*x.shape[:-1], self.groups, channels // self.groups).astype(jnp.float32)
        centered = grouped - grouped.mean((*axes, -1), keepdims=True)
        var = jnp.square(centered).mean((*axes, -1), keepdims=True)
        normalized = (centered * lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        return (normalized * scale + bias).astype(x.dtype)


def dropout(
    x: Float[Array, "..."], rate: Float[Array, ""], key: Array, shape: tuple[int, ...], shards: int = 1
) -> Float[Array, "..."]:
    """Zeroes each unit with probability `rate` and scales the others by 1 / (1 - rate).

    Sixteen random bits decide a unit, at half the cost of 32. The rate is rounded to 1/65536. The scale is that of the
    rounded rate, so the expectation is exact.

    Args:
        x: the units.
        rate: traced scalar in [0, 1).
        key: random key.
        shape: of the mask, which is broadcast to `x`: units along an axis of size 1 are zeroed together.
        shards: of the batch. The mask is that of the whole batch, of which each shard takes its part.
    """
    threshold = jnp.minimum(jnp.round(rate * 65536), 65535).astype(jnp.uint32)  # 65536 would divide by zero below
    bits = shard_of(jax.random.bits(key, (shape[0] * shards, *shape[1:]), jnp.uint16), shards)
    keep = bits.astype(jnp.uint32) >= threshold
    scale = 65536 / (65536 - threshold.astype(jnp.float32))
    return jnp.where(keep, x * scale.astype(x.dtype), 0)
