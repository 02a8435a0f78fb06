"""Rules: what one value of a config may be. Pure Python."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What one value may be: a test of the value, and the words that say what passes it."""

    accepts: Callable[[Any], bool]
    allowed: str


_LARGEST = 3.4e38  # of float32


def is_int(value: object) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def integer(least: int, most: int | None = None) -> Rule:
    """A whole number of at least `least` (and at most `most`)."""
    words = f"must be a whole number >= {least}" + ("" if most is None else f" and <= {most}")
    return Rule(lambda v: is_int(v) and v >= least and (most is None or v <= most), words)


def number(least: float, below: float = math.inf, *, exclusive: bool = False) -> Rule:
    """A finite number in [least, below), or (least, below) when `exclusive`."""
    sign = ">" if exclusive else ">="
    words = f"must be a number {sign} {least:g}" + ("" if below == math.inf else f" and < {below:g}")
    return Rule(lambda v: is_number(v) and (v > least if exclusive else v >= least) and v < below, words)


def choice(*names: str) -> Rule:
    """One of some words."""
    return Rule(lambda v: isinstance(v, str) and v in names, "must be one of " + ", ".join(names))


def none_or(rule: Rule) -> Rule:
    """None, or what another rule accepts."""
    return Rule(lambda v: v is None or rule.accepts(v), rule.allowed + ", or None")


FLAG = Rule(lambda v: isinstance(v, bool), "must be True or False")
