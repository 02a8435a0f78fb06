"""Learning-rate schedules by name, as tables of factors that multiply the learning rate of a trial. Pure NumPy.

A schedule is one or more terms, joined by '+'. Their factors are multiplied. Training has N steps, and S in an epoch.
Step i, counted from 0, belongs to epoch e = floor(i / S):

    constant                   1
    exponential:0.95           0.95 ** e
    piecewise:22=0.1/30=0.01   1; 0.1 after 22 epochs; 0.01 after 30 epochs
    warmup:2                   min(i / (2 S), 1): linear from 0 to 1 over 2 epochs, then 1
    cosine                     (1 + cos(pi i / N)) / 2
    linear:0.1                 1 + (0.1 - 1) i / N; without a number, to 0
    polynomial:2               (1 - i / N) ** 2
    triangle:0.23:0.2:0.07     linear from 0.2 to 1 after floor(0.23 N) steps, then linear to 0.07 after N steps. The
                               last two numbers are optional (Jordan 2024, airbench94)
    onecycle:0.3               from 1/25 to 1 at step 0.3 N - 1, then to 1/250,000 at step N - 1, each along half a
                               period of a cosine: PyTorch's OneCycleLR without its cycle of the momentum. 0.3 if there
                               is no number (Smith & Topin 2018)
    restarts:10:2              a cosine of 10 epochs, then one of 20, 40, ...; without the second number, each of 10
                               (Loshchilov & Hutter 2017)
    plateau:0.1:10             1, and 0.1 times less after more than 10 epochs in a row without improvement
    sched.py:wave              wave(i / N), a function of a file: it takes a float and returns a number >= 0
"""

import functools
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from cnnjax.study import own_code
from cnnjax.utils.errors import UnfitCode

ALLOWED = (
    "must be constant, cosine, linear:0.1, polynomial:2, triangle:0.23, onecycle, restarts:10:2, warmup:2, "
    "exponential:0.95, piecewise:22=0.1/30=0.01, plateau:0.1:10, a function as in sched.py:wave, or several joined by +"
)


class Plateau(NamedTuple):
    """Multiply the learning rate by `factor` after more than `patience` epochs in a row without improvement."""

    factor: float
    patience: int


class _Time(NamedTuple):
    """The steps of a table: an array for each unit of time."""

    epoch: np.ndarray  # [epochs, 1]: completed epochs at the start of each row
    epochs: np.ndarray  # [epochs, steps + 1]: completed epochs, with fractions
    step: np.ndarray  # the same in steps
    total: int  # the number of steps of training

    @property
    def progress(self) -> np.ndarray:
        """The share of training that is completed, 0..1."""
        return np.minimum(self.step / self.total, 1)


def is_schedule(text: object) -> bool:
    """Returns whether a value is a valid schedule. Own functions are not called."""
    if not isinstance(text, str):
        return False
    try:
        if others := [term for term in text.split("+") if not own_code.is_reference(term)]:
            factors("+".join(others), 1)
        read_plateau(text)
    except ValueError:
        return False
    return True


@functools.cache
def has_horizon(text: str) -> bool:
    """Returns whether the factors of the first epochs depend on the number of epochs, as those of `cosine` do."""
    if any(map(own_code.is_reference, text.split("+"))):
        return True
    with np.errstate(all="ignore"):  # the factors may overflow
        shorter, longer = (factors(text, epochs) for epochs in (100, 200))
        return not np.allclose(shorter, longer[:100], atol=0, equal_nan=True)


@functools.cache
def is_by_step(text: str) -> bool:
    """Returns whether the factor is not linear within an epoch, so that a program needs it at each step."""
    names = [term.partition(":")[0] for term in text.split("+")]
    return names.count("warmup") > 1 or not {*names} <= {"constant", "exponential", "piecewise", "warmup", "plateau"}


def read_plateau(text: str) -> Plateau | None:
    """Returns the term `plateau:FACTOR:PATIENCE` of a schedule; None without one.

    Raises:
        ValueError: the term is not valid, or there are several.
    """
    terms = [term for term in text.split("+") if term.startswith("plateau:")]
    if not terms:
        return None
    _, factor, patience = "+".join(terms).split(":")
    return Plateau(_fraction(factor), _whole(patience, least=0))


def total_steps(epochs: float, steps: int) -> int:
    """Returns the number of steps of training, given the steps in an epoch: of a part of an epoch, rounded up."""
    return max(math.ceil(round(epochs * steps, 6)), (math.ceil(epochs) - 1) * steps + 1)


