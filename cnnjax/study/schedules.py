"""Learning-rate schedules by name, as tables of factors that multiply the learning rate of a trial. Pure NumPy.

A schedule is one or more terms, joined by '+'. Their factors are multiplied:

    constant                   1
    exponential:0.95           0.95 ** epoch, with epochs counted from 0; constant within an epoch
    piecewise:22=0.1/30=0.01   1; 0.1 after 22 epochs; 0.01 after 30 epochs
    cosine                     from 1 at the start of training to 0 at its end, along half a period of a cosine
    warmup:2                   linear from 0 at the start of training to 1 after 2 epochs, then 1
"""

import functools
import math
import re

import numpy as np
from jaxtyping import Float32

ALLOWED = "must be constant, cosine, warmup:2, exponential:0.95, piecewise:22=0.1/30=0.01, or several joined by +"


def is_schedule(text: object) -> bool:
    """Returns whether a value is a valid schedule."""
    if not isinstance(text, str):
        return False
    try:
        factors(text, 1)
    except ValueError:
        return False
    return True


@functools.cache
def has_horizon(text: str) -> bool:
    """Returns whether the factors of the first epochs depend on the number of epochs, as those of `cosine` do."""
    with np.errstate(all="ignore"):  # the factors may overflow
        shorter, longer = (factors(text, epochs) for epochs in (100, 200))
        return not np.allclose(shorter, longer[:100], atol=0, equal_nan=True)


def factors(text: str, epochs: int, length: int | None = None) -> Float32[np.ndarray, "length 2"]:
    """Returns the factors at the start and at the end of each epoch. Within an epoch the factor is linear.

    This approximates a cosine with an error of at most (pi / epochs)^2 / 16.

    Args:
        text: the schedule.
        epochs: the number of epochs.
        length: the number of rows; `epochs` by default. Rows after the last epoch are NaN.

    Raises:
        ValueError: the schedule is not valid.
    """
    epoch = np.arange(epochs, dtype=np.float64)
    edges = np.stack([epoch, epoch + 1], axis=1)
    product = np.ones_like(edges)
    table = np.full((length or epochs, 2), np.nan, np.float32)
    with np.errstate(over="ignore"):  # an infinite learning rate makes the trial diverge, which is recorded
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
