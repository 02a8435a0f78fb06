"""What the files of a run may hold. Every record is checked as it is read, for the folder may be someone else's."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cnnjax.study.hparams import HPARAMS
from cnnjax.study.metrics import MEASURES
from cnnjax.study.renamed import OLD_COLUMNS


def _hparams_of(kind: type) -> tuple[str, ...]:
    return tuple(h.column for h in HPARAMS if h.type is kind)


TEXT_COLUMNS = ("trial", "member", "model", *_hparams_of(str), "later_stages", "status")
_BOOL_COLUMNS = _hparams_of(bool)
_WHOLE_COLUMNS = (
    *_hparams_of(int),
    *("seed", "stream_init", "stream_order", "stream_augment", "stream_dropout", "epochs_run", "best_epoch"),
)
_NUMBER_COLUMNS = (
    *_hparams_of(float),
    *MEASURES,
    *("seconds", "images_per_second"),
)
_MOST = 2**53  # the largest whole number that a float64 counts to
_MOST_TEXT = 10_000
_DIGITS = re.compile(r"[-+.\deE]{1,40}", re.ASCII)


class _Kind(NamedTuple):
    """Values without others in them: of these types and, as numbers, from `least`, or as texts, of `most` letters."""

    words: str
    types: tuple[type, ...]
    least: float = -math.inf
    most: int = _MOST


class _Keys(NamedTuple):
    """A mapping: what stands under its known keys, and which of these it needs."""

    known: Mapping[str, Any]
    needed: tuple[str, ...] = ()


_NAME = _Kind("a text of at most 1,000 letters", (str,), most=1000)
_WHOLE = _Kind("a whole number, 0 or more", (int,), least=0)
_NUMBER = _Kind("a number", (int, float))
_NO_NUMBER = _Kind("a number or null", (int, float, type(None)))
_NO_NAME = _Kind("a text or null", (str, type(None)), most=1000)

_TRIAL = _Keys({"trial": _NAME, "member": _NAME, "model": _NAME}, ("trial", "member", "status"))

# A list holds the form of each item, a mapping that of the values of some keys. `study.from_config` checks config.json.
_FORMS: dict[str, Any] = {
    "data.json": {
        **{"name": _NAME, "classes": [_NAME], "image_shape": [_WHOLE], "mean": [_NUMBER], "std": [_NUMBER]},
        **{"counts": {"train": _WHOLE, "validation": _WHOLE, "test": _WHOLE}},
        **{"validation_from": _NO_NAME, "test_from": _NAME, "sha256": _NAME, "test_sha256": _NAME},
    },
    "plan.json": {
        **{"trials": _WHOLE, "trained": _WHOLE},
        "programs": [
            _Keys(
                {
                    **{"id": _NAME, "model": _NAME, "member_ids": [_NAME], "parameters": _NUMBER},
                    **{"forward_flops": _NUMBER, "training_flops": _NUMBER, "compilations": _WHOLE},
                    **{"memory_bytes": _NO_NUMBER, "chunk_members": [_WHOLE]},
                },
                ("id",),
            )
        ],
    },
    "environment.json": {
        **{"devices": [_NAME], "versions": {}, "flags": {}, "git_revision": _NO_NAME},
        **{"earlier": [{}], "tasks": {}},
    },
    "layout.json": _Keys({"chunks": [[_WHOLE]]}, ("chunks",)),
    "metrics.jsonl": _Keys({"member": _NAME, "trial": _NAME, "epoch": _WHOLE}, ("epoch",)),
    "trials.csv": _TRIAL,
    "trials.jsonl": _TRIAL,
    "checkpoint": _Keys(
        {"epoch": _WHOLE, "seconds": _NUMBER, "members": [_NAME], "checksums": {}}, ("epoch", "members")
    ),
}


def check(file: str, record: Mapping[str, Any]) -> None:
    """Raises ValueError where a record is not what a file of this name holds, in words that name its place.

    What a file of another name holds is checked for texts and numbers without end only.
    """
    _check(record, _FORMS.get(file, {}), "")
    if file in ("trials.csv", "trials.jsonl"):
        _check_cells({column: "" if value is None else str(value) for column, value in record.items()})


def _check(value: Any, form: Any, place: str) -> None:
    if isinstance(form, _Kind):
        if not isinstance(value, form.types) or (isinstance(value, bool) and bool not in form.types):
            raise ValueError(f"{place} is {_shown(value)}, and should be {form.words}")
        is_long = isinstance(value, str) and len(value) > form.most
        if is_long or (isinstance(value, int | float) and not max(form.least, -form.most) <= value <= form.most):
            raise ValueError(f"{place} is {_shown(value)}, and should be {form.words}")
        return
    if isinstance(form, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{place} is {_shown(value)}, and should be a list")
        for number, item in enumerate(value):
            _check(item, form[0], f"{place}[{number}]")
        return
    known, needed = form if isinstance(form, _Keys) else (form, ())
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} is {_shown(value)}, and should hold keys")
    if missing := [key for key in needed if key not in value]:
        raise ValueError(f"{f'{place}.' if place else ''}{missing[0]} is missing")
    for key, item in value.items():
        _check_end(key, "a key")
        below = f"{place}.{key}" if place else key
        if key in known:
            _check(item, known[key], below)
        else:
            _check_end(item, below)


def _check_end(value: Any, place: str) -> None:
    """Raises ValueError where a value of any kind holds a text or a number without end."""
    if isinstance(value, str) and len(value) > _MOST_TEXT:
        raise ValueError(f"{place} is {_shown(value)}, and should be a text of at most {_MOST_TEXT:,} letters")
    if isinstance(value, int) and abs(value) > _MOST**2:
        raise ValueError(f"{place} is {_shown(value)}, and should be a number")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_end(key, "a key")
            _check_end(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_end(item, place)


def _check_cells(row: Mapping[str, str]) -> None:
    """Raises ValueError where a row of trials.csv has a cell that is neither empty nor a value of its column."""
    for column, cell in row.items():
        if cell == "":
            continue
        name = OLD_COLUMNS.get(column, column)
        if name in _BOOL_COLUMNS and cell not in ("True", "False"):
            raise ValueError(f"{column} is {_shown(cell)}, and should be True or False")
        if name not in (*_NUMBER_COLUMNS, *_WHOLE_COLUMNS):
            continue
        number = _number(cell)
        if not math.isfinite(number):
            raise ValueError(f"{column} is {_shown(cell)}, and should be a number")
        if name in _WHOLE_COLUMNS and not (0 <= number <= _MOST and number.is_integer()):
            raise ValueError(f"{column} is {_shown(cell)}, and should be {_WHOLE.words}")


def _number(cell: str) -> float:
    try:
        return float(cell) if _DIGITS.fullmatch(cell) else math.inf
    except ValueError:
        return math.inf


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > _MOST:
        return "a number without end"
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
