"""One process at a time in a folder."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from cnnjax.utils.errors import RequestError

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0, name: str | None = None) -> Iterator[None]:
    """Keeps other processes out of a folder while the block runs.

    The operating system holds the lock: that of a process that died, however it died, is free at once. A file system
    without locks is trusted.

    Args:
        folder: the folder.
        patience: seconds to wait for another process to leave it.
        name: what the user calls the folder; the default is its path.

    Raises:
        RequestError: another process is in the folder; it names it.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            _acquire(file.fileno(), time.monotonic() + patience)
        except BlockingIOError:
            file.seek(0)
            holder = " ".join(file.read(200).split()) or "another process"
            raise taken(name or str(folder), holder) from None
        except OSError:
            pass  # no locks here
        file.truncate(0)
        file.write(f"{describe_process()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def taken(folder: str, holder: str) -> RequestError:
    """Returns what is to be said where another process, as `describe_process` names it, is in a folder."""
    return RequestError("workdir", folder, f"{holder} works in it; wait for its end, or choose another folder")


def describe_process() -> str:
    """Returns who this process is, for others: its number, its host, and the time."""
    return f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _acquire(file: int, end: float) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.1)
