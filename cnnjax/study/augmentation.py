"""Augmentations by their names: the values of `data.augment`, and how a trial writes them. Pure Python."""

from typing import Any

from cnnjax.study.rules import Rule
from cnnjax.utils.errors import RequestError

NAMES = ("flip", "crop", "flip_all", "flip_vertical_all", "rotate")
NONE = "none"  # of a trial without augmentation
RULE = Rule(lambda name: name in NAMES, f"must be {NONE}, one of {', '.join(NAMES)}, or several of them joined by +")


def read_axis(key: str, value: Any) -> tuple[tuple[str, ...], ...]:
    """Reads values of `data.augment`, each a tuple of names that are applied together.

    A text is one value: `flip`, `flip+crop` or `none`. A plain tuple of names is one value, too. A tuple is an axis of
    several values if it contains a tuple, `none` or names joined by +.

    Returns:
        The values. The names of each are in the order of `NAMES`: training does not depend on their order.

    Raises:
        RequestError: a name is unknown, or a name or value occurs twice.
    """
    items = value if isinstance(value, list | tuple) else (value,)
    if all(isinstance(item, str) and item != NONE and "+" not in item for item in items):
        items = (items,)
    values = tuple(_read_one(key, item) for item in items)
    if len(set(values)) < len(values):
        raise RequestError(key, value, "a value occurs twice; use distinct values")
    return values


def _read_one(key: str, value: Any) -> tuple[str, ...]:
    given = names(value) if isinstance(value, str) else value if isinstance(value, list | tuple) else (value,)
    for name in given:
        if not RULE.accepts(name):
            raise RequestError(key, name, RULE.allowed)
    if len(set(given)) < len(given):
        raise RequestError(key, value, "a name occurs twice; use distinct names")
    return tuple(name for name in NAMES if name in given)


def levels(values: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Returns each value as the text that trials have: `flip+crop` or `none`."""
    return tuple("+".join(value) or NONE for value in values)


def names(text: str) -> tuple[str, ...]:
    """Returns the names in the text of a trial."""
    return () if text == NONE else tuple(text.split("+"))
