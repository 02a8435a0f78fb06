"""The layers of the ladder in PyTorch, as a function of the weights of `Network`: the reference of its gradients."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from cnnjax.models import specs

Params = dict[str, dict[str, torch.Tensor]]


def apply(layers: Sequence[specs.Layer], params: Params, images_NxHxWxC: torch.Tensor) -> torch.Tensor:
    """Returns the logits in training, without dropout."""
    seen: Counter[str] = Counter()

    def take(kind: str) -> dict[str, torch.Tensor]:
        seen[kind] += 1
        return params[f"{kind}{seen[kind] - 1}"]

    return _apply(layers, images_NxHxWxC.permute(0, 3, 1, 2), take)


def _apply(layers: Sequence[specs.Layer], x: torch.Tensor, take: Callable[[str], Any]) -> torch.Tensor:
    for layer in layers:
        match layer:
            case specs.Conv():
                leaves, around = take("conv"), layer.dilation * (layer.kernel_size - 1)
                if layer.padding == "same":
                    x = F.pad(x, (around // 2, around - around // 2) * 2)
                numbers = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
                x = F.conv2d(x, leaves["kernel"].permute(3, 2, 0, 1), leaves.get("bias"), **numbers)
            case specs.Dense():
                leaves = take("dense")
                flat = x if x.ndim == 2 else x.permute(0, 2, 3, 1).flatten(1)
                x = F.linear(flat, leaves["kernel"], leaves.get("bias"))
            case specs.BatchNorm():
                leaves = take("bn")
                x = F.batch_norm(x, None, None, leaves["scale"], leaves["bias"], training=True)
            case specs.LayerNorm():
                leaves = take("ln")
                x = F.layer_norm(x.movedim(1, -1), x.shape[1:2], leaves["scale"], leaves["bias"]).movedim(-1, 1)
            case specs.GroupNorm(groups):
                leaves = take("gn")
                x = F.group_norm(x, groups, leaves["scale"], leaves["bias"])
            case specs.MaxPool(window, stride):
                x = F.max_pool2d(x, window, stride)
            case specs.AvgPool(window, stride):
                x = F.avg_pool2d(x, window, stride)
            case specs.GlobalAvgPool():
                x = F.adaptive_avg_pool2d(x, 1).flatten(1)
            case specs.Residual(branch, shortcut):
                x = _apply(branch, x, take) + _apply(shortcut, x, take)
            case _:
                x = _ACTIVATIONS[type(layer)](x)
    return x


_ACTIVATIONS = {specs.Relu: F.relu, specs.LeakyRelu: F.leaky_relu, specs.Gelu: F.gelu, specs.Silu: F.silu}
