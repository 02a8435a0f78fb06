"""Layers that are computed together. Pure Python: imports no jax."""

import dataclasses

from cnnjax.models.specs import ChannelDropout, Conv, Layer, LeakyRelu, MaxPool, Relu


@dataclasses.dataclass(frozen=True)
class ConvPool:
    """A convolution, a ReLU and a max-pool, fused."""

    conv: Conv


_MONOTONE = (Relu, LeakyRelu, ChannelDropout)  # they keep the order of a channel's pixels


def fused(layers: tuple[Layer, ...]) -> tuple[Layer | ConvPool, ...]:
    """Returns layers that compute the same function with less work.

    A max-pool moves before layers that keep the order of a channel's pixels. Convolution, max-pool and ReLU are fused.
    """
    moved: list[Layer] = []
    for layer in layers:
        place = len(moved)
        while isinstance(layer, MaxPool) and place and isinstance(moved[place - 1], _MONOTONE):
            place -= 1
        moved.insert(place, layer)
    result: list[Layer | ConvPool] = []
    for each in moved:
        match (*result[-2:], each):
            case (Conv(stride=1, groups=1, dilation=1) as conv, MaxPool(2, None | 2), Relu()):
                result[-2:] = [ConvPool(conv)]
            case _:
                result.append(each)
    return tuple(result)
