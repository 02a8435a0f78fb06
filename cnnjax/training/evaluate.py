"""Evaluation of one member: sums over every example of a split, divided once. Pure functions."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnjax.models.network import AnyNetwork
from cnnjax.models.shards import gather_shards, shard_of, sum_over_shards
from cnnjax.study.metrics import METRICS, TRAINING_METRICS, Metric, from_counts
from cnnjax.training.augment.batch import gather_batch
from cnnjax.training.augment.test_time import averaged_logits
from cnnjax.training.memory import EVALUATION_BATCH
from cnnjax.utils.tree import tuple_type


class DeviceSplit(NamedTuple):
    """A split on the device, with the constants that normalize its pixels."""

    images: Array  # uint8 [N, H, W, C]
    labels: Array  # int32 [N]
    scale: Array  # float32 [C]
    shift: Array  # float32 [C]
    words: Array | None = None  # uint32 [n], random: they augment the images of an evaluation; None: no augmentation
    indices: Array | None = None  # int32 [n]: the examples of the split among the N; None: all
    counted: Array | None = None  # int32: how many of the n count, the first ones; None: all

    @property
    def size(self) -> int:
        """The number n of examples."""
        return (self.labels if self.indices is None else self.indices).shape[0]

    def examples(self, positions: Array) -> Array:
        """Returns the indices of the split's examples at `positions` in `images` and `labels`."""
        return positions if self.indices is None else self.indices[positions]


_Sums: Any = tuple_type("_Sums", tuple(metric.name for metric in TRAINING_METRICS))


class Sums(_Sums):
    """Each of `TRAINING_METRICS`, summed over examples."""

    __slots__ = ()

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*map(operator.add, self, other))


def zero_sums() -> Sums:
    """Returns the sums over no examples."""
    return Sums(*[jnp.zeros(())] * len(TRAINING_METRICS))


def batch_sums(logits_BxK: Float[Array, "B K"], labels_B: Array) -> Sums:
    """Returns the sums over the examples of a batch. The class of a soft label [K] is its largest."""
    labels_B = labels_B if labels_B.ndim == 1 else labels_B.argmax(-1)
    return Sums(*(_sum(metric, logits_BxK, labels_B, True) for metric in TRAINING_METRICS))


def _sum(metric: Metric, logits: Array, labels: Array, counts: Array | bool) -> Float[Array, ""]:
    """Sums a metric over the examples that count, exactly for up to 2^24 whole numbers."""
    assert metric.of_examples
    return jnp.where(counts, metric.of_examples(logits, labels), 0).sum(dtype=jnp.float32)


def over_batches(visit: Callable, carry: Any, count: int, shards: int = 1) -> tuple:
    """Runs `carry, output = visit(carry, indices)` over a split in order, in a scan of equal batches.

    If the batches do not divide the split, the last indices are `count` or larger, and `visit` has to ignore them. A
    smaller last batch would have to be compiled separately.

    Args:
        visit: the function.
        carry: the first carry.
        count: number of examples.
        shards: devices that share the examples.

    Returns:
        The last carry on this device, and the outputs as one array with the axis of all examples first (None if `visit`
        returns None).
    """
    batches = -(-count // (shards * EVALUATION_BATCH)) * shards
    indices = jnp.arange(batches * -(-count // batches)).reshape(batches, -1)
    carry, outputs = lax.scan(visit, carry, shard_of(indices, shards))
    if outputs is None:
        return carry, None
    return carry, gather_shards(outputs.reshape(-1, *outputs.shape[2:]), shards)[:count]


def evaluate(
    network: AnyNetwork,
    variables: dict,
    split: DeviceSplit,
    augment: tuple[str, ...] = (),
    test_time: str = "none",
    metrics: tuple[Metric, ...] = METRICS,
    shards: int = 1,
) -> Any:
    """Returns the metrics of a network on a whole split, each example once, as a named tuple.

    A class that is never predicted, or never true, counts as 0 in the macro means. If a logit is NaN, all metrics are
    NaN, because `argmax` would predict the first class.

    Args:
        network: the network.
        variables: of the network.
        split: the split.
        augment: of the images, see `gather_batch`; used if the split has random words.
        test_time: the views of an image whose logits are averaged, see `averaged_logits`.
        metrics: what to measure.
        shards: devices that share the examples.
    """
    count, num_classes = split.size if split.counted is None else split.counted, network.num_classes
    means = [metric for metric in metrics if metric.of_examples]

    def visit(carry: tuple[tuple[Array, ...], Array], indices: Array) -> tuple[tuple[tuple[Array, ...], Array], None]:
        sums, confusion = carry
        logits = _logits(network, variables, split, augment, test_time, indices)
        labels, counts = split.labels[split.examples(indices)], indices < count
        sums = tuple(total + _sum(metric, logits, labels, counts) for total, metric in zip(sums, means, strict=True))
        true = jax.nn.one_hot(labels, num_classes) * counts[:, None]
        # Whole numbers: exact up to 2^24 examples.
        return (sums, confusion + true.T @ jax.nn.one_hot(logits.argmax(-1), num_classes)), None

    nothing = (jnp.zeros(()),) * len(means), jnp.zeros((num_classes, num_classes))
    found, _ = over_batches(visit, nothing, split.size, shards)
    sums, confusion = sum_over_shards(found, shards)
    found = from_counts(metrics, {m.name: total / count for m, total in zip(means, sums, strict=True)}, confusion)
    measures = tuple_type("Measures", tuple(found))
    return measures(*(jnp.where(jnp.isnan(found["loss"]), jnp.nan, value) for value in found.values()))


def predict(
    network: AnyNetwork,
    variables: dict,
    split: DeviceSplit,
    augment: tuple[str, ...] = (),
    test_time: str = "none",
    shards: int = 1,
) -> Float[Array, "N K"]:
    """Returns float16 logits of a whole split in order, each row shifted so that its maximum is zero.

    The shift changes no probability. Near zero float16 is the most precise, so close logits keep their order. The
    arguments are those of `evaluate`.
    """

    def visit(carry: Array, indices: Array) -> tuple[Array, Array]:
        logits = _logits(network, variables, split, augment, test_time, indices)
        shifted = logits - logits.max(-1, keepdims=True)
        return carry, jnp.maximum(shifted, jnp.finfo(jnp.float16).min).astype(jnp.float16)

    return over_batches(visit, jnp.zeros(()), split.size, shards)[1]


def _logits(
    network: AnyNetwork, variables: dict, split: DeviceSplit, augment: tuple[str, ...], test_time: str, indices: Array
) -> Array:
    words = None if split.words is None else split.words[indices]
    images = gather_batch(
        split.images, split.examples(indices), split.scale, split.shift, augment=augment, words_B=words
    )
    return averaged_logits(lambda images: network.apply(variables, images, train=False), images, test_time)
