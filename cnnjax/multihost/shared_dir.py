"""A run's folder that several processes share: process 0 alone reads and writes its records, and tells the others."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cnnjax.multihost import processes
from cnnjax.runs.lock import LOCK, locked
from cnnjax.runs.run_dir import Recorded, RunFolder
from cnnjax.study.plan import Member
from cnnjax.utils.errors import RequestError

_PATIENCE = 10.0  # seconds for a network's file system to show what another process wrote
_RECORDS = (
    *("check_overwritable", "clear", "remove_unfinished", "read_layout", "write_layout", "update_plan", "read_config"),
    *("write_config", "check_networks", "check_plan"),
    *("read_whole", "write_json", "append_metrics", "read_metrics", "keep_metrics", "write_predictions"),
    *("read_trials", "write_trials"),
)


class SharedFolder(RunFolder):
    """As RunFolder, of which every method has to be called by all processes; what it raises, it raises in all."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._alone = RunFolder(path)  # as process 0 uses it, which keeps in memory what it has read

    def finished(self, members: Iterable[Member]) -> set[str]:
        """Returns the ids of the trials of which everything that is written down is there and whole."""
        return set(processes.broadcast_from_process0(lambda: sorted(self._alone.finished(members))))

    def recorded(self) -> Recorded:
        """Returns what metrics.jsonl holds."""
        epochs, evaluated, is_whole = processes.broadcast_from_process0(lambda: _plain(self._alone.recorded()))
        return Recorded({member: set(found) for member, found in epochs.items()}, set(evaluated), is_whole)


def _plain(recorded: Recorded) -> tuple:
    epochs = {member: sorted(found) for member, found in recorded.epochs.items()}
    return epochs, sorted(recorded.evaluated), recorded.is_whole


def _by_first(name: str) -> Callable:
    method = getattr(RunFolder, name)

    @functools.wraps(method)
    def called_by_process0(self: SharedFolder, *arguments: Any, **named: Any) -> Any:
        return processes.broadcast_from_process0(lambda: method(self._alone, *arguments, **named))

    return called_by_process0


for _name in _RECORDS:
    setattr(SharedFolder, _name, _by_first(_name))


def open_folder(path: Path) -> RunFolder:
    """Returns a run's folder as this process may use it."""
    return RunFolder(path) if processes.count() == 1 else SharedFolder(path)


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
    """Whether all processes see the lock that process 0 has just written; a network's file system may take its time."""
    written = processes.broadcast_from_process0(functools.partial((path / LOCK).read_text, "utf-8"))
    deadline = time.monotonic() + _PATIENCE
    while not (is_seen := _read(path / LOCK) == written) and time.monotonic() < deadline:
        time.sleep(0.2)
    for number, sees in enumerate(processes.gather(is_seen)):
        if not sees:
            there, here = processes.name(number), processes.name(0)
            said = f"{there} does not see there what {here} writes; allowed: a folder that all processes share"
            raise RequestError("workdir", str(path), said)


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
