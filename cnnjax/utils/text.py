"""Short texts: counts, names in one Unicode form, and the first line of an error."""

import unicodedata


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC), in which names that look alike are equal."""
    return unicodedata.normalize("NFC", name)


def counted(count: int, noun: str) -> str:
    """Returns "1 seed" or "1,000 seeds"."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the error's type if there is no message."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
