"""The paths that a user names."""

from pathlib import Path

from cnnjax.utils.errors import RequestError

NO_TEXT = "its name is not UTF-8; use a name that can be written down"


def expanded(key: str, path: str | Path) -> Path:
    """Returns a path in which ~ and ~user stand for their folders; nothing need be there.

    Args:
        key: what the path was asked for as; an error names it.
        path: as the user wrote it.

    Raises:
        RequestError: there is no such user, the name is too long or not UTF-8, or a folder above is closed.
    """
    if not is_text(str(path)):
        raise RequestError(key, str(path), NO_TEXT)
    try:
        place = Path(path).expanduser()
        place.exists()
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "there is no such user"
        raise RequestError(key, str(path), f"{why}; use a path") from error
    return place


def make_folder(key: str, folder: Path) -> None:
    """Makes a folder, which may be there.

    Raises:
        RequestError: it cannot be made; `key` is what asked for it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(key, str(folder), f"{error.strerror}; use a folder") from error


def is_text(name: str) -> bool:
    """Whether a name is UTF-8, as what is to be printed or written down has to be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
