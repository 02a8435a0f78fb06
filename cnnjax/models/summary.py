"""The parameters and operations of a network, in total and for each layer."""

import bisect
import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from cnnjax.models.conv.methods import choose
from cnnjax.models.network import Network, build_network, variable_shapes
from cnnjax.models.specs import Layer
from cnnjax.utils.errors import RequestError


def check_fits(name: str, image_shape: tuple[int, int, int]) -> None:
    """Raises RequestError if images of shape (H, W, C) are too small for a model, or the model is unknown.

    It runs before the number of JAX's devices is set, and so must not start them.
    """
    network = build_network(name, 1, convolution="dense")  # other methods ask for the devices
    height, width, channels = image_shape

    def fits(height: int, width: int) -> bool:
        return 0 not in layer_table(network, (height, width, channels))[-1].output

    if not fits(height, width):
        most = next(side for side in (2**n for n in itertools.count()) if fits(side, side))
        least = bisect.bisect_left(range(most), True, lo=1, key=lambda side: fits(side, side))
        advice = f"set data.image_size to at least {least}x{least}"
        raise RequestError("models", name, f"images of {height}x{width} are too small for it; {advice}")


def parameter_count(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of trained parameters for images of shape (H, W, C)."""
    shapes = variable_shapes(network, image_shape)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def forward_flops(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Returns the floating-point operations of one image's forward pass, see `LayerRow.flops`."""
    return sum(row.flops for row in layer_table(network, image_shape))


def training_flops(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Returns the operations of a step for one image: the gradients cost twice the forward pass."""
    return 3 * forward_flops(network, image_shape)


class LayerRow(NamedTuple):
    """One layer, applied to one image."""

    layer: Layer
    output: tuple[int, ...]  # shape
    parameters: int
    flops: int  # an addition and a multiplication for each use of a weight; other operations are a few percent
    method: str | None  # of a convolution


def layer_table(network: Network, image_shape: tuple[int, int, int]) -> list[LayerRow]:
    """Returns a row for each layer of a network, in order, for images of shape (H, W, C).

    If the image is too small, the rows end with the layer whose output is empty.
    """
    rows: list[LayerRow] = []
    shape: tuple[int, ...] = tuple(image_shape)
    for layer in network.layers:
        shape, parameters = _apply_layer(layer, network.num_classes, shape)
        kernels = [leaf.shape for (*_, name), leaf in parameters.items() if name == "kernel"]
        methods = [choose(kernel, math.prod(shape[:2]), network.convolution) for kernel in kernels if len(kernel) == 4]
        count = sum(leaf.size for leaf in parameters.values())
        flops = 2 * math.prod(shape[:-1]) * sum(map(math.prod, kernels))
        rows.append(LayerRow(layer, shape, count, flops, methods[0] if methods else None))
        if 0 in shape:
            break
    return rows


@functools.lru_cache(1024)
def _apply_layer(layer: Layer, num_classes: int, shape: tuple[int, ...]) -> tuple[tuple[int, ...], dict]:
    """Returns the output shape of a layer for an input shape, and the shapes of its parameters by path."""
    network, x = Network((layer,), num_classes, convolution="dense"), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    # A key that is made outside would start JAX's devices.
    output, variables = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), x)
    return output.shape[1:], flatten_dict(variables.get("params", {}))
