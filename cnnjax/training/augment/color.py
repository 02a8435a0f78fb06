"""Brightness and contrast of images with pixels of 0..255, as torchvision's ColorJitter changes them."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from cnnjax.training.augment.draws import draw

_GRAY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


def change_brightness(images: Float[Array, "B H W C"], words_B: UInt32[Array, " B"], amount: float) -> Array:
    """Multiplies each image by a factor, uniform in [max(0, 1 - amount), 1 + amount], and clips it to 0..255."""
    return jnp.clip(images * _factors(amount, words_B, "brightness"), 0, 255)


def change_contrast(images: Float[Array, "B H W C"], words_B: UInt32[Array, " B"], amount: float) -> Array:
    """Moves each image away from its mean gray value, by a factor as above, and clips it to 0..255."""
    factors = _factors(amount, words_B, "contrast")
    gray = images @ jnp.array(_GRAY) if images.shape[-1] == 3 else images.mean(-1)
    mean = gray.mean((1, 2))[:, None, None, None]
    return jnp.clip(factors * images + (1 - factors) * mean, 0, 255)


def _factors(amount: float, words_B: Array, name: str) -> Array:
    least = max(0.0, 1 - amount)
    return (least + (1 + amount - least) * draw(words_B, name, 1)[0])[:, None, None, None]