def factors(
    text: str, epochs: float, steps: int = 1, length: int | None = None
) -> Float32[np.ndarray, "length steps+1"]:
    """Returns the factors at each step of each epoch, and at the end of the epoch. That of `plateau` is 1.

    With one step, the table has the factors at the start and at the end of each epoch.

    Args:
        text: the schedule.
        epochs: the number of epochs. The last may be a part of one.
        steps: the number of steps in an epoch.
        length: the number of rows; that of the epochs by default. Rows after the last epoch are NaN.

    Raises:
        ValueError: the schedule is not valid.
        RequestError: an own function fails.
    """
    epoch = np.arange(math.ceil(epochs), dtype=np.float64)[:, None]
    within = np.arange(steps + 1)
    time = _Time(epoch, epoch + within / steps, epoch * steps + within, total_steps(epochs, steps))
    product = np.ones_like(time.step)
    table = np.full((length or len(epoch), steps + 1), np.nan, np.float32)
    with np.errstate(over="ignore"):  # an infinite learning rate makes the trial diverge, which is recorded
        for term in text.split("+"):
            product *= _own(term, time) if own_code.is_reference(term) else _term(term, time)
        table[: len(epoch)] = product
    return table


def check_own(texts: Iterable[str]) -> None:
    """Raises RequestError if an own function of schedules cannot be loaded, or fails within 1,000 steps."""
    for text in texts:
        if any(map(own_code.is_reference, text.split("+"))):
            factors(text, 1, 1000)


def _own(term: str, time: _Time) -> np.ndarray:
    """Returns the values of an own function, as `cnnjax.study.own_code` loads it."""
    function = own_code.load("train.schedule", term)
    values = []
    for progress in time.progress.flat:
        with own_code.blamed("train.schedule", term):
            value = function(float(progress))
            array = np.asarray(value)
            if array.shape or array.dtype.kind not in "iuf" or not 0 <= array < math.inf:
                returned = " ".join(repr(value).split())[:100]
                raise UnfitCode(f"it returned {returned} at {progress:g}; return a number >= 0")
        values.append(float(array))
    return np.reshape(values, time.step.shape)


def _term(term: str, time: _Time) -> np.ndarray:
    progress = time.progress
    match term.split(":"):
        case ["constant"]:
            return np.ones_like(time.step)
        case ["exponential", rate]:
            return _number(rate) ** time.epoch
        case ["piecewise", changes]:
            factor = np.ones_like(time.epoch)
            pairs = (change.partition("=") for change in changes.split("/"))
            for first, value in sorted((_whole(first), _number(value)) for first, _, value in pairs):
                factor[time.epoch >= first] = value
            return factor
        case ["warmup", epochs]:
            return np.minimum(time.epochs / _whole(epochs), 1)
        case ["cosine"]:
            return _cosine(1, 0, progress)
        case ["linear", *end] if len(end) < 2:
            return 1 + (_number(end[0] if end else "0", least=0) - 1) * progress
        case ["polynomial", power]:
            return (1 - progress) ** _number(power)
        case ["triangle", peak, *ends] if len(ends) in (0, 2):
            before, after = (_number(value, least=0) for value in ends or ("0.2", "0.07"))
            return np.interp(time.step, [0, int(_fraction(peak) * time.total), time.total], [before, 1.0, after])
        case ["onecycle", *peak] if len(peak) < 2:
            return _onecycle(_fraction(peak[0] if peak else "0.3"), time)
        case ["restarts", *lengths] if len(lengths) in (1, 2):
            return _restarts(time.epochs, *map(_whole, lengths))
        case ["plateau", _, _]:
            return np.ones_like(time.step)
    raise ValueError(term)


def _cosine(start: float, end: float, progress: np.ndarray) -> np.ndarray:
    """Returns a curve from `start` to `end` along half a period of a cosine, for progress in 0..1."""
    return end + (start - end) * 0.5 * (1 + np.cos(np.pi * progress))


def _onecycle(peak: float, time: _Time) -> np.ndarray:
    highest, last = peak * time.total - 1, time.total - 1
    rises = _cosine(1 / 25, 1, time.step / max(highest, 1e-9))
    falls = _cosine(1, 1 / 250_000, np.minimum((time.step - highest) / (last - highest), 1))
    return np.where(time.step <= highest, rises, falls)


def _restarts(epochs: np.ndarray, length: int, growth: int = 1) -> np.ndarray:
    starts = [0]
    while starts[-1] <= epochs[-1, -1]:
        starts.append(starts[-1] + length * growth ** (len(starts) - 1))
    ends = np.array(starts[1:])
    cycle = np.searchsorted(ends, epochs, side="right").clip(max=len(ends) - 1)
    start = np.array(starts)[cycle]
    return _cosine(1, 0, (epochs - start) / (ends[cycle] - start))


def _number(text: str, least: float = math.ulp(0.0)) -> float:
    value = float(text)
    if not least <= value < math.inf:
        raise ValueError(text)
    return value


def _fraction(text: str) -> float:
    if (value := _number(text)) >= 1:
        raise ValueError(text)
    return value


def _whole(text: str, least: int = 1) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,5}", text) or int(text) < least:
        raise ValueError(text)
    return int(text)
