"""What the values of a config may be, and the frozen dataclasses that are built of values that pass."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from cnnjax.utils.errors import RequestError, nearest, one_of


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
    words = f"allowed: a whole number >= {least}" + ("" if most is None else f" and <= {most}")
    return Rule(lambda v: is_int(v) and v >= least and (most is None or v <= most), words)


def number(least: float, below: float = math.inf, *, exclusive: bool = False) -> Rule:
    """A finite number in [least, below), or (least, below) when `exclusive`."""
    sign = ">" if exclusive else ">="
    words = f"allowed: a number {sign} {least:g}" + ("" if below == math.inf else f" and < {below:g}")
    return Rule(lambda v: is_number(v) and (v > least if exclusive else v >= least) and v < below, words)


def choice(*names: str) -> Rule:
    """One of some words."""
    return Rule(lambda v: isinstance(v, str) and v in names, "allowed: " + ", ".join(names))


def none_or(rule: Rule) -> Rule:
    """None, or what another rule accepts."""
    return Rule(lambda v: v is None or rule.accepts(v), rule.allowed + ", or None")


def setting(default: Any, rule: Rule) -> Any:
    """A field that takes one value."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def several(default: tuple, rule: Rule) -> Any:
    """A field that takes a tuple of distinct values, possibly empty."""
    return dataclasses.field(default=default, metadata={"rule": rule, "tuple": True})


def custom(default: Any, read: Callable[[str, Any], Any]) -> Any:
    """A field whose values a function of the key and the value checks and brings to their stored form."""
    return dataclasses.field(default=default, metadata={"read": read})


def together(default: tuple, rule: Rule) -> Any:
    """A field that takes a tuple whose values the rule judges as a whole."""
    return dataclasses.field(default=default, metadata={"rule": rule, "together": True})


def axis(default: Any, rule: Rule) -> Any:
    """A field that takes one value or a tuple of distinct values: an axis of the grid (kept as a tuple)."""
    return dataclasses.field(default=(default,), metadata={"rule": rule, "tuple": True, "axis": True})


def plain(value: Any) -> Any:
    """Returns a config's value without what only Python's code can write: ranges, NumPy's arrays and numbers, paths."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return tuple(map(plain, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def build(cls: type, values: Any, prefix: str) -> Any:
    """Returns a dataclass of checked values.

    Args:
        cls: whose fields are of the kinds above, or are such dataclasses themselves.
        values: a mapping; absent fields take their defaults.
        prefix: of the keys, in errors.

    Raises:
        RequestError: an unknown key, or a value that its rule does not accept.
    """
    if not isinstance(values, Mapping):
        raise RequestError(prefix.rstrip("."), values, f"allowed: a group of {', '.join(fields_of(cls))}")
    fields = fields_of(cls)
    for key in values:
        if key not in fields:
            raise RequestError(f"{prefix}{key}", values[key], f"there is no such key; {_keys_like(key, cls)}")
    hints = get_type_hints(cls)
    built = {}
    for key, value in values.items():
        field = fields[key]
        is_group = dataclasses.is_dataclass(hints[key])
        built[key] = build(hints[key], value, f"{prefix}{key}.") if is_group else check(f"{prefix}{key}", value, field)
    return cls(**built)


def _keys_like(key: str, cls: type) -> str:
    """Says which keys there are, the nearest first, be it one of a group."""
    groups = {
        name: hint
        for name, hint in get_type_hints(cls).items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
    below = {field: f"{group}.{field}" for group, of in groups.items() for field in fields_of(of)}
    near = None if nearest(key, fields_of(cls)) else nearest(key, below)
    return f"did you mean {below[near]!r}? {one_of(key, fields_of(cls))}" if near else one_of(key, fields_of(cls))


def fields_of(cls: type) -> dict[str, dataclasses.Field]:
    """Returns the fields of a dataclass by name."""
    return {field.name: field for field in dataclasses.fields(cls)}


def check(key: str, value: Any, field: dataclasses.Field) -> Any:
    """Returns `value` in its stored form: a checked single value, or a tuple of checked distinct values."""
    if "read" in field.metadata:
        return field.metadata["read"](key, value)
    rule: Rule = field.metadata["rule"]
    if field.metadata.get("together"):
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not rule.accepts(values):
            raise RequestError(key, value, rule.allowed)
        return values
    if not field.metadata.get("tuple"):
        if isinstance(value, list | tuple) or not rule.accepts(value):
            raise RequestError(key, value, rule.allowed)
        return value
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values and field.metadata.get("axis"):
        raise RequestError(key, value, f"an axis needs at least one value; {rule.allowed}")
    for item in values:
        if not rule.accepts(item):
            raise RequestError(key, item, rule.allowed)
    if len(set(values)) < len(values):
        raise RequestError(key, value, "each value may stand once")
    return values
