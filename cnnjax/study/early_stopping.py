"""Early-stopping rules by name.

off                 never stop early
val_accuracy:3      stop after 3 epochs in a row without a higher validation accuracy
val_loss:3:0.001    stop after 3 epochs in a row in which validation loss did not decrease by more than 0.001
"""

import math
import re
from typing import NamedTuple

from cnnjax.study.metrics import EPOCH_MEASURES, is_measure

ALLOWED = (
    f"must be off, METRIC:PATIENCE or METRIC:PATIENCE:CHANGE with METRIC one of {', '.join(EPOCH_MEASURES)}, or "
    "val_NAME of one of your metrics"
)


class Stopping(NamedTuple):
    """An early-stopping rule: stop after `patience` epochs in a row that improve `metric` by at most `min_change`."""

    metric: str
    patience: int
    min_change: float = 0.0


def read_stopping(text: str) -> Stopping | None:
    """Parses an early-stopping rule. Returns None for 'off'.

    Raises:
        ValueError: the rule is not valid.
    """
    if text == "off":
        return None
    metric, patience, *change = text.split(":")
    min_change = float(change[0]) if change else 0.0
    is_of_epochs = is_measure(metric) and not metric.startswith("test_")
    if not is_of_epochs or len(change) > 1 or not (math.isfinite(min_change) and min_change >= 0):
        raise ValueError(text)
    if not re.fullmatch(r"[1-9][0-9]{0,5}", patience):
        raise ValueError(text)
    return Stopping(metric, int(patience), min_change)


def is_stopping(text: object) -> bool:
    """Returns whether a value is a valid early-stopping rule."""
    if not isinstance(text, str):
        return False
    try:
        read_stopping(text)
    except ValueError:
        return False
    return True
