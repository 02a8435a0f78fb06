"""Test-time augmentation: the logits of an image are means over views of it."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# For each kind, the weight of the image itself, and that of each of its two shifts. Of each half is the mirror image's.
# The shifts and weights are those of airbench (Jordan 2024, arXiv:2404.00498).
_WEIGHTS = {"flip": (1.0, 0.0), "flip+shift": (0.5, 0.25)}


def averaged_logits(
    network: Callable[[Array], Array], images: Float[Array, "B H W C"], kind: str
) -> Float[Array, "B K"]:
    """Returns the weighted mean of a network's logits over the views of each image.

    Args:
        network: returns the logits of images.
        images: normalized.
        kind: 'none': the image alone. 'flip': the image and its mirror image. 'flip+shift': these with weight 1/4 each,
            and with weight 1/8 each the image moved by a pixel up and left, or down and right, and their mirror images.
            What a move uncovers is reflected.
    """
    if kind == "none":
        return network(images)
    of_image, of_shift = _WEIGHTS[kind]
    views, weights = [images], [of_image]
    if of_shift:
        _, height, width, _ = images.shape
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        views += [padded[:, first : first + height, first : first + width] for first in (2, 0)]
        weights += [of_shift, of_shift]
    both = jnp.stack([turned for view in views for turned in (view, view[:, :, ::-1])])
    halves = jnp.repeat(jnp.array(weights), 2) / 2
    return (halves[:, None, None] * lax.map(network, both)).sum(0)  # one view after another: compiled once
