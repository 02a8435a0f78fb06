"""The interface of engines, and the messages to and from workers.

Messages are plain values: a worker may have another version of this code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, TypedDict

PATIENCE = 30.0  # seconds to wait for files and locks of other machines


class Task(TypedDict):
    """A program of a study to train in a worker."""

    workdir: str  # absolute
    program: str
    launch: str  # holder of the lock of the run's folder at the time of submission
    data: str  # fingerprint of the data
    data_path: str | None  # current path of the data; the run may have started with another one
    versions: dict[str, str]
    cpus: int | None  # None: all CPUs that the process may use
    max_members: int | None
    profile: bool
    compilation_cache: str | None


class Outcome(TypedDict):
    """The result of a task."""

    host: str
    error: str | None  # None: success
    wrong: bool  # whether `error` is the message of a RequestError; otherwise it is a traceback


class Engine(Protocol):
    """Queues tasks, places them on machines and retries them. Enter it before the first task."""

    cpus: int | None
    compilation_cache: str | None

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def submit(self, workdir: Path, tasks: Sequence[Task]) -> str:
        """Submits tasks. Returns a description of the machines or jobs."""

    def ended(self) -> dict[str, Outcome]:
        """Returns the outcomes, by program, of the tasks that have ended since the last call."""

    def cancel(self) -> None:
        """Cancels the tasks that have not ended."""
