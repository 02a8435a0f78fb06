"""The ladder: every model by name, as a tuple of its layers or as a Flax module. To add a model, add an entry.

`network.Network` applies the layers in order.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cnnjax.models.specs import (
    BatchNorm,
    ChannelDropout,
    Conv,
    Dense,
    Dropout,
    Gelu,
    Layer,
    Layers,
    LeakyRelu,
    MaxPool,
    Relu,
    describe,
    find_problem,
)
from cnnjax.utils.errors import RequestError, one_of


def find_model(name: str) -> Layers | Callable[..., Any]:
    """Returns a model of the ladder or of the study's own code: its layers, or a Flax module class or factory.

    Raises:
        RequestError: there is no such model, or its layers are not valid.
    """
    model = OWN.get(name, LADDER.get(name))
    if model is None and name.endswith(".py"):
        raise RequestError("models", name, f"must name a network of the file, as in {name}:Net")
    if model is None:
        raise RequestError("models", name, one_of(name, LADDER))
    if not callable(model) and (problem := find_problem(model)):
        raise RequestError("models", name, problem)
    return model


def layers_of(name: str) -> Layers | None:
    """Returns the layers of a model of the ladder, or None for Flax modules, own models and unknown names."""
    layers = LADDER.get(name)
    return None if callable(layers) else layers


def check_precision(precision: str, platform: str) -> None:
    """Raises RequestError if the devices of a platform (cpu, gpu or tpu) lack a precision of `train.precision`."""
    if precision == "tf32" and platform != "gpu":
        raise RequestError("train.precision", precision, "only a GPU supports it; use bfloat16 or float32")


def check_convolution(method: str, platform: str) -> None:
    """Raises RequestError if the devices of a platform (cpu, gpu or tpu) lack a method of `train.convolution`."""
    if method == "pallas" and platform != "gpu":
        raise RequestError("train.convolution", method, "only a GPU supports it; use auto")
    if method == "kernels" and platform != "cpu":
        raise RequestError("train.convolution", method, "they are for CPUs; use auto")
    if method == "kernels" and importlib.util.find_spec("ziglang") is None:
        raise RequestError("train.convolution", method, "their compiler is missing; pip install 'cnnjax[kernels]'")


def described(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the layers of each model by name, as a run stores them; unknown and invalid models are left out."""
    found = {name: layers for name in names if (layers := layers_of(name)) is not None}
    return {name: [*map(describe, layers)] for name, layers in found.items() if not find_problem(layers)}


