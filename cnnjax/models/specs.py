"""The layers of the ladder's models, as data, and the validation of a sequence of layers."""

import dataclasses
from typing import get_args


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
class Relu:
    """max(x, 0)."""


@dataclasses.dataclass(frozen=True)
class LeakyRelu:
    """max(x, .01 x)."""


@dataclasses.dataclass(frozen=True)
class Gelu:
    """x times the standard normal distribution function of x, exact (erf)."""


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Maximum over 2x2 windows, stride 2; an odd last row or column is dropped."""


Layer = Conv | Dense | Dropout | ChannelDropout | BatchNorm | Relu | LeakyRelu | Gelu | MaxPool
Layers = tuple[Layer, ...]
KINDS = get_args(Layer)


def find_problem(layers: Layers) -> str:
    """Returns the reason why layers are not a valid model, in words; empty if they are valid."""
    if not isinstance(layers, list | tuple):
        return f"it is {layers!r}; use a tuple of layers, or a Flax module"
    flat = False  # since the first dense layer
    for layer in layers:
        if allowed := _allowed(layer, flat):
            return f"its layer {layer!r} is not valid; use {allowed}"
        flat |= isinstance(layer, Dense)
    if not layers or layers[-1] != Dense():
        return "its last layer gives no logits; use Dense()"
    return ""


def _allowed(layer: Layer, flat: bool) -> str:
    """Returns what is allowed in place of an invalid layer, which follows a dense layer if `flat`; empty if valid."""
    if type(layer) not in KINDS:  # `Network` would apply a subclass as its base class
        return "the layers of this file, each with its arguments, as in Relu() and Conv(32)"
    match layer:
        case Conv() | MaxPool() | ChannelDropout() if flat:
            return "in front of the first dense layer"
        case Conv(padding=padding) if padding not in ("same", "valid"):
            return "padding 'same' or 'valid'"
        case Conv(features=int(features), kernel_size=int(size)):
            return "" if min(features, size) > 0 else "features and kernel_size > 0"
        case Dense(features=None):
            return ""
        case Dense(features=int(features)):
            return "" if features > 0 else "features > 0, or None"
        case Dropout(rate=rate) | ChannelDropout(rate=rate):
            return "" if 0 <= rate < 1 else "a rate >= 0 and < 1"
        case BatchNorm() | Relu() | LeakyRelu() | Gelu() | MaxPool():
            return ""
    return "arguments of their types"
