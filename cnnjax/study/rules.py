"""Rules that check one value of a config. Pure Python."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from cnnjax.utils.errors import RequestError


class Rule(NamedTuple):
    """A check of one value.

    Attributes:
        accepts: returns whether a value is allowed.
        allowed: the problem of a RequestError for other values; it begins with "must ".
    """

    accepts: Callable[[Any], bool]
    allowed: str


_LARGEST = 3.4e38  # the largest float32 is a little larger


def is_int(value: object) -> bool:
    """Returns whether a value is an int, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Returns whether a value is an int or a float, not a bool, and finite as a float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def integer(least: int, most: int | None = None) -> Rule:
    """Accepts whole numbers >= `least` and, if given, <= `most`."""
    words = f"must be a whole number >= {least}" + ("" if most is None else f" and <= {most}")
    return Rule(lambda v: is_int(v) and v >= least and (most is None or v <= most), words)


def number(least: float, below: float = math.inf, *, exclusive: bool = False) -> Rule:
    """Accepts finite numbers in [least, below), or in (least, below) if `exclusive`."""
    sign = ">" if exclusive else ">="
    words = f"must be a number {sign} {least:g}" + ("" if below == math.inf else f" and < {below:g}")
    return Rule(lambda v: is_number(v) and (v > least if exclusive else v >= least) and v < below, words)


def choice(*names: str) -> Rule:
    """Accepts the given strings."""
    return Rule(lambda v: isinstance(v, str) and v in names, "must be one of " + ", ".join(names))


def none_or(rule: Rule) -> Rule:
    """Accepts None and the values that `rule` accepts."""
    return Rule(lambda v: v is None or rule.accepts(v), rule.allowed + ", or None")


def check_distinct(key: str, value: Any, values: Sequence[Hashable]) -> None:
    """Raises RequestError for the value of a key, if one of the values that it stands for occurs twice."""
    if len(set(values)) < len(values):
        raise RequestError(key, value, "a value occurs twice; use distinct values")


FLAG = Rule(lambda v: isinstance(v, bool), "must be True or False")
