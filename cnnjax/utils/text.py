"""Short texts: counts, numbers, names in one Unicode form or by their beginnings, and the first line of an error."""

import math
import unicodedata
from collections.abc import Iterable


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC), in which names that look alike are equal."""
    return unicodedata.normalize("NFC", name)


def completed(beginning: str, names: Iterable[str]) -> str | None:
    """Returns the only name that begins with two or more given letters, or None if none or several do."""
    found = [name for name in names if name.startswith(beginning)]
    return found[0] if len(found) == 1 and len(beginning) > 1 else None


def counted(count: float, noun: str) -> str:
    """Returns "1 seed", "1,000 seeds" or "9.9 epochs"."""
    return f"{int(count) if count == int(count) else count:,} {noun if count == 1 else noun + 's'}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the error's type if there is no message."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def significant(value: float) -> str:
    """A number with four significant digits, never in exponent form between 1e-4 and 1e6."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = int(f"{value:.3e}".partition("e")[2])  # after rounding: 99.999 is 100.0
    if not -5 < magnitude < 6:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - magnitude)}f}"
