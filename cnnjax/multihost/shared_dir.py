"""A run's folder that several processes share: process 0 alone reads and writes its records, and tells the others."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from cnnjax.multihost import processes
from cnnjax.runs.lock import holder, locked
from cnnjax.runs.run_dir import RunFolder
from cnnjax.utils.errors import RequestError

_PATIENCE = 10.0  # seconds for a network's file system to show what another process wrote


class _Shared:
    """A RunFolder, or the records of its programs, of which all processes call each method.

    Process 0 executes the method. The others get its result, as JSON has it, or its error.
    """

    def __init__(self, alone: Any):
        self._alone = alone

    def program(self, name: str) -> "_Shared":
        return _Shared(self._alone.program(name))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._alone, name)
        if name in ("path", "checkpoints"):
            return found
        return lambda *arguments, **named: processes.broadcast_from_process0(lambda: found(*arguments, **named))


def open_folder(path: Path) -> RunFolder:
    """Returns a run's folder as this process may use it."""
    folder = RunFolder(path)
    return folder if processes.count() == 1 else cast(RunFolder, _Shared(folder))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps all but the processes of this study out of a run's folder while the block runs.

    Raises:
        RequestError: another process is in it, or not all of these see the same folder.
    """
    with contextlib.ExitStack() as stack:
        processes.broadcast_from_process0(lambda: stack.enter_context(locked(path)))
        if processes.count() > 1:
            _check_shared(path)
        yield


def _check_shared(path: Path) -> None:
    """Raises RequestError where a process does not see within seconds that process 0 holds the folder."""
    written = processes.broadcast_from_process0(lambda: holder(path))
    deadline = time.monotonic() + _PATIENCE
    while not (is_seen := holder(path) == written) and time.monotonic() < deadline:
        time.sleep(0.2)
    for number, sees in enumerate(processes.gather(is_seen)):
        if not sees:
            there, here = processes.name(number), processes.name(0)
            said = f"{there} does not see there what {here} writes; use a folder that all processes share"
            raise RequestError("workdir", str(path), said)
