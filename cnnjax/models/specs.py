"""The layers of the ladder's models, as data, and the validation of a sequence of layers."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, get_args


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with a square kernel.

    `padding` is 'valid' (none) or 'same': zeros that keep height and width at stride 1. As in PyTorch, a stride of 2
    then reads the pixels 0, 2, ... of that output. The channels are convolved in `groups` of equal size. Set
    `bias=False` where a batch norm follows.
    """

    features: int
    kernel_size: int = 3
    padding: str = "same"
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    bias: bool = True


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer; `features` None means one per class."""

    features: int | None = None
    bias: bool = True


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Zeroes units with probability `rate`; a trial's dropout rate replaces it."""

    rate: float


@dataclasses.dataclass(frozen=True)
class ChannelDropout:
    """Zeroes whole channels of an image with probability `rate`; a trial's dropout rate replaces it."""

    rate: float


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Normalizes each channel over the batch, with learned scale and shift."""


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Normalizes the channels of each pixel (epsilon 1e-5), with learned scale and shift of each channel."""


@dataclasses.dataclass(frozen=True)
class GroupNorm:
    """Normalizes each of `groups` groups of channels of each image (epsilon 1e-5), with learned scale and shift."""

    groups: int


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclasses.dataclass(frozen=True)
class LeakyRelu:
    """max(x, .01 x)."""


@dataclasses.dataclass(frozen=True)
class Gelu:
    """x times the standard normal distribution function of x, exact (erf)."""


@dataclasses.dataclass(frozen=True)
class Silu:
    """x times the logistic function of x."""


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Maximum over square windows. `stride` None is the window's size; incomplete windows are dropped."""

    window: int = 2
    stride: int | None = None


@dataclasses.dataclass(frozen=True)
class AvgPool:
    """Mean over square windows. `stride` None is the window's size; incomplete windows are dropped."""

    window: int = 2
    stride: int | None = None


@dataclasses.dataclass(frozen=True)
class GlobalAvgPool:
    """Mean of each channel over all pixels: a vector for each image."""


@dataclasses.dataclass(frozen=True, init=False)
class Residual:
    """The sum of a branch of `layers` and a shortcut, which have outputs of equal shape.

    An empty shortcut is the identity: `Residual(Conv(16), Relu(), Conv(16))`. Another one is a tuple of layers, as in
    `Residual(Conv(32, stride=2), Relu(), Conv(32), shortcut=(Conv(32, 1, stride=2),))`.
    """

    layers: "Layers"
    shortcut: "Layers" = ()

    def __init__(self, *layers: "Layer", shortcut: "Layers" = ()):
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "shortcut", shortcut)


Norm = BatchNorm | LayerNorm | GroupNorm
Activation = Relu | LeakyRelu | Gelu | Silu
Pool = MaxPool | AvgPool | GlobalAvgPool
Layer = Conv | Dense | Dropout | ChannelDropout | Norm | Activation | Pool | Residual
Layers = tuple[Layer, ...]
KINDS = get_args(Layer)

_OF_IMAGES = Conv | ChannelDropout | Pool
_COUNTS = ("features", "kernel_size", "stride", "groups", "dilation", "window")


class LayerRow(NamedTuple):
    """One layer, or one part of a Flax module, applied to one image."""

    layer: Layer | str  # the path of a part
    output: tuple[int, ...]  # shape
    kernel: tuple[int, ...] = ()  # shape; empty without a kernel
    parameters: int = 0
    flops: int = 0  # an addition and a multiplication for each use of a weight; other operations are a few percent
    part: str = ""  # of the residual that it is in: branch, shortcut, branch of a branch, ...


def flatten(layers: Iterable[Any]) -> Iterator[Any]:
    """Yields every layer in order, also those of the branch and of the shortcut of each `Residual`, which follows."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from flatten((*layer.layers, *layer.shortcut))
        yield layer


def describe(layer: Layer) -> str:
    """Returns a layer as text, as in `Conv(features=16, stride=2)`.

    The text has only the arguments that differ from their defaults, so that a new argument changes no text.
    """
    if isinstance(layer, Residual):
        branch, shortcut = (list(map(describe, part)) for part in (layer.layers, layer.shortcut))
        arguments = [*branch, *([f"shortcut=({', '.join(shortcut)},)"] if shortcut else [])]
    else:
        values = [(field.name, getattr(layer, field.name), field.default) for field in dataclasses.fields(layer)]
        arguments = [f"{name}={value!r}" for name, value, default in values if value != default]
    return f"{type(layer).__name__}({', '.join(arguments)})"


def find_problem(layers: Layers) -> str:
    """Returns the reason why layers are not a valid model, in words; empty if they are valid."""
    if not isinstance(layers, list | tuple):
        return f"it is {layers!r}; use a tuple of layers, or a Flax module"
    problem, _ = _find_problem(layers, flat=False)
    if not problem and not (layers and isinstance(layers[-1], Dense) and layers[-1].features is None):
        return "its last layer gives no logits; use Dense()"
    return problem


def _find_problem(layers: Layers, flat: bool) -> tuple[str, bool]:
    """Returns the problem of a sequence of layers, and whether its output is a vector; `flat` if its input is one."""
    for layer in layers:
        if type(layer) is Residual and layer.layers:
            problem, is_vector = _find_problem(layer.layers, flat)
            if not isinstance(layer.shortcut, list | tuple):
                problem = problem or f"a shortcut is {layer.shortcut!r}; use a tuple of layers"
            elif not problem:
                problem, _ = _find_problem(layer.shortcut, flat)
            if problem:
                return problem, flat
            flat = is_vector
        elif allowed := _allowed(layer, flat):
            text = describe(layer) if type(layer) in KINDS else repr(layer)
            return f"its layer {text} is not valid; use {allowed}", flat
        flat |= isinstance(layer, Dense | GlobalAvgPool)
    return "", flat


def _allowed(layer: Layer, flat: bool) -> str:
    """Returns what is allowed in place of an invalid layer, whose input is a vector if `flat`; empty if valid."""
    if type(layer) not in KINDS:  # `Network` would apply a subclass as its base class
        return "the layers of this file, each with its arguments, as in Relu() and Conv(32)"
    if flat and isinstance(layer, _OF_IMAGES):
        return "in front of the first dense layer or global pooling"
    for field in dataclasses.fields(layer):
        if allowed := _allowed_argument(field.name, getattr(layer, field.name), optional=field.default is None):
            return allowed
    if isinstance(layer, Conv) and layer.features % layer.groups:
        return "groups that divide the features"
    return "at least one layer in it" if isinstance(layer, Residual) else ""


def _allowed_argument(name: str, value: Any, *, optional: bool) -> str:
    """Returns what is allowed in place of an invalid argument of a layer; empty if it is valid."""
    if name in _COUNTS:
        valid = (optional and value is None) or (isinstance(value, int) and value > 0)
        return "" if valid else f"{name} a whole number > 0{', or None' if optional else ''}"
    if name == "rate":
        return "" if isinstance(value, int | float) and 0 <= value < 1 else "a rate >= 0 and < 1"
    if name == "padding":
        return "" if value in ("same", "valid") else "padding 'same' or 'valid'"
    return "" if name != "bias" or isinstance(value, bool) else "bias True or False"
