"""The networks of the ladder in plain PyTorch, and their weights as Flax trees.

A Flax tree here is what cnnjax's models use: `params` is `{'conv0': {'kernel', 'bias'},
'bn0': {'scale', 'bias'}, 'dense0': {'kernel', 'bias'}, ...}`, `batch_stats` is
`{'bn0': {'mean', 'var'}, ...}`, numbered per kind in order of appearance. Convolution kernels are
(height, width, in, out), dense kernels (out, in); leaves have the module's dtype.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from cnnjax.models import ladder
from experiments.benchmarks.torch_resnet import ResNet

Tree = dict[str, dict[str, np.ndarray]]

_KINDS = {nn.Conv2d: "conv", nn.BatchNorm1d: "bn", nn.BatchNorm2d: "bn", nn.Linear: "dense"}
_ACTIVATIONS = {ladder.Relu: nn.ReLU, ladder.LeakyRelu: nn.LeakyReLU, ladder.Gelu: nn.GELU}


def _modules(layers: ladder.Layers, channels: int, size: int, classes: int) -> Iterator[nn.Module]:
    """PyTorch's module for each layer of a rung; `channels` counts units once the images are flattened."""
    is_flat = False
    for layer in layers:
        match layer:
            case ladder.Conv():
                padding = (layer.kernel_size - 1) // 2 if layer.padding == "same" else 0  # kernels are odd there
                yield nn.Conv2d(channels, layer.features, layer.kernel_size, padding=padding)
                size += 2 * padding - layer.kernel_size + 1
                channels = layer.features
            case ladder.Dense():
                if not is_flat:
                    yield nn.Flatten()
                    is_flat, channels = True, channels * size**2
                features = classes if layer.features is None else layer.features
                yield nn.Linear(channels, features)
                channels = features
            case ladder.BatchNorm():
                yield nn.BatchNorm1d(channels) if is_flat else nn.BatchNorm2d(channels)
            case ladder.MaxPool():
                yield nn.MaxPool2d(2)
                size //= 2
            case ladder.Dropout():
                yield nn.Dropout(layer.rate)
            case ladder.ChannelDropout():
                yield nn.Dropout2d(layer.rate)
            case _:
                yield _ACTIVATIONS[type(layer)]()


# Widths of the stages, blocks in each, and whether shortcuts are convolutions.
_RESNETS = {
    "resnet18": ((64, 128, 256, 512), 2, True),
    **{f"resnet{6 * blocks + 2}": ((16, 32, 64), blocks, False) for blocks in (3, 5, 9)},
}


def build(name: str, channels: int = 3, image_size: int = 32, classes: int = 10) -> nn.Module:
    """Builds a model with PyTorch's default initialisation.

    Args:
        name: a rung of the ladder.
        channels: channels of the images.
        image_size: height and width of the images.
        classes: width of the last layer.

    Returns:
        A module from float images (batch, channels, image_size, image_size) to logits
        (batch, classes): for a tuple of layers an `nn.Sequential`. Layers that hold weights are
        named as in the Flax tree.

    Raises:
        KeyError: there is no such rung.
    """
    if name in _RESNETS:
        return ResNet(*_RESNETS[name], num_classes=classes)
    seen: Counter[str] = Counter()
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in _modules(ladder.LADDER[name], channels, image_size, classes):
        kind = _KINDS.get(type(layer), type(layer).__name__.lower())
        layers[f"{kind}{seen[kind]}"] = layer
        seen[kind] += 1
    module = nn.Sequential(layers)
    module.image_channels = channels  # type: ignore[assignment]
    return module


def state(module: nn.Sequential) -> tuple[Tree, Tree]:
    """Returns copies of a module's weights and running statistics as (params, batch_stats)."""
    params = _tree(module, lambda parameter: parameter)
    batch_stats = {
        name: {"mean": _array(layer.running_mean), "var": _array(layer.running_var)}
        for name, layer in module.named_children()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
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
            shape = hwio if parameter.ndim == 4 else (hwio[3], math.prod(hwio[:3]))
        if array.shape != shape:  # copy_ would broadcast
            raise ValueError(f"{name}: {leaf} of shape {array.shape}, not {shape}")
        if hwio is not None:
            array = array.reshape(hwio) if parameter.ndim == 4 else array.T.reshape(hwio)
            array = array.transpose(3, 2, 0, 1).reshape(parameter.shape)
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
            array = array if parameter.ndim == 4 else array.reshape(-1, outputs).T
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
    channels = int(getattr(module, "image_channels", 0))  # type: ignore[arg-type]
    for name, layer in module.named_children():
        match layer:
            case nn.Conv2d():
                channels, inputs, height, width = layer.weight.shape
                hwio: tuple[int, int, int, int] | None = (height, width, inputs, channels)
            case nn.Linear():
                size = math.isqrt(layer.in_features // channels)
                hwio = (size, size, channels, layer.out_features)
                channels = layer.out_features
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                hwio = None
            case _:
                continue
        yield name, "scale" if hwio is None else "kernel", layer.weight, hwio
        yield name, "bias", module.get_parameter(f"{name}.bias"), None


def _array(tensor: torch.Tensor | None) -> np.ndarray:
    if tensor is None:
        raise ValueError("no gradient: call backward first")
    return tensor.detach().cpu().numpy().copy()
