"""The error for requests that cannot be met, and the suggestion of valid names."""

import difflib
import errno
import os
from collections.abc import Iterable


def unwritable(error: Exception) -> str | None:
    """Returns the operating system's message, in one line, if an error means that a file cannot be written."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
    if isinstance(error, OSError):
        return " ".join(str(error).split()) if error.errno in numbers else None
    # Orbax writes in its own threads, and passes on only the text of errors.
    return next((os.strerror(number) for number in numbers if os.strerror(number) in str(error)), None)


class RequestError(ValueError):
    """A request that cannot be met. The message is one line that names the key, the value and what is allowed.

    Args:
        key: a config key, a flag, or `workdir`.
        value: of the key.
        problem: begins with "must " ("must be >= 1": `train.batch_size must be >= 1, got 0`), or is a sentence
            (`workdir='runs/a': config.json cannot be read`). Advice follows after a semicolon.
    """

    def __init__(self, key: str, value: object, problem: str):
        what, mark, advice = problem.partition("; ")
        must = what.startswith("must ")
        super().__init__(
            _printable(f"{key} {what}, got {value!r}{mark}{advice}" if must else f"{key}={value!r}: {problem}")
        )

    def __reduce__(self) -> tuple:
        return RelayedError, (str(self),)  # pickled as text: another process prints the same line


class UnfitCode(ValueError):
    """A user's code does not do what cnnjax needs. The message says what is wrong, not where."""


class RelayedError(RequestError):
    """A RequestError whose message is already complete, such as that of another process."""

    def __init__(self, line: str):
        ValueError.__init__(self, _printable(line))


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in line)


def one_of(value: object, names: Iterable[str]) -> str:
    """Returns the problem of a value that is not one of `names`, with the nearest name first."""
    names = sorted(names)
    near = nearest(value, names)
    listed = f"one of {', '.join(names)}"
    return f"did you mean {near!r}? Use {listed}" if near else f"must be {listed}"


def nearest(value: object, names: Iterable[str]) -> str | None:
    """Returns the name that is most similar to a value or has it as initials (lr: learning_rate), or None."""
    text = _plain(str(value))
    by_text = {_plain(name): name for name in names}
    initials = [name for name in by_text.values() if "".join(word[:1] for word in name.split("_")) == text]
    near = difflib.get_close_matches(text, by_text, n=1, cutoff=0.5)
    return by_text[text] if text in by_text else initials[0] if initials else by_text[near[0]] if near else None


def _plain(text: str) -> str:
    return text.lower().replace("-", "").replace("_", "").replace(" ", "")
