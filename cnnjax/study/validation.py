"""Validation: frozen dataclasses built of a config's values, each checked by the rule of its field."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

import numpy as np

from cnnjax.study.renamed import OLD_KEYS
from cnnjax.study.rules import Rule
from cnnjax.utils.errors import RequestError, nearest, one_of


def setting(default: Any, rule: Rule, doc: str) -> Any:
    """A field that takes one value."""
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc})


def several(default: tuple, rule: Rule, doc: str) -> Any:
    """A field that takes a tuple of distinct values, possibly empty."""
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc, "tuple": True})


def custom(default: Any, read: Callable[[str, Any], Any], takes: str, doc: str) -> Any:
    """A field whose values a function of the key and the value checks and brings to their stored form."""
    return dataclasses.field(default=default, metadata={"read": read, "takes": takes, "doc": doc})


def together(default: tuple, rule: Rule, doc: str) -> Any:
    """A field that takes a tuple whose values the rule judges as a whole."""
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc, "together": True})


def axis(default: Any, rule: Rule, doc: str) -> Any:
    """A field that takes one value or a tuple of distinct values: an axis of the grid (kept as a tuple)."""
    return dataclasses.field(default=(default,), metadata={"rule": rule, "doc": doc, "tuple": True, "axis": True})


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
        raise RequestError(prefix.rstrip("."), values, f"must be a group of {', '.join(fields_of(cls))}")
    fields = fields_of(cls)
    for key in values:
        if f"{prefix}{key}" in OLD_KEYS:
            raise RequestError(f"{prefix}{key}", values[key], OLD_KEYS[f"{prefix}{key}"])
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


def keys_table(config: Any) -> str:
    """Returns the table of configs/README.md: each key of a config with its default, what it takes, and its doc."""
    lines = ["| key | default | | takes | what it says |", "|---|---|---|---|---|", *_keys_rows(config, "")]
    return "\n".join(lines)


def _keys_rows(config: Any, prefix: str) -> Iterator[str]:
    for name, field in fields_of(type(config)).items():
        value, about = getattr(config, name), field.metadata
        if dataclasses.is_dataclass(value):
            yield from _keys_rows(value, f"{prefix}{name}.")
            continue
        default, is_axis = (value[0], "axis") if about.get("axis") else (value, "")
        takes = about["takes"] if "takes" in about else about["rule"].allowed.removeprefix("must be ")
        yield f"| `{prefix}{name}` | `{default!r}` | {is_axis} | {takes} | {about['doc']} |"
