"""Residual networks for images of about 32x32 pixels, as Flax Linen modules."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

_Norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


def _conv(features: int, size: int = 3, stride: int = 1) -> nn.Conv:
    """Returns a convolution without bias, padded as in PyTorch."""
    initial = nn.initializers.kaiming_normal()
    return nn.Conv(features, (size, size), stride, padding=size // 2, use_bias=False, kernel_init=initial)


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, figure 2).

    Where the shape changes, the shortcut is a strided 1x1 convolution if it `projects` (option B). Otherwise it reads
    every other pixel, and new channels are zero (option A).
    """

    features: int
    stride: int
    projects: bool

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool) -> Float[Array, "N P Q F"]:
        """Returns the block's output."""
        norm = functools.partial(_Norm, use_running_average=not train)
        y = nn.relu(norm()(_conv(self.features, 3, self.stride)(x)))
        y = norm()(_conv(self.features)(y))
        if x.shape != y.shape and self.projects:
            x = norm()(_conv(self.features, 1, self.stride)(x))
        elif x.shape != y.shape:
            new = self.features - x.shape[-1]
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual network (He et al. 2016), in the form for CIFAR: the first convolution is 3x3, without a max-pool.

    Attributes:
        num_classes: number of logits.
        widths: channels of each stage; every stage after the first halves height and width.
        blocks: number of blocks in each stage. With three stages the network has 6 * blocks + 2 layers.
        projects: whether shortcuts between stages are convolutions, see `Block`.
    """

    num_classes: int
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 3
    projects: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Returns the logits."""
        x = nn.relu(_Norm(use_running_average=not train)(_conv(self.widths[0])(images)))
        for stage, width in enumerate(self.widths):
            for number in range(self.blocks):
                x = Block(width, 2 if stage and not number else 1, self.projects)(x, train)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class WideBlock(nn.Module):
    """Two convolutions, each behind batch norm and ReLU, and a shortcut (Zagoruyko & Komodakis 2016)."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool) -> Float[Array, "N P Q F"]:
        """Returns the block's output."""
        norm = functools.partial(_Norm, use_running_average=not train)
        y = nn.relu(norm()(x))
        if x.shape[-1] != self.features or self.stride > 1:
            x = _conv(self.features, 1, self.stride)(y)
        y = nn.relu(norm()(_conv(self.features, 3, self.stride)(y)))
        return x + _conv(self.features)(y)


class WideResNet(nn.Module):
    """Wide residual network WRN-depth-width without dropout (Zagoruyko & Komodakis 2016, table 1).

    Attributes:
        num_classes: number of logits.
        depth: number of layers, 6 * n + 4.
        width: factor of the channels 16, 32 and 64 of the three stages.
    """

    num_classes: int
    depth: int = 16
    width: int = 4

    @nn.compact
    def __call__(self, images: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Returns the logits."""
        x = _conv(16)(images)
        for stage in range(3):
            for number in range((self.depth - 4) // 6):
                x = WideBlock(16 * 2**stage * self.width, 2 if stage and not number else 1)(x, train)
        x = nn.relu(_Norm(use_running_average=not train)(x))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


resnet20 = ResNet
resnet32 = functools.partial(ResNet, blocks=5)
resnet56 = functools.partial(ResNet, blocks=9)
resnet18 = functools.partial(ResNet, widths=(64, 128, 256, 512), blocks=2, projects=True)
wrn16_4 = WideResNet
