"""Losses of examples, and their mean over a batch. Pure functions."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from cnnjax.models.shards import mean_over_shards
from cnnjax.study import losses as names
from cnnjax.study import own_code

# (logits [B, K], targets [B, K], which are probabilities) -> losses [B]
Loss: TypeAlias = Callable[[Float[Array, "B K"], Float[Array, "B K"]], Float[Array, " B"]]
Labels: TypeAlias = Int[Array, " B"] | Float[Array, "B K"]  # classes, or soft labels: a probability of each class

_LEAST = 1e-12  # of 1 - p, because the gradient of (1 - p)^gamma is infinite at 0 if gamma < 1


def load_loss(name: str) -> Loss | None:
    """Returns the function of a value of `train.loss`; None for the cross-entropy, which needs no targets [B, K].

    Raises:
        RequestError: the file of a user's loss fails, or has no such function.
    """
    if name == names.CROSS_ENTROPY:
        return None
    if (gamma := names.focal_gamma(name)) is not None:
        return lambda logits, targets: focal(logits, targets, gamma)
    built_in: dict[str, Loss] = {"binary": binary, "brier": brier}
    return built_in[name] if name in built_in else own_code.load("train.loss", name)


def losses_of(loss: Loss | None, logits: Float[Array, "B K"], labels: Labels, smoothing: Array) -> Float[Array, " B"]:
    """Returns the losses of a batch's examples, with label smoothing.

    Smoothing gives every class the same share of the target (Szegedy et al. 2016, section 7).

    Args:
        loss: as `load_loss` returns it.
        logits: of the network.
        labels: classes, or soft labels.
        smoothing: share of the target that is spread evenly over all classes.
    """
    if loss is not None:
        targets = jax.nn.one_hot(labels, logits.shape[-1]) if labels.ndim == 1 else labels
        return loss(logits, (1 - smoothing) * targets + smoothing / logits.shape[-1])
    log_probabilities = jax.nn.log_softmax(logits)
    if labels.ndim == 1:
        of_label = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
    else:
        of_label = -(labels * log_probabilities).sum(-1)
    of_all = -log_probabilities.mean(-1)
    return (1 - smoothing) * of_label + smoothing * of_all


def focal(logits: Float[Array, "B K"], targets: Float[Array, "B K"], gamma: float) -> Float[Array, " B"]:
    """Returns the cross-entropy with the term of each class times (1 - p)^gamma (Lin et al. 2017, equation 4)."""
    log_probabilities = jax.nn.log_softmax(logits)
    others = jnp.maximum(-jnp.expm1(log_probabilities), _LEAST)
    return -(targets * others**gamma * log_probabilities).sum(-1)


def binary(logits: Float[Array, "B K"], targets: Float[Array, "B K"]) -> Float[Array, " B"]:
    """Returns the mean over classes of the binary cross-entropy of each class against the rest."""
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


def brier(logits: Float[Array, "B K"], targets: Float[Array, "B K"]) -> Float[Array, " B"]:
    """Returns the squared error of the probabilities, summed over classes (Brier 1950)."""
    return ((jax.nn.softmax(logits) - targets) ** 2).sum(-1)


def class_weights(name: str | None, labels: Int[Array, " N"], num_classes: int) -> Float[Array, " K"] | None:
    """Returns the weight of each class; None if all are equal.

    Balanced weights are n / (K n_c), with n_c of the n labels in class c, as scikit-learn's `compute_class_weight`.

    Args:
        name: a level of `train.class_weights`.
        labels: of the training split.
        num_classes: the number K of classes.
    """
    if name is None:
        return None
    if name == names.BALANCED:
        counts = jnp.bincount(labels, length=num_classes)
        return len(labels) / (num_classes * jnp.maximum(counts, 1.0))
    return jnp.array(names.class_weight_numbers(name), jnp.float32)


def weights_of(labels: Labels, weights_K: Float[Array, " K"] | None) -> Float[Array, " B"] | None:
    """Returns the weight of each example: that of its class, or the mean over its soft label; None without weights."""
    if weights_K is None:
        return None
    return weights_K[labels] if labels.ndim == 1 else labels @ weights_K


def weighted_mean(losses: Float[Array, " B"], weights: Float[Array, " B"] | None, shards: int = 1) -> Float[Array, ""]:
    """Returns the mean of losses: their sum with weights, divided by the sum of the weights, as PyTorch does.

    The mean of a batch in `shards` is that of its shards' results.
    """
    return losses.mean() if weights is None else (losses * weights).sum() / mean_over_shards(weights.sum(), shards)
