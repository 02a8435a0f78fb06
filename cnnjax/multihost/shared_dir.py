"""A run folder that several processes share. Only process 0 reads and writes records, and broadcasts the results."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from cnnjax.multihost import processes
from cnnjax.runs.lock import holder, locked
from cnnjax.runs.run_dir import RunFolder
from cnnjax.utils.errors import RequestError

_PATIENCE = 10.0  # seconds until a network file system shows files of other processes


class _Shared:
    """Wraps a RunFolder, or the records of one program. All processes have to call each method.

    Process 0 executes the method. All processes return its result, converted to JSON and back, or raise its error.
    """

    def __init__(self, wrapped: Any):
        self._wrapped = wrapped

    def program(self, name: str) -> "_Shared":
        return _Shared(self._wrapped.program(name))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if name in ("path", "checkpoints"):
            return found
        return lambda *arguments, **named: processes.broadcast_from_process0(lambda: found(*arguments, **named))


def open_folder(path: Path) -> RunFolder:
    """Returns a run folder, which all processes have to use in the same way."""
    folder = RunFolder(path)
    return folder if processes.count() == 1 else cast(RunFolder, _Shared(folder))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Locks a run folder for the processes of this study while the block runs.

    Raises:
        RequestError: another process has locked the folder, or the processes do not see the same folder.
    """
    with contextlib.ExitStack() as stack:
        processes.broadcast_from_process0(lambda: stack.enter_context(locked(path)))
        if processes.count() > 1:
            _check_shared(path)
        yield


def _check_shared(path: Path) -> None:
    """Raises RequestError if a process does not see the lock of process 0 within `_PATIENCE` seconds."""
    expected = processes.broadcast_from_process0(lambda: holder(path))
    deadline = time.monotonic() + _PATIENCE
    while not (is_seen := holder(path) == expected) and time.monotonic() < deadline:
        time.sleep(0.2)
    for number, sees in enumerate(processes.gather(is_seen)):
        if not sees:
            there, here = processes.name(number), processes.name(0)
            problem = f"{there} does not see the files of {here}; use a folder that all processes share"
            raise RequestError("workdir", str(path), problem)
