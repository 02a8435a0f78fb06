"""Evaluation of one member: sums over every example of a split, divided once. Pure functions."""

import operator
from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from cnnjax.models.network import Network
from cnnjax.study.metrics import METRICS, TRAINING_METRICS, Metric, from_counts
from cnnjax.training.augment import gather_batch

EVALUATION_BATCH = 256  # images at a time, or less; no result depends on it beyond rounding


class DeviceSplit(NamedTuple):
    """A split on the device, with the constants that normalize its pixels."""

    images: Array  # uint8 [N, H, W, C]
    labels: Array  # int32 [N]
    scale: Array  # float32 [C]
    shift: Array  # float32 [C]
    words: Array | None = None  # uint32 [N], random: how to augment each image when it is evaluated; None: not at all


_make: Any = namedtuple  # of fields that no static checker knows
_Sums: Any = _make("_Sums", [metric.name for metric in TRAINING_METRICS])
_Measures: Any = _make("_Measures", [metric.name for metric in METRICS])


class Sums(_Sums):
    """Each of `TRAINING_METRICS`, summed over examples."""

    __slots__ = ()

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*map(operator.add, self, other))


class Measures(_Measures):
    """Each of `METRICS`, of a split."""

    __slots__ = ()


def zero_sums() -> Sums:
    """Returns the sums over no examples."""
    return Sums(*[jnp.zeros(())] * len(TRAINING_METRICS))


def batch_sums(logits_BxK: Float[Array, "B K"], labels_B: Int[Array, " B"]) -> Sums:
    """Returns the sums over the examples of a batch."""
    return Sums(*(_sum(metric, logits_BxK, labels_B, True) for metric in TRAINING_METRICS))


def _sum(metric: Metric, logits: Array, labels: Array, counts: Array | bool) -> Float[Array, ""]:
    """Sums a metric over the examples that count, exactly for up to 2^24 whole numbers."""
    assert metric.of_examples
    return jnp.where(counts, metric.of_examples(logits, labels), 0).sum(dtype=jnp.float32)


def over_batches(visit: Callable, carry: Any, count: int) -> tuple:
    """Runs `carry, output = visit(carry, indices)` over a split in order, in a scan of equal batches.

    Where they do not divide the split, the last indices are out of bounds, `count` and more, for `visit` to leave out:
    a batch of another size would be another program inside the program, to compile like the first.

    Returns:
        The last carry, and the outputs as one array with the examples' axis first (None if `visit` gives None).
    """
    batches = -(-count // EVALUATION_BATCH)
    indices = jnp.arange(batches * -(-count // batches)).reshape(batches, -1)
    carry, outputs = lax.scan(visit, carry, indices)
    return carry, None if outputs is None else outputs.reshape(-1, *outputs.shape[2:])[:count]


def evaluate(network: Network, variables: dict, split: DeviceSplit, augment: tuple[str, ...] = ()) -> Measures:
    """Measures a network on a whole split, each example once.

    A class that is never predicted, or never true, counts as 0 in the macro means. A network with a logit that is NaN
    has no measures, they are NaN: its predictions would all be the first class. `augment` is what a split with
    random words does to its images, see `gather_batch`.
    """
    count, classes = split.labels.shape[0], network.classes

    means = [metric for metric in METRICS if metric.of_examples]

    def visit(carry: tuple[tuple[Array, ...], Array], indices: Array) -> tuple[tuple[tuple[Array, ...], Array], None]:
        sums, confusion = carry
        logits = _logits(network, variables, split, augment, indices)
        labels, counts = split.labels[indices], indices < count
        sums = tuple(total + _sum(metric, logits, labels, counts) for total, metric in zip(sums, means, strict=True))
        true = jax.nn.one_hot(labels, classes) * counts[:, None]
        # Whole numbers: exact up to 2^24 examples.
        return (sums, confusion + true.T @ jax.nn.one_hot(logits.argmax(-1), classes)), None

    nothing = (jnp.zeros(()),) * len(means), jnp.zeros((classes, classes))
    (sums, confusion), _ = over_batches(visit, nothing, count)
    found = from_counts({m.name: total / count for m, total in zip(means, sums, strict=True)}, confusion)
    return Measures(*(jnp.where(jnp.isnan(found["loss"]), jnp.nan, value) for value in found.values()))


def predict(
    network: Network, variables: dict, split: DeviceSplit, augment: tuple[str, ...] = ()
) -> Float[Array, "N K"]:
    """Returns float16 logits of a whole split in order, each row shifted so that its maximum is zero.

    The shift changes no probability and puts the numbers where float16 is finest: close seconds keep their order.
    `augment` is as in `evaluate`.
    """

    def visit(carry: Array, indices: Array) -> tuple[Array, Array]:
        logits = _logits(network, variables, split, augment, indices)
        shifted = logits - logits.max(-1, keepdims=True)
        least = jnp.finfo(jnp.float16).min
        return carry, jnp.maximum(shifted, least).astype(jnp.float16)

    return over_batches(visit, jnp.zeros(()), split.labels.shape[0])[1]


def _logits(network: Network, variables: dict, split: DeviceSplit, augment: tuple[str, ...], indices: Array) -> Array:
    words = None if split.words is None else split.words[indices]
    images = gather_batch(split.images, indices, split.scale, split.shift, augment=augment, words_B=words)
    logits = network.apply(variables, images, train=False)
    assert isinstance(logits, jnp.ndarray)
    return logits
