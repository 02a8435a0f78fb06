"""Networks of patches of an image, as Flax Linen modules: a vision transformer and an MLP-Mixer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


def _patches(images: Float[Array, "N H W C"], size: int, width: int) -> Float[Array, "N T D"]:
    """Returns a linear map of each patch, row by row: one token for each. Creates a convolution."""
    _, height, columns, _ = images.shape
    if height % size or columns % size:
        raise ValueError(f"images of {height}x{columns} cannot be cut into patches of {size}x{size}")
    tokens = nn.Conv(width, (size, size), size, padding="VALID")(images)
    return tokens.reshape(len(images), -1, width)


class Mlp(nn.Module):
    """A dense layer, GELU, and a dense layer that restores the number of units."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Returns the output for each vector."""
        hidden = nn.gelu(nn.Dense(self.hidden)(x), approximate=False)
        return nn.Dense(x.shape[-1])(hidden)


class VisionTransformer(nn.Module):
    """Vision transformer with a class token and learned positions (Dosovitskiy et al. 2021).

    Attributes:
        num_classes: number of logits.
        patch: height and width of a patch in pixels.
        width: units of a token; the MLPs have four times as many hidden units.
        depth: number of layers.
        heads: number of attention heads; it divides `width`.
    """

    num_classes: int
    patch: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4

    @nn.compact
    def __call__(self, images: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Returns the logits."""
        x = _patches(images, self.patch, self.width)
        first = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, self.width)).astype(x.dtype), x], 1)
        x += self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:])).astype(x.dtype)
        for _ in range(self.depth):
            x += nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
            x += Mlp(4 * self.width)(nn.LayerNorm()(x))
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x)[:, 0])


class MlpMixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021): MLPs over the tokens of each unit, and over the units of each token.

    Attributes:
        num_classes: number of logits.
        patch: height and width of a patch in pixels.
        width: units of a token.
        depth: number of layers.
        token_hidden: hidden units of the MLPs over tokens.
        unit_hidden: hidden units of the MLPs over units.
    """

    num_classes: int
    patch: int = 4
    width: int = 128
    depth: int = 8
    token_hidden: int = 64
    unit_hidden: int = 512

    @nn.compact
    def __call__(self, images: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Returns the logits."""
        x = _patches(images, self.patch, self.width)
        for _ in range(self.depth):
            x += Mlp(self.token_hidden)(nn.LayerNorm()(x).swapaxes(1, 2)).swapaxes(1, 2)
            x += Mlp(self.unit_hidden)(nn.LayerNorm()(x))
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x).mean(1))


vit = VisionTransformer
mixer = MlpMixer
