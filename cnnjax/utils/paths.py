"""Paths from the user, and the cache folder."""

import os
from pathlib import Path

from cnnjax.utils.errors import RequestError

NO_TEXT = "its name is not UTF-8; rename it"


def expanded(key: str, path: str | Path) -> Path:
    """Returns a path with ~ and ~user expanded; the path need not exist.

    Args:
        key: the config key or flag of the path, for errors.
        path: from the user.

    Raises:
        RequestError: there is no such user, the name is too long or not UTF-8, or a parent folder is not readable.
    """
    if not is_text(str(path)):
        raise RequestError(key, str(path), NO_TEXT)
    try:
        found = Path(path).expanduser()
        found.exists()
    except (OSError, RuntimeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "there is no such user"
        raise RequestError(key, str(path), f"{problem}; use another path") from error
    return found


def make_folder(key: str, folder: Path) -> None:
    """Creates a folder if it does not exist.

    Args:
        key: the config key or flag of the folder, for errors.
        folder: the folder.

    Raises:
        RequestError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(key, str(folder), f"{error.strerror}; use a folder") from error


def cache_folder() -> Path:
    """Returns $CNNJAX_CACHE, or ~/.cache/cnnjax."""
    return Path(os.environ.get("CNNJAX_CACHE") or "~/.cache/cnnjax").expanduser()


def is_text(name: str) -> bool:
    """Whether a name is UTF-8, so that it can be printed and written to files."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