def changed(names: Iterable[str], stored: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns, for each model whose layers differ from those stored under its name, the first difference."""
    changes = {}
    for name, layers in described(names).items():
        before = [*stored.get(name, layers)]
        if before != layers:
            pairs = itertools.zip_longest(before, layers, fillvalue="none")
            changes[name] = next(f"layer {n} was {a} and is {b}" for n, (a, b) in enumerate(pairs, 1) if a != b)
    return changes


def _dense(*widths: int, dropout: Mapping[int, float] = {}, norm: bool = False) -> Layers:
    """Returns dense layers with ReLU, and the logits.

    Args:
        widths: of the dense layers.
        dropout: rates by the number of the dense layer, from 1, that the dropout follows.
        norm: whether batch norm precedes each ReLU.
    """
    layers: list[Layer] = []
    for number, width in enumerate(widths, 1):
        layers += [Dense(width), *([BatchNorm()] if norm else []), Relu()]
        layers += [Dropout(dropout[number])] if number in dropout else []
    return (*layers, Dense())


def _blocks(*features: int, dense: tuple[int, ...] = (256,)) -> Layers:
    """Returns 5x5 convolutions, each pooled, and dense layers, all with LeakyReLU; and the logits."""
    layers: list[Layer] = []
    for width in features:
        layers += [Conv(width, 5), LeakyRelu(), MaxPool()]
    for width in dense:
        layers += [Dense(width), LeakyRelu()]
    return (*layers, Dense())


def _valid(features: int, kernel_size: int, *following: Layer) -> Layers:
    """Returns a convolution without padding, a ReLU, and the following layers."""
    return (Conv(features, kernel_size, "valid"), Relu(), *following)


def _normalized(layer: Layer, dropout: Layer) -> Layers:
    return (layer, BatchNorm(), Relu(), dropout)


def _same(*features: int) -> Layers:
    """Returns 3x3 convolutions with batch norm and GELU."""
    return tuple(layer for width in features for layer in (Conv(width), BatchNorm(), Gelu()))


# Three architectures of increasing complexity, for 32x32x3 images.
_ARCHITECTURES: dict[str, Layers] = {
    "baseline": (Conv(16), Relu(), MaxPool(), Dense()),
    "medium": (
        *(Conv(32), Relu(), MaxPool()),
        *(Conv(64), Relu(), MaxPool()),
        *(Dense(256), Relu(), Dropout(0.5)),
        Dense(),
    ),
    "complex": (
        *(Conv(64), BatchNorm(), Relu()),
        *(Conv(64), Relu(), MaxPool()),
        *(Conv(128), BatchNorm(), Relu(), MaxPool()),
        *(Dense(512), Relu(), Dropout(0.6)),
        Dense(),
    ),
}

# A base network and its improvement, for 32x32x3 images; the improved one is initialized by He's rule.
_IMPROVEMENT: dict[str, Layers] = {
    "base": (
        *(Conv(32, padding="valid"), Conv(64, padding="valid"), Relu(), MaxPool()),
        *(Conv(128, padding="valid"), Conv(128, padding="valid"), Relu(), MaxPool()),
        Dense(),
    ),
    "improved": (
        *(*_same(64, 128), MaxPool(), Dropout(0.2)),
        *(*_same(256, 256), MaxPool(), Dropout(0.2)),
        *(*_same(512), MaxPool(), Dropout(0.2)),
        *(Dense(1024), Gelu(), Dropout(0.2)),
        Dense(),
    ),
}

# Dense and convolutional networks with one change each, for 32x32 gray images.
_REGULARIZATION: dict[str, Layers] = {
    "dense": _dense(512, 128, 128, 128),
    "dense_wide": _dense(512, 512, 512, 256),
    "dense_deep": _dense(512, *[128] * 7),
    "dense_batchnorm": _dense(512, 128, 128, 128, norm=True),
    "dense_dropout": _dense(512, 128, 128, 128, dropout={1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2}),
    "cnn": (*_valid(32, 3, MaxPool()), *_valid(64, 3, MaxPool()), *_dense(64)),
    "cnn_wide": (*_valid(32, 3, MaxPool()), *_valid(64, 3, MaxPool()), *_dense(128)),
    "cnn_deep": (*_valid(64, 3, MaxPool()), *_valid(128, 3, MaxPool()), *_dense(64, 64, 32)),
    "cnn_batchnorm": (
        *(Conv(32, padding="valid"), BatchNorm(), Relu(), MaxPool()),
        *(Conv(64, padding="valid"), BatchNorm(), Relu(), MaxPool()),
        *_dense(64),
    ),
    "cnn_dropout": (
        *_valid(32, 3, ChannelDropout(0.5), MaxPool()),
        *_valid(64, 3, ChannelDropout(0.5), MaxPool()),
        *_dense(64),
    ),
    "cnn_final": (
        *(*_normalized(Conv(64, 2, "valid"), ChannelDropout(0.1)), MaxPool()),
        *(*_normalized(Conv(128, 2, "valid"), ChannelDropout(0.3)), MaxPool()),
        *_normalized(Conv(256, 2, "valid"), ChannelDropout(0.5)),
        *_normalized(Conv(512, 4, "valid"), ChannelDropout(0.5)),
        *_normalized(Dense(512), Dropout(0.1)),
        *_normalized(Dense(256), Dropout(0.3)),
        *_normalized(Dense(128), Dropout(0.5)),
        *_normalized(Dense(64), Dropout(0.5)),
        Dense(),
    ),
}

# Depth, width and head, for 28x28 gray images of five classes.
_DEPTH_AND_WIDTH: dict[str, Layers] = {
    "blocks_24": _blocks(24),
    "blocks_24_48": _blocks(24, 48),
    "blocks_24_48_64": _blocks(24, 48, 64),
    "blocks_8_16": _blocks(8, 16),
    "blocks_16_32": _blocks(16, 32),
    "blocks_32_64": _blocks(32, 64),
    "blocks_40_80": _blocks(40, 80),
    "blocks_48_96": _blocks(48, 96),
    "blocks_32_64_dense": _blocks(32, 64, dense=(256, 128)),
}

# Eight trainings of five networks, for 32x32x3 images; the first is LeNet-5's shape.
_LENETS: dict[str, Layers] = {
    "lenet": (*_valid(6, 5, MaxPool()), *_valid(16, 5, MaxPool()), *_dense(120, 84)),
    "lenet_deep": (*_valid(6, 5, MaxPool()), *_valid(16, 5, MaxPool()), *_dense(200, 100, 50)),
    "lenet_32_64": (
        *(*_valid(32, 5, MaxPool()), *_valid(64, 5, MaxPool())),
        *_dense(800, 400, 200, 100, 50, dropout={2: 0.1, 4: 0.1}),
    ),
    "lenet_64_128": (
        *(*_valid(64, 5, MaxPool()), *_valid(128, 5, MaxPool())),
        *_dense(1600, 800, 400, 200, 100, 50, dropout={3: 0.1, 5: 0.1}),
    ),
    "lenet_64_128_256": (
        *(*_valid(64, 5, MaxPool()), *_valid(128, 5), *_valid(256, 5, MaxPool())),
        *_dense(1600, 800, 400, 200, 100, 50, dropout={3: 0.1, 5: 0.1}),
    ),
}


def _module(file: str, name: str) -> Callable[..., Any]:
    """Returns a function that builds a Flax module of this package. Only its call imports Flax."""

    def build(num_classes: int) -> Any:
        return getattr(importlib.import_module(f"cnnjax.models.{file}"), name)(num_classes=num_classes)

    return build


# Published networks as Flax modules, for images of about 32x32 pixels.
_MODULES: dict[str, Callable[..., Any]] = {
    **{name: _module("resnet", name) for name in ("resnet20", "resnet32", "resnet56", "resnet18", "wrn16_4")},
    **{name: _module("patch_networks", name) for name in ("vit", "mixer")},
}

# Layers, or a Flax module class or a function that returns one of the two.
LADDER: dict[str, Any] = _ARCHITECTURES | _IMPROVEMENT | _REGULARIZATION | _DEPTH_AND_WIDTH | _LENETS | _MODULES

OWN: dict[str, Any] = {}  # the own models of the study that this process runs, by their references
