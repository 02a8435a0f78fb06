"""Classification metrics of logits against labels, in numpy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cnnjax.study.metrics import METRICS, Metric, from_counts


class ClassReport(NamedTuple):
    """Precision, recall and F1 of each class (0 where undefined), and their means over classes, as shares 0..1.

    `macro` and `weighted` hold the means of precision, recall and F1; the latter weight a class by its `support`, the
    number of its examples.
    """

    precision: Float[np.ndarray, " K"]
    recall: Float[np.ndarray, " K"]
    f1: Float[np.ndarray, " K"]
    support: Int[np.ndarray, " K"]
    macro: tuple[float, ...]
    weighted: tuple[float, ...]
    accuracy: float


class Roc(NamedTuple):
    """One class against the rest: the curve from (0, 0) to (1, 1), and the area under it."""

    false_positive_rate: Float[np.ndarray, " points"]
    true_positive_rate: Float[np.ndarray, " points"]
    auc: float


def classification(
    logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], metrics: Sequence[Metric] = METRICS
) -> dict[str, float]:
    """Measures a classifier on one split.

    Args:
        logits: unnormalized log-probabilities, any float type (computed in float64). The predicted
            class is the first maximum.
        labels: true classes, 0..K-1.
        metrics: what to measure.

    Returns:
        Each of the metrics by its name.

    Raises:
        ValueError: there is no example, or the shapes or labels do not fit.
    """
    counts = confusion(logits, labels)
    logits = np.asarray(logits, np.float64)
    means = {m.name: np.asarray(m.of_examples(logits, labels)).mean() for m in metrics if m.of_examples}
    return {name: float(value) for name, value in from_counts(metrics, means, counts).items()}


def confusion(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, "K K"]:
    """Counts examples by true class (row) and predicted class (column, the first maximum)."""
    _check(logits, labels)
    classes = logits.shape[1]
    cells = labels.astype(np.int64) * classes + logits.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_report(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> ClassReport:
    """Measures each class by itself.

    A class that is never predicted has precision 0, one that is never true has recall 0, and either F1 0; all K
    classes count in the macro means. The weighted mean of recall is the accuracy.

    Args:
        logits: as in `classification`.
        labels: true classes, 0..K-1.

    Raises:
        ValueError: there is no example, or the shapes or labels do not fit.
    """
    from sklearn.metrics import precision_recall_fscore_support

    _check(logits, labels)
    predicted = logits.argmax(axis=1)
    by_class = precision_recall_fscore_support(labels, predicted, labels=range(logits.shape[1]), zero_division=0)
    precision, recall, f1, support = by_class
    macro = [float(values.mean()) for values in by_class[:3]]
    weighted = [float(np.average(values, weights=support)) for values in by_class[:3]]
    accuracy = float((predicted == labels).mean())
    return ClassReport(precision, recall, f1, support, tuple(macro), tuple(weighted), accuracy)


def roc(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> list[Roc]:
    """One-vs-rest ROC curve of each class, its examples ranked by the softmax probability of the class.

    Examples of equal probability are one step of the curve, so that they count half in the area. A class that has no
    example, or all of them, has no curve: its arrays are empty and its area NaN.

    Args:
        logits: as in `classification`.
        labels: true classes, 0..K-1.

    References:
        Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27 (2006), sections 4 and 9.2.

    Raises:
        ValueError: there is no example, or the shapes or labels do not fit.
    """
    from scipy.special import softmax
    from sklearn.metrics import auc, roc_curve

    _check(logits, labels)
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    curves = []
    for label, probability in enumerate(probabilities.T):
        is_label = labels == label
        if is_label.all() or not is_label.any():
            curves.append(Roc(np.empty(0), np.empty(0), math.nan))
            continue
        false, true, _ = roc_curve(is_label, probability)
        curves.append(Roc(false, true, float(auc(false, true))))
    return curves


def macro_auc(curves: list[Roc]) -> float:
    """The mean area under the curves of the classes that have one; NaN where none has."""
    areas = [curve.auc for curve in curves if not math.isnan(curve.auc)]
    return float(np.mean(areas)) if areas else math.nan


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} are not [N, K] and [N]")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels {labels.min()}..{labels.max()}, for {logits.shape[1]} classes")
