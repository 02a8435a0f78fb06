"""One process at a time in a folder."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cnnjax.utils.errors import RequestError

LOCK = ".lock"
HOLDER = ".lock_holder"  # the lock's own file is emptied by whoever tries to take the lock


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0, name: str | None = None) -> Iterator[None]:
    """Keeps other processes out of a folder while the block runs.

    The operating system holds the lock and frees it when the process ends. On a file system without locks, the file
    itself is the lock.

    Args:
        folder: the folder.
        patience: seconds to wait for another process to leave the folder.
        name: what the user calls the folder; the default is its path.

    Raises:
        RequestError: another process is in the folder. The message names the process.
    """
    lock = FileLock(folder / LOCK, timeout=patience, poll_interval=0.1)
    try:
        lock.acquire()
    except Timeout:
        raise taken(name or str(folder), holder(folder) or "another process") from None
    try:
        (folder / HOLDER).write_text(f"{describe_process()}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder is gone, or read-only
            (folder / HOLDER).unlink()
        lock.release()


def holder(folder: Path) -> str:
    """Returns which process holds a folder, as `describe_process` names it; nothing where none said so."""
    try:
        return " ".join((folder / HOLDER).read_text(encoding="utf-8")[:200].split())
    except (OSError, UnicodeDecodeError):
        return ""


def taken(folder: str, holder: str) -> RequestError:
    """Returns the error for a folder that another process, as `describe_process` names it, works in."""
    return RequestError("workdir", folder, f"{holder} works in it; wait for its end, or choose another folder")


def describe_process() -> str:
    """Returns who this process is, for others: its number, its host, and the time."""
    return f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
