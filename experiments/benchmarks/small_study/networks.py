"""The two networks of the study in Flax."""

import flax.linen as nn
from jaxtyping import Array, Float


class Small(nn.Module):
    """Two convolutions."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N K"]:
        """Returns the logits."""
        for features in (16, 32):
            x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Large(nn.Module):
    """Two wider convolutions and a dense layer."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N K"]:
        """Returns the logits."""
        for features in (32, 64):
            x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(x)
