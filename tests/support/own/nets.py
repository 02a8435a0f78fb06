"""Networks as a user writes them: plain Flax modules, which know nothing of cnnjax."""

import flax.linen as nn
from flax import nnx


class ResNet(nn.Module):
    """A residual network with a strided block, a projection, batch norm and dropout."""

    num_classes: int
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x, train):
        def normed(y):
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(y)

        x = nn.relu(normed(nn.Conv(4, (3, 3), padding=1)(x)))
        for features, stride in ((4, 1), (8, 2)):
            y = nn.relu(normed(nn.Conv(features, (3, 3), stride, padding=1, use_bias=False)(x)))
            y = normed(nn.Conv(features, (3, 3), padding=1, use_bias=False)(y))
            if x.shape != y.shape:
                x = normed(nn.Conv(features, (1, 1), stride, use_bias=False)(x))
            x = nn.relu(x + y)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes)(x)


class Depthwise(nn.Module):
    """Separable convolutions without batch norm, in a module that does not take `train`."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(8, (3, 3), padding=1)(x))
        x = nn.Conv(8, (3, 3), padding=1, feature_group_count=8)(x)
        x = nn.gelu(nn.Conv(12, (1, 1))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class ViT(nn.Module):
    """One block of a vision transformer over patches of 4x4 pixels."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), 4, padding="VALID")(x)
        x = x.reshape(len(x), -1, 8)
        x = x + self.param("place", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(self.num_classes)(x.mean(1))


class Small(nnx.Module):
    """An NNX module with batch norm and dropout."""

    def __init__(self, num_classes, image_shape, rngs, dropout=0.2):
        self.conv = nnx.Conv(image_shape[-1], 8, (3, 3), padding=1, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(dropout, rngs=rngs)
        self.out = nnx.Linear(8, num_classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        return self.out(self.drop(x))


def resnet_without_dropout(num_classes):
    """Returns the residual network for comparisons with other libraries, whose masks differ."""
    return ResNet(num_classes, dropout=0.0)


def small_without_dropout(num_classes, image_shape, rngs):
    """Returns the NNX module for comparisons with other libraries, whose masks differ."""
    return Small(num_classes, image_shape, rngs, dropout=0.0)
