"""Residual networks in PyTorch. Their modules have the names of Flax's, and so have their weights."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def _conv(channels: int, features: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    """As `cnnjax.models.resnet.Block`."""

    def __init__(self, channels: int, features: int, stride: int, projects: bool):
        super().__init__()
        self.stride, self.new = stride, features - channels
        self.Conv_0, self.BatchNorm_0 = _conv(channels, features, 3, stride), nn.BatchNorm2d(features)
        self.Conv_1, self.BatchNorm_1 = _conv(features, features), nn.BatchNorm2d(features)
        if projects and (stride > 1 or self.new):
            self.Conv_2, self.BatchNorm_2 = _conv(channels, features, 1, stride), nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the output for images [N, C, H, W]."""
        y = self.BatchNorm_1(self.Conv_1(F.relu(self.BatchNorm_0(self.Conv_0(x)))))
        if hasattr(self, "Conv_2"):
            x = self.BatchNorm_2(self.Conv_2(x))
        elif self.new:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new // 2))
        return F.relu(x + y)


class WideBlock(nn.Module):
    """As `cnnjax.models.resnet.WideBlock`, if the number of channels changes."""

    def __init__(self, channels: int, features: int, stride: int):
        super().__init__()
        self.BatchNorm_0, self.BatchNorm_1 = nn.BatchNorm2d(channels), nn.BatchNorm2d(features)
        self.Conv_0 = _conv(channels, features, 1, stride)
        self.Conv_1, self.Conv_2 = _conv(channels, features, 3, stride), _conv(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the output for images [N, C, H, W]."""
        y = F.relu(self.BatchNorm_0(x))
        return self.Conv_0(y) + self.Conv_2(F.relu(self.BatchNorm_1(self.Conv_1(y))))


class ResNet(nn.Module):
    """As `cnnjax.models.resnet.ResNet`."""

    def __init__(self, widths: tuple[int, ...], blocks: int, projects: bool, num_classes: int = 10):
        super().__init__()
        self.Conv_0, self.BatchNorm_0 = _conv(3, widths[0]), nn.BatchNorm2d(widths[0])
        self.blocks: list[str] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for number in range(blocks):
                name = f"Block_{len(self.blocks)}"
                self.add_module(name, Block(channels, width, 2 if stage and not number else 1, projects))
                self.blocks.append(name)
                channels = width
        self.Dense_0 = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the output for images [N, C, H, W]."""
        x = F.relu(self.BatchNorm_0(self.Conv_0(x)))
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return self.Dense_0(x.mean((2, 3)))


_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def load(module: nn.Module, variables: dict[str, Any]) -> None:
    """Copies the variables of a Flax module into a module of the same structure."""
    state = {}
    for collection in variables.values():
        for name, array in _flat(collection).items():
            *path, leaf = name.split("/")
            array = array.transpose(*((3, 2, 0, 1) if array.ndim == 4 else range(array.ndim)[::-1]))
            state[".".join([*path, _LEAVES[leaf]])] = torch.tensor(array)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)


def gradients(module: nn.Module) -> dict[str, np.ndarray]:
    """Returns the gradients by the names of Flax, with Flax's layout."""
    found = {}
    for name, parameter in module.named_parameters():
        *path, leaf = name.split(".")
        grad = parameter.grad.numpy()
        grad = grad.transpose(*((2, 3, 1, 0) if grad.ndim == 4 else range(grad.ndim)[::-1]))
        is_scale = leaf == "weight" and grad.ndim == 1
        found["/".join([*path, "scale" if is_scale else {"weight": "kernel", "bias": "bias"}[leaf]])] = grad
    return found


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: np.asarray(value)}
    return found
