"""Evaluation of one member: sums over every example of a split, divided once. Pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from cnnjax.models.network import Network
from cnnjax.training.augment import gather_batch

EVALUATION_BATCH = 256  # the largest number of images at a time; it changes results by rounding only


class DeviceSplit(NamedTuple):
    """A split on the device, with the constants that normalize its pixels."""

    images: Array  # uint8 [N, H, W, C]
    labels: Array  # int32 [N]
    scale: Array  # float32 [C]
    shift: Array  # float32 [C]
    words: Array | None = None  # uint32 [N], random: they augment the images of an evaluation; None: no augmentation


class Sums(NamedTuple):
    """Loss and correct predictions, summed over examples."""

    loss: Float[Array, ""]
    correct: Int[Array, ""]


def batch_sums(
    logits_BxK: Float[Array, "B K"], labels_B: Int[Array, " B"], counts_B: Bool[Array, " B"] | bool = True
) -> Sums:
    """Returns the sums of the cross-entropy (nats) and of correct predictions over the examples that count."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_BxK, labels_B)
    correct = logits_BxK.argmax(-1) == labels_B
    return Sums(jnp.where(counts_B, losses, 0).sum(), (correct & counts_B).sum())


def over_batches(visit: Callable, carry: Any, count: int) -> tuple:
    """Runs `carry, output = visit(carry, indices)` over a split in order, in a scan of equal batches.

    If the batches do not divide the split, the last indices are `count` or larger, and `visit` has to ignore them. A
    smaller last batch would have to be compiled separately.

    Returns:
        The last carry, and the outputs as one array with the examples' axis first (None if `visit` returns None).
    """
    batches = -(-count // EVALUATION_BATCH)
    indices = jnp.arange(batches * -(-count // batches)).reshape(batches, -1)
    carry, outputs = lax.scan(visit, carry, indices)
    return carry, None if outputs is None else outputs.reshape(-1, *outputs.shape[2:])[:count]


class Measures(NamedTuple):
    """Metrics of a network on a split: means over the examples, and macro means over all classes."""

    loss: Float[Array, ""]  # cross-entropy, nats
    accuracy: Float[Array, ""]
    precision: Float[Array, ""]
    recall: Float[Array, ""]
    f1: Float[Array, ""]


def evaluate(network: Network, variables: dict, split: DeviceSplit, augment: tuple[str, ...] = ()) -> Measures:
    """Returns the metrics of a network on a whole split, each example once.

    A class that is never predicted, or never true, counts as 0 in the macro means. If a logit is NaN, all metrics are
    NaN, because `argmax` would predict the first class.

    Args:
        network: the network.
        variables: of the network.
        split: the split.
        augment: of the images, see `gather_batch`; used if the split has random words.
    """
    count, num_classes = split.labels.shape[0], network.num_classes

    def visit(carry: tuple[Array, Array], indices: Array) -> tuple[tuple[Array, Array], None]:
        loss, confusion = carry
        logits = _logits(network, variables, split, augment, indices)
        labels, counts = split.labels[indices], indices < count
        loss += batch_sums(logits, labels, counts).loss
        true = jax.nn.one_hot(labels, num_classes) * counts[:, None]
        # Whole numbers in float32: exact up to 2^24 examples.
        return (loss, confusion + true.T @ jax.nn.one_hot(logits.argmax(-1), num_classes)), None

    (loss, confusion), _ = over_batches(visit, (jnp.zeros(()), jnp.zeros((num_classes, num_classes))), count)
    hits, true, predicted = jnp.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    measures = Measures(
        loss=loss / count,
        accuracy=hits.sum() / count,
        precision=(hits / jnp.maximum(predicted, 1)).mean(),
        recall=(hits / jnp.maximum(true, 1)).mean(),
        f1=(2 * hits / jnp.maximum(true + predicted, 1)).mean(),
    )
    return Measures(*(jnp.where(jnp.isnan(loss), jnp.nan, measure) for measure in measures))


def predict(
    network: Network, variables: dict, split: DeviceSplit, augment: tuple[str, ...] = ()
) -> Float[Array, "N K"]:
    """Returns float16 logits of a whole split in order, each row shifted so that its maximum is zero.

    The shift changes no probability. Near zero float16 is the most precise, so close logits keep their order. The
    arguments are those of `evaluate`.
    """

    def visit(carry: Array, indices: Array) -> tuple[Array, Array]:
        logits = _logits(network, variables, split, augment, indices)
        shifted = logits - logits.max(-1, keepdims=True)
        return carry, jnp.maximum(shifted, jnp.finfo(jnp.float16).min).astype(jnp.float16)

    return over_batches(visit, jnp.zeros(()), split.labels.shape[0])[1]


def _logits(network: Network, variables: dict, split: DeviceSplit, augment: tuple[str, ...], indices: Array) -> Array:
    words = None if split.words is None else split.words[indices]
    images = gather_batch(split.images, indices, split.scale, split.shift, augment=augment, words_B=words)
    logits = network.apply(variables, images, train=False)
    assert isinstance(logits, jnp.ndarray)
    return logits
