"""Nested mappings, such as configs and records, and named tuples, which are pytrees."""

import functools
import math
from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each value with its dotted key, such as `train.epochs`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Returns both values for each dotted key in which two nested mappings differ; None stands for a missing value."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = a, b
    return found


def finite(value: Any) -> Any:
    """Returns a nested value with None in place of numbers that are not finite, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def tuple_type(name: str, fields: tuple[str, ...]) -> Any:
    """Returns the type of a named tuple whose fields a tuple declares: a type checker does not know them."""
    return namedtuple(name, fields)
