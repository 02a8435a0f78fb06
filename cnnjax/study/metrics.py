"""The metrics of a classifier, each declared once.

`METRICS` defines the records of epochs, the metrics for early stopping and for `select`, the columns of trials.csv, and
the labels, bounds and units of the report. To add a metric, add one entry here. A study may add metrics from files of
its user: `own_metric` describes them by their names alone, so that reports need not run them.

Logits are arrays [N, K] and labels are integer arrays [N], of NumPy or of JAX. The functions work with both.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cnnjax.study import own_code
from cnnjax.study.rules import Rule
from cnnjax.utils.errors import RequestError


class Metric(NamedTuple):
    """A metric, computed by either `of_examples` or `of_confusion`.

    Attributes:
        name: the name, to which a prefix adds the split: `train_NAME`, `val_NAME`, `test_NAME`.
        label: the label in the report.
        of_examples: (logits [N, K], labels [N]) -> values [N], whose mean over a split is the metric.
        of_confusion: (confusion matrix [K, K], true classes in rows, predicted classes in columns) -> the metric.
        larger_is_better: whether larger values are better.
        least: the smallest possible value.
        most: the largest possible value.
        is_percent: whether the report shows percent.
        in_training: whether the metric is also recorded for the training split, as the mean over the batches of an
            epoch, each before its update.
    """

    name: str
    label: str
    of_examples: Callable[[Any, Any], Any] | None = None
    of_confusion: Callable[[Any], Any] | None = None
    larger_is_better: bool = True
    least: float = 0.0
    most: float = 1.0
    is_percent: bool = False
    in_training: bool = False


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Returns the cross-entropy of each example, in nats."""
    xp = logits.__array_namespace__()
    shifted = logits - logits.max(-1, keepdims=True)
    of_label = xp.take_along_axis(shifted, labels[:, None], axis=-1)[:, 0]
    return xp.log(xp.exp(shifted).sum(-1)) - of_label


def is_correct(logits: Any, labels: Any) -> Any:
    """Returns whether each example is classified correctly. Among equal logits, the first class is predicted."""
    return logits.argmax(-1) == labels


def is_in_top5(logits: Any, labels: Any) -> Any:
    """Returns whether the class of each example has one of its five largest logits. Of equal logits, the first win."""
    xp = logits.__array_namespace__()
    labels = labels[:, None]
    own = xp.take_along_axis(logits, labels, axis=-1)
    is_ahead = (logits > own) | ((logits == own) & (xp.arange(logits.shape[-1]) < labels))
    return is_ahead.sum(-1) < 5


def macro_precision(confusion: Any) -> Any:
    """Returns the mean of precision over all classes. The precision of a class that is never predicted is 0."""
    return (confusion.diagonal() / confusion.sum(0).clip(1)).mean()


def macro_recall(confusion: Any) -> Any:
    """Returns the mean of recall over all classes. The recall of a class without examples is 0."""
    return (confusion.diagonal() / confusion.sum(1).clip(1)).mean()


def macro_f1(confusion: Any) -> Any:
    """Returns the mean of F1 over all classes. The F1 of a class that is neither predicted nor true is 0."""
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
_ALWAYS = ("loss", "accuracy", "f1")  # of which the report's tables and figures are made

SPLITS = {"train": "training", "val": "validation", "test": "test"}  # with their labels


def measures_of(metrics: Collection[Metric]) -> tuple[str, ...]:
    """Returns the measures of metrics. A measure is a metric of a split, such as `val_accuracy`."""
    return tuple(f"{split}_{m.name}" for split in SPLITS for m in metrics if split != "train" or m.in_training)


def of_epochs(measures: Iterable[str]) -> tuple[str, ...]:
    """Returns the measures that are recorded for each epoch: those of the training and of the validation split."""
    return tuple(name for name in measures if not name.startswith("test_"))


