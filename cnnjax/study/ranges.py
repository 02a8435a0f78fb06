"""Ranges of a search, as texts in the place of an axis: `log_uniform(1e-4, 1e-1)`. Pure Python."""

import ast
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from cnnjax.study.hparams import HPARAMS
from cnnjax.utils.errors import RequestError, nearest

_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_DIGITS = 4  # of a drawn number
_LEVELS = 4  # of a range whose values are compiled separately
NAMES = ("log_uniform", "uniform", "integers", "choice")
_BY_KEY = {h.key: h for h in HPARAMS}


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds.

    Attributes:
        low: the least number.
        high: the greatest number.
        is_log: whether the logarithm is uniform, instead of the number.
        is_int: whether the numbers are whole.
    """

    low: float
    high: float
    is_log: bool
    is_int: bool

    def at(self, u: float) -> float | int:
        """Returns the number at a quantile, 0 <= u < 1, with four digits."""
        low, high = (self.low, self.high + 1) if self.is_int else (self.low, self.high)
        value = low * (high / low) ** u if self.is_log else low + u * (high - low)
        return self.rounded(math.floor(value) if self.is_int else value)

    def rounded(self, value: float) -> float | int:
        """Returns a number of the range with four digits: of the number if the range is logarithmic, else of its width.

        The report shows it as it was trained, and a user can type it.
        """
        if self.is_int:
            return min(max(int(value), int(self.low)), int(self.high))
        digits = _DIGITS - 1 - math.floor(math.log10(abs(value) if self.is_log else self.high - self.low))
        return min(max(round(float(value), digits), self.low), self.high)

    def levels(self, count: int) -> tuple[float | int, ...]:
        """Returns up to `count` distinct numbers at even distances, bounds included."""
        if self.is_int:
            count = min(count, int(self.high - self.low) + 1)
        shares = [place / max(count - 1, 1) for place in range(count)]
        if self.is_log:
            values = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            values = [self.low + share * (self.high - self.low) for share in shares]
        return tuple(dict.fromkeys(self.rounded(round(value) if self.is_int else value) for value in values))


def is_call(text: str) -> bool:
    """Returns whether a text looks like a range, of whatever name: `NAME(...)`."""
    return _CALL.fullmatch(text) is not None


def read_range(key: str, text: str) -> Range | tuple:
    """Returns the range that a text describes, or the values of a choice.

    Raises:
        RequestError: the range is not valid for the key, or its bounds are the wrong way round.
    """
    call = _CALL.fullmatch(text)
    assert call is not None
    name, hparam = call[1], _BY_KEY.get(key)
    arguments = tuple(_literal(part) for part in call[2].split(",")) if call[2].strip() else ()
    if name == "choice":
        if len(arguments) < 2:
            raise RequestError(key, text, "a choice needs two values; use choice(A, B, ...), or the value alone")
        return arguments
    if hparam is None or hparam.type not in (int, float) or hparam.is_repeat:
        raise RequestError(key, text, "it takes no range of numbers; use choice(A, B, ...)" if hparam else "use values")
    numbers = [x for x in arguments if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)]
    if len(arguments) != 2 or len(numbers) != 2:
        raise RequestError(key, text, f"a range has two bounds, both numbers; use {name}(LOW, HIGH)")
    low, high = numbers
    if not low < high:
        how = f"use {name}({high:g}, {low:g})" if low > high else "use a value"
        raise RequestError(key, text, f"the lower bound must be less than the upper; {how}")
    if name == "log_uniform" and low <= 0:
        raise RequestError(key, text, "the bounds of log_uniform must be > 0; use a small number, or uniform")
    is_int = hparam.type is int or name == "integers" or key == "train.epochs"  # whole epochs share a program
    if is_int and (low != int(low) or high != int(high)):
        raise RequestError(key, text, "the bounds must be whole numbers")
    low, high = (int(low), int(high)) if is_int else (float(low), float(high))
    return Range(low, high, name == "log_uniform", is_int)


def take_ranges(config: Mapping[str, Any], levels: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Replaces the ranges of a config by values, which the rules of their keys can check.

    Args:
        config: nested mapping.
        levels: the most values of a range of a static hyperparameter: each value is compiled separately.

    Returns:
        The config, with the bounds of a range, the values of a choice, or the levels of a static range in the place of
        its text; and the texts by key.

    Raises:
        RequestError: a range is not valid, or stands beside other values.
    """
    found: dict[str, str] = {}

    def replace(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: replace(f"{key}.{name}" if key else name, item) for name, item in value.items()}
        several = isinstance(value, list | tuple)
        texts = [item for item in (value if several else (value,)) if _is_call(key, item)]
        if not texts:
            return value
        if several and len(value) > 1:
            raise RequestError(key, texts[0], "a range stands alone; use one range, or choice(A, B, ...)")
        text = found[key] = texts[0].strip()
        read = read_range(key, text)
        if not isinstance(read, Range):
            # A plain tuple of names of augmentations is one value.
            return (
                tuple(() if item == "none" else tuple(str(item).split("+")) for item in read)
                if key == "data.augment"
                else read
            )
        return read.levels(min(levels, _LEVELS)) if _BY_KEY[key].static else (read.low, read.high)

    return replace("", config), found


def _is_call(key: str, value: object) -> bool:
    """Returns whether a value is the text of a range. Raises RequestError if it looks like one of another name."""
    call = _CALL.fullmatch(value) if isinstance(value, str) else None
    if call is None or not (key in _BY_KEY or key in ("models", "seeds") or key.startswith("streams.")):
        return False
    if call[1] in NAMES:
        return True
    near = nearest(call[1], NAMES)
    use = "se log_uniform(LOW, HIGH), uniform(LOW, HIGH), integers(LOW, HIGH) or choice(A, B, ...)"
    raise RequestError(key, value, "there is no such range; " + (f"did you mean {near}? U" if near else "u") + use)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
