"""Losses by their names, and weights of classes: the values of `train.loss` and `train.class_weights`. Pure Python."""

import re
from typing import Any

from cnnjax.study import own_code
from cnnjax.study.rules import Rule, check_distinct, is_number
from cnnjax.utils.errors import RequestError

CROSS_ENTROPY = "cross_entropy"
BALANCED = "balanced"
_NAMES = (CROSS_ENTROPY, "binary", "brier")
_FOCAL = re.compile(r"focal(?::(\d{1,3}(?:\.\d{1,6})?))?", re.ASCII)

RULE = Rule(
    lambda v: v in _NAMES or (isinstance(v, str) and _FOCAL.fullmatch(v) is not None) or own_code.is_reference(v),
    f"must be one of {', '.join(_NAMES)}, focal:GAMMA with GAMMA >= 0, or FILE.py:FUNCTION",
)


def focal_gamma(loss: str) -> float | None:
    """Returns the gamma of a focal loss, 2 if none is given; None for another loss."""
    found = _FOCAL.fullmatch(loss)
    return float(found[1] or 2) if found else None


def canonical(loss: str) -> str:
    """Returns one name of each loss: `focal:2` also for `focal` and `focal:2.0`."""
    gamma = focal_gamma(loss)
    return loss if gamma is None else f"focal:{gamma:g}"


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 1 and all(is_number(v) and v > 0 for v in value)


CLASS_WEIGHTS = Rule(
    lambda v: v is None or v == BALANCED or _is_numbers(v),
    f"must be None, {BALANCED}, or a tuple with a number > 0 for each class",
)


def read_class_weights(key: str, value: Any) -> tuple[Any, ...]:
    """Reads values of `train.class_weights`. A tuple of numbers is one value, another tuple is an axis.

    Raises:
        RequestError: a value is not allowed, or occurs twice.
    """
    is_axis = isinstance(value, list | tuple) and not all(map(is_number, value))
    values = tuple(tuple(v) if isinstance(v, list | tuple) else v for v in (value if is_axis else (value,)))
    for each in values:
        if not CLASS_WEIGHTS.accepts(each):
            raise RequestError(key, each, CLASS_WEIGHTS.allowed)
    check_distinct(key, value, values)
    return values


def class_weight_levels(values: tuple[Any, ...]) -> tuple[str | None, ...]:
    """Returns each value as the text that trials have: `1/2.5` for (1, 2.5)."""
    return tuple("/".join(f"{v:.9g}" for v in value) if isinstance(value, tuple) else value for value in values)


def class_weight_numbers(text: str) -> tuple[float, ...]:
    """Returns the weights in the text of a trial that has numbers."""
    return tuple(map(float, text.split("/")))
