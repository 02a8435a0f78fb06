"""What goes to a worker and comes back: plain values, for a worker may have another version of this code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, TypedDict

PATIENCE = 30.0  # seconds that a worker waits for files and locks that another machine wrote or held


class Task(TypedDict):
    """One program of a study, for a worker to train."""

    workdir: str  # absolute
    program: str
    launch: str  # who held the run's folder when the task was submitted
    data: str  # fingerprint of the data
    data_path: str | None  # where they lie now, which may be elsewhere than when the run began
    versions: dict[str, str]
    cpus: int | None  # None: all that the process may use
    max_members: int | None
    profile: bool
    compilation_cache: str | None


class Outcome(TypedDict):
    """How a task ended."""

    host: str
    error: str | None  # None: well
    wrong: bool  # whether the request is wrong; otherwise something broke, and `error` is a traceback


class Engine(Protocol):
    """Queues tasks, places them on machines and tries them again; entered before its first task."""

    cpus: int | None
    compilation_cache: str | None

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def submit(self, workdir: Path, tasks: Sequence[Task]) -> str:
        """Takes tasks, and says in words what it will run them on."""

    def ended(self) -> dict[str, Outcome]:
        """Returns the outcome by program of each task that has ended since it was last asked."""

    def cancel(self) -> None:
        """Ends the tasks that have not ended."""
