"""A lock that admits one process at a time to a folder."""

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cnnjax.utils.errors import RequestError

LOCK = ".lock"
HOLDER = ".lock_holder"  # a file of its own: every attempt to take the lock truncates the lock file


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0, name: str | None = None) -> Iterator[None]:
    """Holds the lock of a folder while the block runs.

    The operating system releases the lock when the process ends. On a file system without locks, the existence of the
    file is the lock.

    Args:
        folder: the folder.
        patience: seconds to wait for the lock.
        name: the folder in the error message; the default is its path.

    Raises:
        RequestError: another process holds the lock. The message names the process.
    """
    lock = FileLock(folder / LOCK, timeout=patience, poll_interval=0.1)
    try:
        lock.acquire()
    except Timeout:
        problem = f"{holder(folder) or 'another process'} works in it; wait for its end, or choose another folder"
        raise RequestError("workdir", name or str(folder), problem) from None
    try:
        since = datetime.datetime.now().isoformat(" ", timespec="milliseconds")  # a launch is known by this text
        process = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
        (folder / HOLDER).write_text(f"{process}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder is deleted or read-only
            (folder / HOLDER).unlink()
        lock.release()


def holder(folder: Path) -> str:
    """Returns the process that holds the lock of a folder, as text; "" if it is unknown."""
    try:
        return " ".join((folder / HOLDER).read_text(encoding="utf-8")[:200].split())
    except (OSError, UnicodeDecodeError):
        return ""
