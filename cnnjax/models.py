"""The one module that applies the layers of a rung, and what can be said of it without training."""

import bisect
import functools
import itertools
import math
from collections import Counter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from cnnjax import layers
from cnnjax.convolution import max_pool
from cnnjax.convolution.methods import choose
from cnnjax.initialisation import initial_parameters
from cnnjax.ladder import (
    LADDER,
    BatchNorm,
    ChannelDropout,
    Conv,
    Dense,
    Dropout,
    Gelu,
    Layer,
    LeakyRelu,
    MaxPool,
    Relu,
    fault,
)
from cnnjax.layers import ConvPool
from cnnjax.types import RequestError, one_of

# How a precision has matrices multiplied (`jax.default_matmul_precision`): else a GPU takes tf32 for float32.
MATMUL = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


class Network(nn.Module):
    """A rung of the ladder: its layers in order, flattened before the first dense one.

    Parameters are named by kind and order of appearance: conv0, conv1, bn0, dense0, ...
    """

    layers: tuple[Layer, ...]
    classes: int
    precision: str = "float32"
    convolution: str = "auto"

    @nn.compact
    def __call__(
        self, x_NxHxWxC: Float[Array, "N H W C"], *, train: bool, dropout_rate: Any = jnp.nan
    ) -> Float[Array, "N K"]:
        """Returns float32 logits.

        Args:
            x_NxHxWxC: normalised float images.
            train: batch statistics and dropout (needs a 'dropout' key) instead of running statistics and none.
            dropout_rate: scalar that replaces the rate of every dropout layer; NaN keeps the layers' own.
        """
        seen: Counter[str] = Counter()

        def name(kind: str) -> str:
            seen[kind] += 1
            return f"{kind}{seen[kind] - 1}"

        x = x_NxHxWxC.astype(jnp.bfloat16 if self.precision == "bfloat16" else jnp.float32)
        applied = layers.fused(self.layers)
        for layer, trains_bias in zip(applied, layers.biases_trained(applied), strict=True):
            match layer:
                case Conv():
                    x = layers.Convolution(layer, False, self.convolution, trains_bias, name=name("conv"))(x)
                case ConvPool():
                    x = layers.Convolution(layer.conv, True, self.convolution, name=name("conv"))(x)
                case Dense():
                    features = self.classes if layer.features is None else layer.features
                    x = x.reshape(x.shape[0], -1)
                    x = layers.FullyConnected(features, trains_bias, name=name("dense"))(x)
                case BatchNorm():
                    x = layers.BatchNormalisation(trains_bias=trains_bias, name=name("bn"))(x, train)
                case Relu():
                    x = nn.relu(x)
                case LeakyRelu():
                    x = nn.leaky_relu(x, 0.01)
                case Gelu():
                    x = nn.gelu(x, approximate=False)
                case MaxPool():
                    x = max_pool(x)
                case Dropout() | ChannelDropout():
                    if train:
                        rate = jnp.where(jnp.isnan(dropout_rate), layer.rate, dropout_rate)
                        shape = x.shape if isinstance(layer, Dropout) else (len(x), 1, 1, x.shape[-1])
                        x = layers.dropout(x, rate, self.make_rng("dropout"), shape)
                case _:
                    raise TypeError(f"no network applies the layer {layer!r}")
        return x.astype(jnp.float32)


def build(name: str, classes: int, precision: str = "float32", convolution: str = "auto") -> Network:
    """Returns the network of a rung.

    Args:
        name: of the rung.
        classes: how many logits.
        precision: of the arithmetic between the layers, as in a study's `train.precision`.
        convolution: how to convolve, as in a study's `train.convolution`.

    Raises:
        RequestError: the name is not on the ladder, its layers are no network, or this machine has no such precision.
    """
    if name not in LADDER:
        raise RequestError("models", name, one_of(name, LADDER))
    if wrong := fault(LADDER[name]):
        raise RequestError("models", name, wrong)
    if precision == "tf32" and jax.default_backend() != "gpu":
        raise RequestError("train.precision", precision, "only a GPU has it; allowed here: bfloat16, float32")
    return Network(LADDER[name], classes, precision, convolution)


