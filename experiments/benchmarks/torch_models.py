"""The models of the first two source studies in plain PyTorch, and their weights as Flax trees.

A Flax tree here is what cnnjax's models use: `params` is `{'conv0': {'kernel', 'bias'},
'bn0': {'scale', 'bias'}, 'dense0': {'kernel', 'bias'}, ...}`, `batch_stats` is
`{'bn0': {'mean', 'var'}, ...}`, numbered per kind in order of appearance. Convolution kernels are
(height, width, in, out), dense kernels (in, out); leaves have the module's dtype.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

Tree = dict[str, dict[str, np.ndarray]]

_KINDS = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.Linear: "dense"}


def _baseline(channels: int, size: int, classes: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (size // 2) ** 2, classes),
    ]


def _medium(channels: int, size: int, classes: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (size // 4) ** 2, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, classes),
    ]


def _complex(channels: int, size: int, classes: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * (size // 4) ** 2, 512),
        nn.ReLU(),
        nn.Dropout(0.6),
        nn.Linear(512, classes),
    ]


def _base(channels: int, size: int, classes: int) -> list[nn.Module]:
    # An unpadded 3x3 convolution takes 2 pixels, a pool halves: 32-30-28-14-12-10-5.
    last = ((size - 4) // 2 - 4) // 2
    return [
        nn.Conv2d(channels, 32, 3),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3),
        nn.Conv2d(128, 128, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * last**2, classes),
    ]


MODELS: dict[str, Callable[[int, int, int], list[nn.Module]]] = {
    "baseline": _baseline,
    "medium": _medium,
    "complex": _complex,
    "base": _base,
}


def build(name: str, channels: int = 3, image_size: int = 32, classes: int = 10) -> nn.Sequential:
    """Builds a model with PyTorch's default initialisation.

    Args:
        name: a key of `MODELS`.
        channels: channels of the images.
        image_size: height and width of the images.
        classes: width of the last layer.

    Returns:
        A module from float images (batch, channels, image_size, image_size) to logits
        (batch, classes). Layers that hold weights are named as in the Flax tree.

    Raises:
        KeyError: `name` is not in `MODELS`.
    """
    seen: Counter[str] = Counter()
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in MODELS[name](channels, image_size, classes):
        kind = _KINDS.get(type(layer), type(layer).__name__.lower())
        layers[f"{kind}{seen[kind]}"] = layer
        seen[kind] += 1
    return nn.Sequential(layers)


def state(module: nn.Sequential) -> tuple[Tree, Tree]:
    """Returns copies of a module's weights and running statistics as (params, batch_stats)."""
    params = _tree(module, lambda parameter: parameter)
    batch_stats = {
        name: {"mean": _array(layer.running_mean), "var": _array(layer.running_var)}
        for name, layer in module.named_children()
        if isinstance(layer, nn.BatchNorm2d)
    }
    return params, batch_stats


def gradients(module: nn.Sequential) -> Tree:
    """Returns copies of the gradients that the last `backward` left, as a tree like `params`."""
    return _tree(module, lambda parameter: parameter.grad)


@torch.no_grad()
def load_flax(module: nn.Sequential, params: Tree, batch_stats: Tree | None = None) -> None:
    """Copies a Flax tree into a module of the same model.

    Args:
        module: what `build` returned; changed in place.
        params: the tree of weights; leaves may be any array that NumPy can read.
        batch_stats: the tree of running statistics; without it those of the module stay.

    Raises:
        KeyError: a layer of the module is not in the tree.
        ValueError: the tree has a layer that the module lacks, or a leaf of another shape.
    """
    batch_stats = batch_stats or {}
    names = {name for name, *_ in _leaves(module)}
    if extra := sorted({*params, *batch_stats} - names):
        raise ValueError(f"the module has no layers {', '.join(extra)}")
    for name, leaf, parameter, hwio in _leaves(module):
        array = np.asarray(params[name][leaf])
        shape = tuple(parameter.shape)
        if hwio is not None:
            shape = hwio if parameter.ndim == 4 else (math.prod(hwio[:3]), hwio[3])
        if array.shape != shape:  # copy_ would broadcast
            raise ValueError(f"{name}: {leaf} of shape {array.shape}, not {shape}")
        if hwio is not None:
            array = array.reshape(hwio).transpose(3, 2, 0, 1).reshape(parameter.shape)
        parameter.copy_(torch.tensor(array))
    for name, statistics in batch_stats.items():
        module.get_buffer(f"{name}.running_mean").copy_(torch.tensor(statistics["mean"]))
        module.get_buffer(f"{name}.running_var").copy_(torch.tensor(statistics["var"]))


def _tree(module: nn.Sequential, of: Callable[[torch.Tensor], torch.Tensor | None]) -> Tree:
    """Reads one tensor per parameter, in PyTorch's layout, into a tree in Flax's."""
    tree: Tree = {}
    for name, leaf, parameter, hwio in _leaves(module):
        array = _array(of(parameter))
        if hwio is not None:
            height, width, inputs, outputs = hwio
            array = array.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
            array = array if parameter.ndim == 4 else array.reshape(-1, outputs)
        tree.setdefault(name, {})[leaf] = np.ascontiguousarray(array)
    return tree


def _leaves(
    module: nn.Sequential,
) -> Iterator[tuple[str, str, torch.Tensor, tuple[int, int, int, int] | None]]:
    """Yields layer, leaf, parameter and, for kernels, the (height, width, in, out) they stand for.

    A dense layer is read as a convolution over all of its input: the first one sees the last
    feature map, which PyTorch flattens channels first and Flax channels last; the others see 1x1
    maps.
    """
    channels = 0
    for name, layer in module.named_children():
        match layer:
            case nn.Conv2d():
                channels, inputs, height, width = layer.weight.shape
                hwio: tuple[int, int, int, int] | None = (height, width, inputs, channels)
            case nn.Linear():
                size = math.isqrt(layer.in_features // channels)
                hwio = (size, size, channels, layer.out_features)
                channels = layer.out_features
            case nn.BatchNorm2d():
                hwio = None
            case _:
                continue
        yield name, "scale" if hwio is None else "kernel", layer.weight, hwio
        yield name, "bias", module.get_parameter(f"{name}.bias"), None


def _array(tensor: torch.Tensor | None) -> np.ndarray:
    if tensor is None:
        raise ValueError("no gradient: call backward first")
    return tensor.detach().cpu().numpy().copy()
