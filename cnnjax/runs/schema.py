"""The values that files of a run may hold. Every record read is checked: the run may come from someone else."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cnnjax.study.hparams import HPARAMS, STREAM_COLUMNS
from cnnjax.study.metrics import MEASURES, is_measure
from cnnjax.study.renamed import OLD_COLUMNS


def _hparams_of(kind: type) -> tuple[str, ...]:
    return tuple(h.column for h in HPARAMS if h.type is kind)


TEXT_COLUMNS = ("trial", "member", "model", *_hparams_of(str), "later_stages", "status")
_BOOL_COLUMNS = _hparams_of(bool)
_INT_COLUMNS = (
    *_hparams_of(int),
    *("seed", *STREAM_COLUMNS, "epochs_run", "best_epoch"),
)
_FLOAT_COLUMNS = (
    *_hparams_of(float),
    *MEASURES,
    *("seconds", "images_per_second"),
)
_NUMBER_COLUMNS = {*_INT_COLUMNS, *_FLOAT_COLUMNS}
_MAX_INT = 2**53  # float64 represents all integers up to it
_MAX_TEXT = 10_000  # characters
_DIGITS = re.compile(r"[-+.\deE]{1,40}", re.ASCII)


class _Kind(NamedTuple):
    """A form of scalars.

    Attributes:
        words: the form in an error message.
        types: the types allowed.
        minimum: of a number.
        maximum: of a number, or of the length of a text.
    """

    words: str
    types: tuple[type, ...]
    minimum: float = -math.inf
    maximum: int = _MAX_INT


class _Keys(NamedTuple):
    """A form of mappings: the forms of known keys, and the required keys."""

    known: Mapping[str, Any]
    required: tuple[str, ...] = ()


_NAME = _Kind("a text of at most 1,000 characters", (str,), maximum=1000)
_COUNT = _Kind("an integer >= 0", (int,), minimum=0)
_NUMBER = _Kind("a number", (int, float))
_OPTIONAL_NUMBER = _Kind("a number or null", (int, float, type(None)))
_OPTIONAL_NAME = _Kind("a text of at most 1,000 characters or null", (str, type(None)), maximum=1000)

_TRIAL = _Keys({"trial": _NAME, "member": _NAME, "model": _NAME}, ("trial", "member", "status"))

# A list contains the form of each item, a dict the forms of some keys. `study.from_config` checks the study in
# config.json.
_FORMS: dict[str, Any] = {
    "config.json": {"looks": [_Keys({"share": _NUMBER, "seeds": {}, "in_question": [_NAME]}, ("share", "seeds"))]},
    "data.json": {
        **{"name": _NAME, "classes": [_NAME], "image_shape": [_COUNT], "mean": [_NUMBER], "std": [_NUMBER]},
        **{"counts": {"train": _COUNT, "validation": _COUNT, "test": _COUNT}},
        **{"validation_from": _OPTIONAL_NAME, "test_from": _NAME, "sha256": _NAME, "test_sha256": _NAME},
        **{"source_sha256": _NAME, "test_splits": [_COUNT], "splits": [{"mean": [_NUMBER], "std": [_NUMBER]}]},
    },
    "plan.json": {
        **{"trials": _COUNT, "trained": _COUNT, "repeats": {}, "trial_ids": [_NAME]},
        "programs": [
            _Keys(
                {
                    **{"id": _NAME, "model": _NAME, "member_ids": [_NAME], "member_epochs": [_COUNT]},
                    "parameters": _NUMBER,
                    **{"forward_flops": _NUMBER, "training_flops": _NUMBER, "compilations": _COUNT},
                    **{"memory_bytes": _OPTIONAL_NUMBER, "chunk_members": [_COUNT]},
                },
                ("id",),
            )
        ],
    },
    "environment.json": {
        **{"devices": [_NAME], "versions": {}, "flags": {}, "git_revision": _OPTIONAL_NAME},
        **{"earlier": [{}], "tasks": {}},
    },
    "layout.json": {
        "batches": [_Keys({"members": [_NAME], "size": _COUNT}, ("members", "size"))],
        "mesh": [_COUNT],
        "chunks": [[_COUNT]],  # of version 0.1
    },
    "metrics.jsonl": _Keys({"member": _NAME, "trial": _NAME, "epoch": _COUNT}, ("epoch",)),
    "trials.csv": _TRIAL,
    "trials.jsonl": _TRIAL,
    "checkpoint": _Keys(
        {"epoch": _COUNT, "seconds": _NUMBER, "members": [_NAME], "checksums": {}}, ("epoch", "members")
    ),
}


def check(file: str, record: Mapping[str, Any]) -> None:
    """Raises ValueError, which names the key, if a value is not allowed in a file of this name.

    In a file of an unknown name, only the sizes of texts and numbers are checked.
    """
    _check(record, _FORMS.get(file, {}), "")
    if file in ("trials.csv", "trials.jsonl"):
        _check_cells({column: "" if value is None else str(value) for column, value in record.items()})


def _check(value: Any, form: Any, place: str) -> None:
    if isinstance(form, _Kind):
        is_of_type = isinstance(value, form.types) and not isinstance(value, bool)
        size = len(value) if isinstance(value, str) else value
        if not is_of_type or (size is not None and not max(form.minimum, -form.maximum) <= size <= form.maximum):
            raise _unexpected(place, value, form.words)
        return
    if isinstance(form, list):
        if not isinstance(value, list | tuple):
            raise _unexpected(place, value, "a list")
        for number, item in enumerate(value):
            _check(item, form[0], f"{place}[{number}]")
        return
    known, required = form if isinstance(form, _Keys) else (form, ())
    if not isinstance(value, Mapping):
        raise _unexpected(place, value, "an object")
    if missing := [key for key in required if key not in value]:
        raise ValueError(f"{f'{place}.' if place else ''}{missing[0]} is missing")
    for key, item in value.items():
        _check_size(key, "a key")
        below = f"{place}.{key}" if place else key
        if key in known:
            _check(item, known[key], below)
        else:
            _check_size(item, below)


def _check_size(value: Any, place: str) -> None:
    """Raises ValueError if a value contains an overlong text or a huge integer."""
    if isinstance(value, float):  # most values of a run
        return
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise _unexpected(place, value, f"a text of at most {_MAX_TEXT:,} characters")
    elif isinstance(value, int):
        if abs(value) > _MAX_INT**2:
            raise _unexpected(place, value, "a smaller number")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_size(key, "a key")
            _check_size(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_size(item, place)


def _check_cells(row: Mapping[str, str]) -> None:
    """Raises ValueError if a cell of a row of trials.csv is neither empty nor a value of its column."""
    for column, cell in row.items():
        if cell == "":
            continue
        name = OLD_COLUMNS.get(column, column)
        if name in _BOOL_COLUMNS and cell not in ("True", "False"):
            raise _unexpected(column, cell, "True or False")
        if name not in _NUMBER_COLUMNS and not is_measure(name):
            continue
        number = _number(cell)
        if not math.isfinite(number):
            raise _unexpected(column, cell, _NUMBER.words)
        if name in _INT_COLUMNS and not (0 <= number <= _MAX_INT and number.is_integer()):
            raise _unexpected(column, cell, _COUNT.words)


def _number(cell: str) -> float:
    """Returns the number in a cell, or infinity if it is not a number."""
    try:
        return float(cell) if _DIGITS.fullmatch(cell) else math.inf
    except ValueError:
        return math.inf


def _unexpected(place: str, value: Any, expected: str) -> ValueError:
    if isinstance(value, int) and abs(value) > _MAX_INT:
        text = "a huge integer"
    else:
        text = repr(value[:60] if isinstance(value, str) else value)
    return ValueError(f"{place} is {text if len(text) <= 60 else f'{text[:57]}...'}, expected {expected}")