def check_fits(name: str, image_shape: tuple[int, int, int]) -> None:
    """Raises RequestError if images of shape (H, W, C) are too small for a rung, or the rung is unknown."""
    network = build(name, 1)
    height, width, channels = image_shape

    def fits(height: int, width: int) -> bool:
        return 0 not in layer_table(network, (height, width, channels))[-1].output

    if not fits(height, width):
        most = next(side for side in (2**n for n in itertools.count()) if fits(side, side))
        least = bisect.bisect_left(range(most), True, lo=1, key=lambda side: fits(side, side))
        allowed = f"must be at least {least}x{least}, by data.image_size"
        raise RequestError("models", name, f"images of {height}x{width} are too small for it; {allowed}")


def initial_variables(network: Network, image_shape: tuple[int, int, int], scheme: str, key: Array) -> dict:
    """Returns a network's variables before training: 'params', and 'batch_stats' where there is batch norm.

    Args:
        network: from `build`.
        image_shape: (H, W, C).
        scheme: how parameters are drawn, see `initialisation.initial_parameters`.
        key: random key.
    """
    shapes = variable_shapes(network, image_shape)
    variables = {"params": initial_parameters(scheme, shapes["params"], key)}
    if "batch_stats" in shapes:
        variables["batch_stats"] = {
            layer: {"mean": jnp.zeros(leaves["mean"].shape), "var": jnp.ones(leaves["var"].shape)}
            for layer, leaves in shapes["batch_stats"].items()
        }
    return variables


def parameter_count(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of trained parameters for images of shape (H, W, C)."""
    shapes = variable_shapes(network, image_shape)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def forward_flops(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Returns the floating-point operations of one image's forward pass in convolutions and dense layers.

    An addition and a multiplication for each weight and place where it is used, whatever method computes it; the rest
    of a network is a few percent.
    """
    return sum(row.flops for row in layer_table(network, image_shape))


def training_flops(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Returns the operations of a step for one image: the gradients cost twice the forward pass."""
    return 3 * forward_flops(network, image_shape)


class LayerRow(NamedTuple):
    """What one layer makes of one image."""

    layer: Layer
    output: tuple[int, ...]
    parameters: int
    flops: int
    method: str | None  # of a convolution


def layer_table(network: Network, image_shape: tuple[int, int, int]) -> list[LayerRow]:
    """Returns a row for each layer of a network, in order, for images of shape (H, W, C).

    The rows end with the layer that leaves nothing of an image that is too small.
    """
    rows: list[LayerRow] = []
    shape: tuple[int, ...] = tuple(image_shape)
    for layer in network.layers:
        shape, parameters = _traced(layer, network.classes, shape)
        kernels = [leaf.shape for (*_, name), leaf in parameters.items() if name == "kernel"]
        methods = [choose(kernel, math.prod(shape[:2]), network.convolution) for kernel in kernels if len(kernel) == 4]
        count = sum(leaf.size for leaf in parameters.values())
        flops = 2 * math.prod(shape[:-1]) * sum(map(math.prod, kernels))
        rows.append(LayerRow(layer, shape, count, flops, methods[0] if methods else None))
        if 0 in shape:
            break
    return rows


@functools.lru_cache(1024)
def _traced(layer: Layer, classes: int, shape: tuple[int, ...]) -> tuple[tuple[int, ...], dict]:
    """What a network of one layer makes of an input of a shape, and the shapes of its parameters by their path."""
    init = functools.partial(Network((layer,), classes, convolution="dense").init_with_output, train=False)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    output, variables = jax.eval_shape(init, jax.random.key(0), x)
    return output.shape[1:], flatten_dict(variables.get("params", {}))


def variable_shapes(network: Network, image_shape: tuple[int, int, int]) -> dict:
    """Returns the variables of one member as a nested dict of jax.ShapeDtypeStruct."""
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return dict(jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x))
