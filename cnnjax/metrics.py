"""Classification metrics of logits against labels, in numpy."""

import numpy as np
from jaxtyping import Float, Int


def classification(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> dict[str, float]:
    """Measures a classifier on one split.

    Args:
        logits: unnormalised log-probabilities, any float type (computed in float64). The predicted
            class is the first maximum.
        labels: true classes, 0..K-1.

    Returns:
        `loss` (mean cross-entropy in nats), `accuracy`, and the macro means over all K classes of
        `precision`, `recall` and `f1` (a class that is never predicted, or never true, counts as
        0), as shares 0..1.

    Raises:
        ValueError: there is no example, or the shapes or labels do not fit.
    """
    from sklearn.metrics import precision_recall_fscore_support

    _check(logits, labels)
    logits = np.asarray(logits, np.float64)
    predicted = logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    of_label = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    losses = np.log(np.exp(shifted).sum(axis=1)) - of_label
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=range(logits.shape[1]), average="macro", zero_division=0
    )
    return {
        "loss": float(losses.mean()),
        "accuracy": float((predicted == labels).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def confusion(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, "K K"]:
    """Counts examples by true class (row) and predicted class (column, the first maximum)."""
    _check(logits, labels)
    classes = logits.shape[1]
    cells = labels.astype(np.int64) * classes + logits.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} are not [N, K] and [N]")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels {labels.min()}..{labels.max()}, for {logits.shape[1]} classes")
