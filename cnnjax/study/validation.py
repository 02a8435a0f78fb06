"""Validation: builds frozen dataclasses from the values of a config. The rule of each field checks its value."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, get_type_hints

import numpy as np

from cnnjax.study.hparam import Hparam
from cnnjax.study.renamed import OLD_KEYS
from cnnjax.study.rules import Rule, check_distinct
from cnnjax.utils.errors import RequestError, nearest


def single(default: Any, rule: Rule, doc: str) -> Any:
    """Declares a field that takes one value."""
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc})


def distinct(default: tuple, rule: Rule, doc: str) -> Any:
    """Declares a field that takes a tuple of distinct values, which may be empty. The rule checks each value."""
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc, "tuple": True})


def custom(default: Any, read: Callable[[str, Any], Any], takes: str, doc: str) -> Any:
    """Declares a field with a function of its own for validation.

    Args:
        default: the default value, in its stored form.
        read: takes the key and the value, checks the value, and returns it in its stored form.
        takes: the allowed values, for configs/README.md.
        doc: the description, for configs/README.md.
    """
    return dataclasses.field(default=default, metadata={"read": read, "takes": takes, "doc": doc})


def joint(default: tuple, rule: Rule, doc: str) -> Any:
    """Declares a field that takes a tuple. The rule checks the whole tuple."""
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc, "joint": True})


def _as_it_is(key: str, value: Any) -> Any:
    return value


def internal(default: Any, read: Callable[[str, Any], Any] = _as_it_is) -> Any:
    """Declares a field that no user sets, with a function that checks a value and returns it as it is stored."""
    return dataclasses.field(default_factory=lambda: default, hash=False, metadata={"read": read, "internal": True})


def axis(default: Any, rule: Rule, doc: str) -> Any:
    """Declares an axis of the grid: one value or a tuple of distinct values. It is stored as a tuple."""
    return dataclasses.field(default=(default,), metadata={"rule": rule, "doc": doc, "tuple": True, "axis": True})


def declared(hparam: Hparam) -> Any:
    """Declares the field of a hyperparameter: an axis, unless its key takes one value."""
    if hparam.is_repeat:
        return single(hparam.default, hparam.rule, hparam.doc)
    if hparam.read is None:
        return axis(hparam.default, hparam.rule, hparam.doc)
    metadata = {"read": hparam.read, "rule": hparam.rule, "doc": hparam.doc, "axis": True}
    return dataclasses.field(default=hparam.read(hparam.key, hparam.default), metadata=metadata)


def plain(value: Any) -> Any:
    """Returns a value of a config with ranges, NumPy arrays and numbers, and paths as tuples, numbers and strings."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return tuple(map(plain, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def build(cls: type, values: Any, prefix: str) -> Any:
    """Builds a dataclass from a mapping, and checks its values.

    Args:
        cls: a dataclass. Its fields are declared by the functions above, or are such dataclasses.
        values: a mapping. Missing keys take their defaults.
        prefix: the prefix of the keys in errors.

    Raises:
        RequestError: a key is unknown, or its rule does not accept the value.
    """
    if not isinstance(values, Mapping):
        raise RequestError(prefix.rstrip("."), values, f"must be a mapping; its keys are {', '.join(fields_of(cls))}")
    fields = fields_of(cls)
    for key in values:
        if f"{prefix}{key}" in OLD_KEYS:
            raise RequestError(f"{prefix}{key}", values[key], OLD_KEYS[f"{prefix}{key}"])
        if key not in fields:
            raise RequestError(f"{prefix}{key}", values[key], _unknown_key(key, cls))
    hints = get_type_hints(cls)
    built = {}
    for key, value in values.items():
        field = fields[key]
        is_group = dataclasses.is_dataclass(hints[key])
        built[key] = build(hints[key], value, f"{prefix}{key}.") if is_group else check(f"{prefix}{key}", value, field)
    return cls(**built)


def unknown_key(key: str, keys: Collection[str], near: str | None = None) -> str:
    """Returns the problem of a key that does not exist, with all keys and the most similar one or `near`."""
    near = near or nearest(key, keys)
    listed = f"one of {', '.join(sorted(keys))}"
    return "there is no such key; " + (f"did you mean {near!r}? Use {listed}" if near else f"use {listed}")


def _unknown_key(key: str, cls: type) -> str:
    """Returns the problem of a key that does not exist in a dataclass. The most similar key may be one of a group."""
    groups = {
        name: hint
        for name, hint in get_type_hints(cls).items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
    below = {field: f"{group}.{field}" for group, of in groups.items() for field in fields_of(of)}
    near = key if key in below else None if nearest(key, fields_of(cls)) else nearest(key, below)
    keys = [name for name, field in fields_of(cls).items() if not field.metadata.get("internal")]
    return unknown_key(key, keys, below[near] if near else None)


def fields_of(cls: type) -> dict[str, dataclasses.Field]:
    """Returns the fields of a dataclass by name."""
    return {field.name: field for field in dataclasses.fields(cls)}


def axis_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of the axes of a config."""
    hints = get_type_hints(cls)
    for name, field in fields_of(cls).items():
        if dataclasses.is_dataclass(hints[name]):
            yield from axis_keys(hints[name], f"{prefix}{name}.")
        elif field.metadata.get("axis"):
            yield f"{prefix}{name}"


def check(key: str, value: Any, field: dataclasses.Field) -> Any:
    """Checks a value by the rule of its field. Returns the value, or a tuple of values, as the field stores it."""
    if "read" in field.metadata:
        return field.metadata["read"](key, value)
    rule: Rule = field.metadata["rule"]
    if field.metadata.get("joint"):
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
        raise RequestError(key, value, f"an axis needs at least one value; each {rule.allowed}")
    for item in values:
        if not rule.accepts(item):
            raise RequestError(key, item, rule.allowed)
    check_distinct(key, value, values)
    return values


def keys_table(config: Any) -> str:
    """Returns the table of configs/README.md: the keys of a config, their defaults, allowed values and descriptions."""
    lines = ["| key | default | | allowed values | description |", "|---|---|---|---|---|", *_keys_rows(config, "")]
    return "\n".join(lines)


def _keys_rows(config: Any, prefix: str) -> Iterator[str]:
    for name, field in fields_of(type(config)).items():
        value, about = getattr(config, name), field.metadata
        if dataclasses.is_dataclass(value):
            yield from _keys_rows(value, f"{prefix}{name}.")
        if "doc" not in about:
            continue
        is_axis = "axis" if about.get("axis") else ""
        default = value[0] if is_axis and not isinstance(value, Mapping) else value
        takes = about["takes"] if "takes" in about else about["rule"].allowed.removeprefix("must be ")
        yield f"| `{prefix}{name}` | `{default!r}` | {is_axis} | {takes} | {about['doc']} |"
