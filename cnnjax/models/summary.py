"""The parameters and operations of a network, in total and for each layer. Imports jax only for Flax modules."""

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from cnnjax.models.ladder import find_model
from cnnjax.models.specs import (
    KINDS,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    GlobalAvgPool,
    GroupNorm,
    Layer,
    LayerNorm,
    LayerRow,
    Layers,
    MaxPool,
    Residual,
    describe,
    find_problem,
)
from cnnjax.utils.errors import RequestError, UnfitCode


class HasLayers(Protocol):
    """What the functions below read of a network of layers: `network.Network` has it, and `Architecture`."""

    @property
    def layers(self) -> Layers:
        """The layers in order."""

    @property
    def num_classes(self) -> int:
        """The number of logits."""


class Architecture(NamedTuple):
    """The layers of a network without its computation."""

    layers: Layers
    num_classes: int


class ModuleParts(NamedTuple):
    """The parts of a Flax module for images of one shape."""

    rows: tuple[LayerRow, ...]
    num_classes: int


def describe_network(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> "Architecture | ModuleParts":
    """Returns the layers of a model, or the parts of a Flax module for images of shape (H, W, C).

    Raises:
        RequestError: there is no such model.
    """
    model = find_model(name)
    if not callable(model):
        return Architecture(model, num_classes)
    return _describe_module(model, num_classes, image_shape)


@functools.lru_cache(100)
def _describe_module(
    model: Callable, num_classes: int, image_shape: tuple[int, int, int]
) -> "Architecture | ModuleParts":
    from cnnjax.models.module_table import module_table  # imports jax
    from cnnjax.models.own import build_module

    built = build_module(model, num_classes, image_shape)
    if isinstance(built, tuple):
        return Architecture(built, num_classes)
    return ModuleParts(tuple(module_table(built, image_shape)), num_classes)


def check_fits(name: str, image_shape: tuple[int, int, int], num_classes: int = 1) -> tuple[str, ...]:
    """Checks that a model fits images. Traces a training step of a Flax module, and passes on any error.

    Args:
        name: of the model.
        image_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        The hyperparameters of `train` that the model cannot take, because a Flax module decides them itself.

    Raises:
        RequestError: the model is unknown, or the images are too small, have channels that do not split into the groups
            of a layer, or give the branch and the shortcut of a `Residual` different shapes.
    """
    layers = find_model(name)
    if callable(layers):
        from cnnjax.models.own import build_module, check_module  # imports jax

        built = build_module(layers, num_classes, image_shape)
        if not isinstance(built, tuple):
            check_module(built, image_shape)
            return ("initialization",) if built.takes_dropout_rate else ("initialization", "dropout_rate")
        if problem := find_problem(built):
            raise UnfitCode(problem)
        layers = built
    network = Architecture(layers, 1)
    height, width, channels = image_shape

    def is_large_enough(height: int, width: int) -> bool:
        try:
            return 0 not in layer_table(network, (height, width, channels))[-1].output
        except ValueError:  # the rows do not end with an empty output
            return True

    if not is_large_enough(height, width):
        most = next(side for side in (2**n for n in itertools.count()) if is_large_enough(side, side))
        least = bisect.bisect_left(range(most), True, lo=1, key=lambda side: is_large_enough(side, side))
        advice = f"set data.image_size to at least {least}x{least}"
        raise RequestError("models", name, f"images of {height}x{width} are too small for it; {advice}")
    try:
        layer_table(network, image_shape)
    except ValueError as error:
        raise RequestError("models", name, str(error)) from error
    return ()


def parameter_count(network: HasLayers | ModuleParts, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of trained parameters for images of shape (H, W, C)."""
    return sum(row.parameters for row in layer_table(network, image_shape))


def forward_flops(network: HasLayers | ModuleParts, image_shape: tuple[int, int, int]) -> int:
    """Returns the floating-point operations of one image's forward pass, see `LayerRow.flops`."""
    return sum(row.flops for row in layer_table(network, image_shape))


def training_flops(network: HasLayers | ModuleParts, image_shape: tuple[int, int, int]) -> int:
    """Returns the operations of a step for one image: the gradients cost twice the forward pass."""
    return 3 * forward_flops(network, image_shape)


def layer_table(network: HasLayers | ModuleParts, image_shape: tuple[int, int, int]) -> list[LayerRow]:
    """Returns a row for each layer of a network, in order, for images of shape (H, W, C).

    The rows of a `Residual` are those of its branch, those of its shortcut, and its own, the sum. If the image is too
    small, the rows end with the first layer whose output is empty.

    Raises:
        ValueError: a layer cannot be applied to its input, whatever the height and width of the image.
    """
    if isinstance(network, ModuleParts):
        return list(network.rows)
    rows = []
    for row in _rows(network.layers, network.num_classes, tuple(image_shape)):
        rows.append(row)
        if 0 in row.output:
            break
    return rows


def _rows(layers: Layers, num_classes: int, shape: tuple[int, ...], part: str = "") -> Iterator[LayerRow]:
    for layer in layers:
        if isinstance(layer, Residual):
            outputs = []
            for name, inner in (("branch", layer.layers), ("shortcut", layer.shortcut)):
                outputs.append(shape)
                for row in _rows(inner, num_classes, shape, f"{name} of {part}" if part else name):
                    yield row
                    outputs[-1] = row.output
            if outputs[0] != outputs[1]:
                branch, shortcut = ("x".join(map(str, output)) for output in outputs)
                raise ValueError(f"a Residual adds {branch} (branch) and {shortcut} (shortcut); make them equal")
            row = LayerRow(layer, outputs[0], part=part)
        else:
            row = apply_layer(layer, num_classes, shape)._replace(part=part)
        yield row
        shape = row.output


def apply_layer(layer: Layer, num_classes: int, shape: tuple[int, ...]) -> LayerRow:
    """Returns the row of a layer, not of a `Residual`, for an input shape. The shapes are those of `modules.py`."""
    match layer:
        case Conv() | GroupNorm() if shape[-1] % layer.groups:
            raise ValueError(f"{describe(layer)} cannot split {shape[-1]} channels; use groups that divide them")
        case Conv(features, size, padding):
            extent = 1 if padding == "same" else layer.dilation * (size - 1) + 1
            output = (*_strided(shape[:2], extent, layer.stride), features)
            kernel: tuple[int, ...] = (size, size, shape[-1] // layer.groups, features)
        case Dense(features):
            output = (num_classes if features is None else features,)
            kernel = (*output, math.prod(shape))
        case BatchNorm() | LayerNorm() | GroupNorm():
            return LayerRow(layer, shape, parameters=2 * shape[-1])  # scale and bias
        case MaxPool(window, stride) | AvgPool(window, stride):
            return LayerRow(layer, (*_strided(shape[:2], window, stride or window), shape[-1]))
        case GlobalAvgPool():
            return LayerRow(layer, shape[-1:])
        case _ if type(layer) in KINDS:
            return LayerRow(layer, shape)
        case _:
            raise TypeError(f"no network applies the layer {layer!r}")
    weights = math.prod(kernel)
    return LayerRow(layer, output, kernel, weights + layer.bias * output[-1], 2 * math.prod(output[:-1]) * weights)


def _strided(sizes: tuple[int, ...], extent: int, stride: int) -> tuple[int, ...]:
    """Returns how many windows of an extent have room along each axis, one for each stride."""
    return tuple(max(0, (size - extent) // stride + 1) for size in sizes)