MEASURES = measures_of(METRICS)
EPOCH_MEASURES = of_epochs(MEASURES)
TEST_MEASURES = tuple(name for name in MEASURES if name.startswith("test_"))
_BUILT_IN = {metric.name: metric for metric in METRICS}
NAMES = tuple(_BUILT_IN)
RULE = Rule(
    lambda name: name in NAMES or own_code.is_reference(name),
    f"must be one of {', '.join(NAMES)}, or FILE.py:FUNCTION",
)


def own_metric(name: str, of_examples: Callable[[Any, Any], Any] | None = None) -> Metric:
    """Returns a metric of a user, described by the name of its function, as scikit-learn names metrics.

    Larger values are better, unless the name ends in `loss`, `error` or `deviance`. A name that ends in `accuracy` is
    that of a share from 0 to 1, which the report shows in percent.
    """
    is_share = name.endswith("accuracy")
    return Metric(
        name,
        name.replace("_", " "),
        of_examples,
        larger_is_better=not name.endswith(("loss", "error", "deviance")),
        least=0.0 if is_share else -math.inf,
        most=1.0 if is_share else math.inf,
        is_percent=is_share,
    )


def metrics_of(names: Sequence[str], load: Callable[[str], Callable] | None = None) -> tuple[Metric, ...]:
    """Returns the metrics of a study: the loss, accuracy and F1, other built-in ones by their names, and its user's.

    Args:
        names: the study's `metrics`.
        load: returns the function of a reference. None leaves the user's metrics without functions.
    """
    built_in = (metric for metric in METRICS if metric.name in (*_ALWAYS, *names))
    references = (name for name in names if name not in _BUILT_IN)
    return *built_in, *(own_metric(_name(reference), load and load(reference)) for reference in references)


def describe_own(names: Sequence[str]) -> list[str]:
    """Returns a line on each metric of the user: which of its values count as better."""
    own = (own_metric(_name(name)) for name in names if name not in _BUILT_IN)
    return [f"metric {m.name}: {'larger' if m.larger_is_better else 'smaller'} values are better" for m in own]


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the measures in the tables of a study: all built-in ones, recorded or not, and those of its user."""
    return measures_of(dict.fromkeys((*METRICS, *metrics_of(names))))


def read_metrics(key: str, value: Any) -> tuple[str, ...]:
    """Checks the value of a study's `metrics`, and returns it as a tuple.

    Raises:
        RequestError: it is not a tuple of built-in metrics and references, or two metrics have one name.
    """
    names = tuple(value) if isinstance(value, list | tuple) else (value,)
    for name in names:
        if not RULE.accepts(name):
            raise RequestError(key, name, RULE.allowed)
        if own_code.is_reference(name) and _name(name) in _BUILT_IN:
            raise RequestError(key, name, f"{_name(name)} is a built-in metric; use another name")
    if len({_name(name) for name in names}) < len(names):
        raise RequestError(key, value, "two metrics have the same name; use distinct names")
    return names


def _name(text: str) -> str:
    return text.rpartition(":")[2]


def is_measure(name: str) -> bool:
    """Returns whether a name is that of a measure, built in or a user's."""
    split, _, metric = name.partition("_")
    return name in MEASURES or (split in ("val", "test") and metric.isidentifier())


def metric_of(measure: str) -> Metric:
    """Returns the metric of a measure. That of a user has no function."""
    name = measure.partition("_")[2]
    return _BUILT_IN.get(name) or own_metric(name)


def from_counts(metrics: Sequence[Metric], means: Mapping[str, Any], confusion: Any) -> dict[str, Any]:
    """Returns every metric of a split.

    Args:
        metrics: the metrics.
        means: the means over the split of the metrics with `of_examples`, by name.
        confusion: the confusion matrix [K, K], true classes in rows, predicted classes in columns.
    """
    return {m.name: m.of_confusion(confusion) if m.of_confusion else means[m.name] for m in metrics}


def selectable(measures: Iterable[str]) -> tuple[str, ...]:
    """Returns measures in the order in which errors name them: validation first, then test and training."""
    return tuple(sorted(measures, key=lambda name: ("val", "test", "train").index(name.partition("_")[0])))
