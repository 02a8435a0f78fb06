"""Lookahead by its steps and rate: 5:0.5 moves slow weights half way to the weights after every 5 steps."""

import re
from typing import NamedTuple

ALLOWED = "must be off, or STEPS:RATE with a whole number of steps and a rate > 0 and <= 1, as in 5:0.5"


class Lookahead(NamedTuple):
    """After every `steps` steps, slow weights move by `rate` of the way to the weights, which go on from there."""

    steps: int
    rate: float


def read_lookahead(text: str) -> Lookahead | None:
    """Parses a value of `train.lookahead`. Returns None for 'off'.

    Raises:
        ValueError: the value is not valid.
    """
    if text == "off":
        return None
    steps, colon, rate = text.partition(":")
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,5}", steps) or not 0 < float(rate) <= 1:
        raise ValueError(text)
    return Lookahead(int(steps), float(rate))


def is_lookahead(text: object) -> bool:
    """Returns whether a value is valid for `train.lookahead`."""
    try:
        read_lookahead(text)  # type: ignore[arg-type]
    except (ValueError, AttributeError):
        return False
    return True
