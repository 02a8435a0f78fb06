"""The metrics of a classifier, each declared once.

From `METRICS` derive what is recorded of each epoch, what early stopping may watch and a study may select by, the
columns of trials.csv, and the labels, bounds and units of the report. A new metric is one entry here.

Logits are arrays [N, K] and labels are whole numbers [N], of NumPy or of JAX: the functions use what both have.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One metric; it has either `of_examples` or `of_confusion`.

    Attributes:
        name: it is `train_NAME`, `val_NAME` and `test_NAME` of a split.
        label: its name in the report.
        of_examples: (logits [N, K], labels [N]) -> [N]: the metric is the mean of these values over a split.
        of_confusion: (counts [K, K] of examples by true and by predicted class) -> the metric.
        larger_is_better: whether of two values the larger one is better.
        most: the greatest possible value; the least is 0.
        is_percent: whether the report writes it in percent.
        in_training: whether it is also recorded of the training split, as the mean over the batches of an epoch, each
            before its update.
    """

    name: str
    label: str
    of_examples: Callable[[Any, Any], Any] | None = None
    of_confusion: Callable[[Any], Any] | None = None
    larger_is_better: bool = True
    most: float = 1.0
    is_percent: bool = False
    in_training: bool = False


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Returns minus the log-probability of each example's class, in nats."""
    xp = logits.__array_namespace__()
    shifted = logits - logits.max(-1, keepdims=True)
    of_label = xp.take_along_axis(shifted, labels[:, None], axis=-1)[:, 0]
    return xp.log(xp.exp(shifted).sum(-1)) - of_label


def is_correct(logits: Any, labels: Any) -> Any:
    """Returns whether the first largest logit of each example is that of its class."""
    return logits.argmax(-1) == labels


def is_in_top5(logits: Any, labels: Any) -> Any:
    """Returns whether the class of each example is among the first five by their logits; of equal ones the first."""
    xp = logits.__array_namespace__()
    labels = labels[:, None]
    own = xp.take_along_axis(logits, labels, axis=-1)
    is_ahead = (logits > own) | ((logits == own) & (xp.arange(logits.shape[-1]) < labels))
    return is_ahead.sum(-1) < 5


def macro_precision(confusion: Any) -> Any:
    """Returns the mean over all classes of precision; that of a class that is never predicted is 0."""
    return (confusion.diagonal() / confusion.sum(0).clip(1)).mean()


def macro_recall(confusion: Any) -> Any:
    """Returns the mean over all classes of recall; that of a class without examples is 0."""
    return (confusion.diagonal() / confusion.sum(1).clip(1)).mean()


def macro_f1(confusion: Any) -> Any:
    """Returns the mean over all classes of F1; that of a class that is neither predicted nor true is 0."""
    return (2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1)).clip(1)).mean()


def balanced_accuracy(confusion: Any) -> Any:
    """Returns the mean of recall over the classes that have examples (Brodersen et al. 2010)."""
    examples = confusion.sum(1)
    return (confusion.diagonal() / examples.clip(1)).sum() / (examples > 0).sum()


METRICS = (
    Metric("loss", "loss", cross_entropy, larger_is_better=False, most=math.inf, in_training=True),
    Metric("accuracy", "accuracy", is_correct, is_percent=True, in_training=True),
    Metric("precision", "macro precision", of_confusion=macro_precision),
    Metric("recall", "macro recall", of_confusion=macro_recall),
    Metric("f1", "macro F1", of_confusion=macro_f1),
    Metric("balanced_accuracy", "balanced accuracy", of_confusion=balanced_accuracy, is_percent=True),
    Metric("top5_accuracy", "top-5 accuracy", is_in_top5, is_percent=True),
)
TRAINING_METRICS = tuple(metric for metric in METRICS if metric.in_training)

SPLITS = {"train": "training", "val": "validation", "test": "test"}  # and their words
# A measure is a metric of a split.
BY_MEASURE = {
    f"{split}_{metric.name}": metric
    for split in SPLITS
    for metric in (TRAINING_METRICS if split == "train" else METRICS)
}
MEASURES = tuple(BY_MEASURE)
EPOCH_MEASURES = tuple(name for name in MEASURES if not name.startswith("test_"))  # what is recorded of each epoch
TEST_MEASURES = tuple(name for name in MEASURES if name.startswith("test_"))


def from_counts(means: Mapping[str, Any], confusion: Any) -> dict[str, Any]:
    """Returns every metric of a split.

    Args:
        means: over the split, of the metrics that are means over examples.
        confusion: number of examples by true class (row) and predicted class (column) [K, K].
    """
    return {m.name: m.of_confusion(confusion) if m.of_confusion else means[m.name] for m in METRICS}
