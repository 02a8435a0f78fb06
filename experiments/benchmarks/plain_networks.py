"""Two networks of the ladder as a user of Flax writes them."""

import flax.linen as nn
from jaxtyping import Array, Float


class Medium(nn.Module):
    """`medium` of the ladder in plain Flax."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool) -> Float[Array, "N K"]:
        """Returns the logits."""
        for features in (32, 64):
            x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)


class Complex(nn.Module):
    """`complex` of the ladder in plain Flax."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool) -> Float[Array, "N K"]:
        """Returns the logits."""

        def normed(x: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(normed(nn.Conv(64, (3, 3))(x)))
        x = nn.max_pool(nn.relu(nn.Conv(64, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.max_pool(nn.relu(normed(nn.Conv(128, (3, 3))(x))), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(512)(x.reshape(len(x), -1)))
        x = nn.Dropout(0.6, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)
