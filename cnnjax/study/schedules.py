"""Learning-rate schedules by name: tables of factors that multiply a trial's learning rate. Pure numpy.

A schedule is one or more terms, joined by '+', whose factors multiply:

    constant                   1
    exponential:0.95           .95 to the power of the epoch, counted from 0; the same throughout an epoch
    piecewise:22=0.1/30=0.01   1, then .1 from epoch 22 on, then .01 from epoch 30 on
    cosine                     half a cosine from 1 at the beginning to 0 at the end of the last epoch
    warmup:2                   a line from 0 at the beginning to 1 at the end of epoch 2
"""

import functools
import math
import re

import numpy as np
from jaxtyping import Float32

ALLOWED = "must be constant, exponential:0.95, piecewise:22=0.1/30=0.01, cosine, warmup:2, or several joined by +"


def is_schedule(text: object) -> bool:
    """Whether a text is a schedule."""
    if not isinstance(text, str):
        return False
    try:
        factors(text, 1)
    except ValueError:
        return False
    return True


@functools.cache
def has_horizon(text: str) -> bool:
    """Whether the first epochs of a longer training differ from a shorter one's, so that none can be read off it."""
    with np.errstate(all="ignore"):  # one that grows without end
        shorter, longer = (factors(text, epochs) for epochs in (100, 200))
        return not np.allclose(shorter, longer[:100], atol=0, equal_nan=True)


def factors(text: str, epochs: int, length: int | None = None) -> Float32[np.ndarray, "length 2"]:
    """Returns the factor at the beginning and at the end of each epoch; within one it moves along a line.

    A cosine becomes a chain of such lines, which leaves the curve by at most 1/8 (pi / epochs)^2 / 2.

    Args:
        text: the schedule.
        epochs: how many a trial trains.
        length: rows of the table; those behind the last epoch are NaN.

    Raises:
        ValueError: the text is no schedule.
    """
    epoch = np.arange(epochs, dtype=np.float64)
    edges = np.stack([epoch, epoch + 1], axis=1)
    product = np.ones_like(edges)
    table = np.full((length or epochs, 2), np.nan, np.float32)
    with np.errstate(over="ignore"):  # a rate that grows without end becomes infinite, and what trains by it diverges
        for term in text.split("+"):
            product *= _term(term, epoch, edges, epochs)
        table[:epochs] = product
    return table


def _term(term: str, epoch: np.ndarray, edges: np.ndarray, epochs: int) -> np.ndarray:
    name, colon, argument = term.partition(":")
    if name in ("constant", "cosine") and colon:
        raise ValueError(term)
    match name:
        case "constant":
            return np.ones_like(edges)
        case "cosine":
            return 0.5 * (1 + np.cos(np.pi * edges / epochs))
        case "exponential":
            return (_number(argument) ** epoch)[:, None]
        case "warmup":
            return np.minimum(edges / _whole(argument), 1)
        case "piecewise":
            factor = np.ones_like(epoch)
            steps = (step.partition("=") for step in argument.split("/"))
            for first, value in sorted((_whole(first), _number(value)) for first, _, value in steps):
                factor[epoch >= first] = value
            return factor[:, None]
    raise ValueError(term)


def _number(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(text)
    return value


def _whole(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError(text)
    return int(text)
