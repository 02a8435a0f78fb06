"""The Flax module that applies the layers of a model, and its variables before training."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.models import modules as layers
from cnnjax.models.conv import avg_pool, max_pool
from cnnjax.models.fusion import ConvPool, fused
from cnnjax.models.init import initial_parameters
from cnnjax.models.ladder import check_precision, find_model
from cnnjax.models.own import FlaxNetwork, build_module
from cnnjax.models.specs import (
    AvgPool,
    BatchNorm,
    ChannelDropout,
    Conv,
    Dense,
    Dropout,
    Gelu,
    GlobalAvgPool,
    GroupNorm,
    LayerNorm,
    Layers,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    Silu,
)

# `jax.default_matmul_precision` for each precision. By default a GPU would use tf32 for float32.
MATMUL = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


class Network(nn.Module):
    """A model of the ladder: its layers in order, with a flattening before the first dense layer.

    Parameters are named by kind and order of appearance: conv0, conv1, bn0, dense0, ... In a `Residual`, the layers of
    the branch appear before those of the shortcut.
    """

    layers: Layers
    num_classes: int
    precision: str = "float32"
    convolution: str = "auto"
    shards: int = 1  # of a training batch, over the devices of the mesh's axis `shards.AXIS`

    @nn.compact
    def __call__(
        self, x_NxHxWxC: Float[Array, "N H W C"], *, train: bool, dropout_rate: Any = jnp.nan
    ) -> Float[Array, "N K"]:
        """Returns float32 logits.

        Args:
            x_NxHxWxC: normalized float images.
            train: whether to use batch statistics and dropout (needs a 'dropout' key). Otherwise batch norm uses its
                running statistics, and dropout is off.
            dropout_rate: scalar that replaces the rate of every dropout layer; NaN keeps the layers' own rates.
        """
        seen: Counter[str] = Counter()

        def name(kind: str) -> str:
            seen[kind] += 1
            return f"{kind}{seen[kind] - 1}"

        x = x_NxHxWxC.astype(jnp.bfloat16 if self.precision == "bfloat16" else jnp.float32)
        return self._apply(self.layers, x, train, dropout_rate, name).astype(jnp.float32)

    def _apply(
        self,
        specs: Layers,
        x: Float[Array, "..."],
        train: bool,
        dropout_rate: Any,
        name: Callable[[str], str],
        trains_last_bias: bool = True,
    ) -> Float[Array, "..."]:
        applied = fused(specs)
        for layer, trains_bias in zip(applied, layers.biases_trained(applied, trains_last_bias), strict=True):
            match layer:
                case Conv():
                    x = layers.Convolution(layer, False, self.convolution, trains_bias, name=name("conv"))(x)
                case ConvPool():
                    x = layers.Convolution(layer.conv, True, self.convolution, name=name("conv"))(x)
                case Dense():
                    features = self.num_classes if layer.features is None else layer.features
                    x = x.reshape(x.shape[0], -1)
                    x = layers.FullyConnected(features, trains_bias, layer.bias, name=name("dense"))(x)
                case BatchNorm():
                    x = layers.BatchNormalization(trains_bias=trains_bias, shards=self.shards, name=name("bn"))(
                        x, train
                    )
                case LayerNorm():
                    x = layers.GroupNormalization(1, trains_bias, name=name("ln"))(x, ())
                case GroupNorm():
                    x = layers.GroupNormalization(layer.groups, trains_bias, name=name("gn"))(
                        x, (*range(1, x.ndim - 1),)
                    )
                case Relu():
                    x = nn.relu(x)
                case LeakyRelu():
                    x = nn.leaky_relu(x, 0.01)
                case Gelu():
                    x = nn.gelu(x, approximate=False)
                case Silu():
                    x = nn.silu(x)
                case MaxPool(window, stride):
                    x = max_pool(x, (window, window), (stride or window,) * 2)
                case AvgPool(window, stride):
                    x = avg_pool(x, (window, window), (stride or window,) * 2)
                case GlobalAvgPool():
                    x = x.mean((1, 2))
                case Dropout() | ChannelDropout():
                    if train:
                        rate = jnp.where(jnp.isnan(dropout_rate), layer.rate, dropout_rate)
                        shape = x.shape if isinstance(layer, Dropout) else (len(x), 1, 1, x.shape[-1])
                        x = layers.dropout(x, rate, self.make_rng("dropout"), shape, self.shards)
                case Residual():
                    x, shortcut = (
                        self._apply(part, x, train, dropout_rate, name, trains_bias)
                        for part in (layer.layers, layer.shortcut)
                    )
                    x = x + shortcut
                case _:
                    raise TypeError(f"no network applies the layer {layer!r}")
        return x


AnyNetwork: TypeAlias = Network | FlaxNetwork


def build_network(
    name: str,
    num_classes: int,
    precision: str = "float32",
    convolution: str = "auto",
    image_shape: tuple[int, int, int] = (32, 32, 3),
) -> AnyNetwork:
    """Returns the network of a model.

    Args:
        name: of the model.
        num_classes: number of logits.
        precision: of the arithmetic between the layers, as in a study's `train.precision`.
        convolution: the method, as in a study's `train.convolution`.
        image_shape: (H, W, C), for Flax modules that take it.

    Raises:
        RequestError: there is no such model, its layers are not valid, or this machine lacks the precision.
    """
    model = find_model(name)
    if precision == "tf32":
        check_precision(precision, jax.default_backend())
    built = build_module(model, num_classes, image_shape, precision) if callable(model) else model
    if isinstance(built, tuple):
        return Network(built, num_classes, precision, convolution)
    return dataclasses.replace(built, convolution=convolution)


def initial_variables(network: AnyNetwork, image_shape: tuple[int, int, int], scheme: str, key: Array) -> dict:
    """Returns a network's variables before training: 'params', and 'batch_stats' where there is batch norm.

    Args:
        network: from `build_network`.
        image_shape: (H, W, C).
        scheme: of the initial parameters, see `init.initial_parameters`. Flax modules have their own.
        key: random key.
    """
    if isinstance(network, FlaxNetwork):
        return network.init_variables(key)
    shapes = variable_shapes(network, image_shape)
    variables = {"params": initial_parameters(scheme, shapes["params"], key)}
    if "batch_stats" in shapes:
        variables["batch_stats"] = {
            layer: {"mean": jnp.zeros(leaves["mean"].shape), "var": jnp.ones(leaves["var"].shape)}
            for layer, leaves in shapes["batch_stats"].items()
        }
    return variables


def variable_shapes(network: AnyNetwork, image_shape: tuple[int, int, int]) -> dict:
    """Returns the variables of one member as a nested dict of jax.ShapeDtypeStruct."""
    if isinstance(network, FlaxNetwork):
        return jax.eval_shape(network.init_variables, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return dict(jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x))
