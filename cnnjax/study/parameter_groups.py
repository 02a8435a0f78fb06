"""Groups of parameters with a learning rate and a weight decay of their own: the values of `train.groups`.

{"bias": {"learning_rate": 64.0}}               the learning rate of biases is 64 times that of other parameters
{"bias|scale": {"weight_decay": 0}}             biases, and the scales of batch norm, do not decay
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cnnjax.study.rules import is_number
from cnnjax.utils.errors import RequestError, one_of

NONE = "none"
ALLOWED = (
    'must be none, or a mapping of patterns to factors, as in `{"bias": {"learning_rate": 64, "weight_decay": 0}}`'
)


class Factors(NamedTuple):
    """What the hyperparameters of some parameters are multiplied by."""

    learning_rate: float = 1.0
    weight_decay: float = 1.0


def read_axis(key: str, value: Any) -> tuple[str, ...]:
    """Reads one or several values of `train.groups`, each a mapping or its JSON text. Returns their JSON texts.

    Raises:
        RequestError: a value is no such mapping, or occurs twice.
    """
    values = tuple(_read_one(key, item) for item in (value if isinstance(value, list | tuple) else (value,)))
    if not values or len(set(values)) < len(values):
        raise RequestError(key, value, "must be one value, or several distinct values")
    return values


def _read_one(key: str, value: Any) -> str:
    groups = _parsed(value) if isinstance(value, str) else value
    if not isinstance(groups, Mapping):
        raise RequestError(key, value, ALLOWED)
    for pattern, factors in groups.items():
        if not isinstance(pattern, str) or not isinstance(factors, Mapping):
            raise RequestError(key, value, ALLOWED)
        try:
            re.compile(pattern)
        except re.error as error:
            raise RequestError(key, pattern, f"must be a regular expression ({error})") from error
        for name, factor in factors.items():
            if name not in Factors._fields:
                raise RequestError(f"{key}.{pattern}", name, one_of(name, Factors._fields))
            if not is_number(factor) or factor < 0:
                raise RequestError(f"{key}.{pattern}.{name}", factor, "must be a number >= 0")
    plain = {pattern: {n: float(factor) for n, factor in factors.items()} for pattern, factors in groups.items()}
    return json.dumps(plain, sort_keys=True) if plain else NONE


def _parsed(text: str) -> Any:
    try:
        return {} if text == NONE else json.loads(text)
    except json.JSONDecodeError:
        return None


def read_groups(text: str) -> dict[str, Factors]:
    """Returns the factors of each pattern, given the text of a trial."""
    return {pattern: Factors(**factors) for pattern, factors in (_parsed(text) or {}).items()}


def factors_of(name: str, groups: Mapping[str, Factors]) -> Factors:
    """Returns the factors of a parameter, given its dotted name: the products over all patterns that match."""
    product = Factors()
    for pattern, factors in groups.items():
        if re.search(pattern, name):
            product = Factors(*(a * b for a, b in zip(product, factors, strict=True)))
    return product
