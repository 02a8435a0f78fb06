"""Early stopping by name: which metric to watch, and for how many epochs to wait for it to improve.

off                       never
val_accuracy:3            after 3 epochs in a row without a higher validation accuracy
val_loss:3:0.001          after 3 epochs in a row whose validation loss was not lower by more than .001
"""

import math
import re
from typing import NamedTuple

from cnnjax.study.metrics import EPOCH_MEASURES

ALLOWED = f"must be off, or METRIC:PATIENCE or METRIC:PATIENCE:CHANGE with a metric of {', '.join(EPOCH_MEASURES)}"


class Stopping(NamedTuple):
    """When to stop: `patience` epochs in a row whose metric improved by no more than `min_change`."""

    metric: str
    patience: int
    min_change: float = 0.0


def read_stopping(text: str) -> Stopping | None:
    """Returns what a text says, None for 'off'.

    Raises:
        ValueError: it says nothing of the kind.
    """
    if text == "off":
        return None
    metric, patience, *change = text.split(":")
    min_change = float(change[0]) if change else 0.0
    if metric not in EPOCH_MEASURES or len(change) > 1 or not (math.isfinite(min_change) and min_change >= 0):
        raise ValueError(text)
    if not re.fullmatch(r"[1-9][0-9]{0,5}", patience):
        raise ValueError(text)
    return Stopping(metric, int(patience), min_change)


def is_stopping(text: object) -> bool:
    """Whether a text says when to stop."""
    if not isinstance(text, str):
        return False
    try:
        read_stopping(text)
    except ValueError:
        return False
    return True
