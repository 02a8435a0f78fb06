"""The launcher's side: lends programs to an engine's workers, follows them, and takes back what they wrote."""

import contextlib
import math
import secrets
import time
from collections.abc import Sequence
from typing import Any, cast

from cnnjax.data import Dataset
from cnnjax.executors.base import PATIENCE, Engine, Outcome, Task, TaskError
from cnnjax.executors.program_dirs import PartFolder, lend, merge
from cnnjax.executors.worker import NOTES
from cnnjax.runs.environment import code_versions
from cnnjax.runs.integrity import checksum, read_lines, stamp
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import Program
from cnnjax.study.schema import Study
from cnnjax.training.program import waiting
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress

_POLL = 1.0  # seconds


def run_tasks(
    folder: RunFolder,
    study: Study,
    dataset: Dataset,
    programs: Sequence[Program],
    progress: Progress,
    engine: Engine,
    max_members: int | None = None,
    profile: bool = False,
) -> None:
    """Trains programs as tasks of an engine; as `programs.run_programs` otherwise.

    A task that fails does not stop the others; what they finish is kept.

    Raises:
        TaskError: tasks cannot do what was asked.
        RuntimeError: something broke in a task.
    """
    lending = secrets.token_hex(8)
    lend(folder, programs, lending)
    followers = {
        program.id: _Follower(folder, program, index, len(dataset.train)) for index, program in enumerate(programs, 1)
    }
    shared = {
        "workdir": str(folder.path.absolute()),
        "lending": lending,
        "config": checksum(folder.read_whole("config.json") or {}),
        "data": dataset.describe()["sha256"],
        "data_path": study.data.path,
        "versions": code_versions(),
        "cpus": engine.cpus,
        "max_members": max_members,
        "profile": profile,
        "compilation_cache": engine.compilation_cache,
    }
    tasks = [cast(Task, {**shared, "program": program.id}) for program in programs]
    failed: dict[str, Outcome] = {}
    try:
        progress.note(engine.submit(folder.path.absolute(), tasks))
        for follower in followers.values():
            follower.begin(progress)
        while followers:
            ended = engine.ended()
            for follower in followers.values():
                follower.look(progress)
            if ended:
                merge(folder, [followers[name].program for name in ended], PATIENCE)
            for name, outcome in ended.items():
                followers.pop(name).end(progress)
                if outcome["error"] is not None:
                    failed[name] = outcome
                    progress.note(_line(name, outcome))
            if followers and not ended:
                time.sleep(_POLL)
    except BaseException:
        engine.cancel()
        end = time.monotonic() + PATIENCE
        for follower in followers.values():  # what they hold still is taken back by the next start
            with contextlib.suppress(RequestError):
                merge(folder, [follower.program], max(0.0, end - time.monotonic()))
        raise
    _raise(failed)


def _raise(failed: dict[str, Outcome]) -> None:
    """Raises what is to be said of the tasks that failed, if any did."""
    broken = {name: outcome for name, outcome in failed.items() if not outcome["wrong"]}
    if broken:
        raise RuntimeError("\n".join(f"program {name} on {o['host']}: {o['error']}" for name, o in broken.items()))
    if failed:
        first, *others = [_line(name, outcome) for name, outcome in failed.items()]
        more = f" (and so ended {len(others)} more; see above)" if others else ""
        raise TaskError(f"{first}{more}; what has ended well is kept, and the same command goes on")


def _line(name: str, outcome: Outcome) -> str:
    """What a task said of its end; of a traceback the last line."""
    *_, last = (outcome["error"] or "").strip().split("\n")
    return f"program {name} on {outcome['host']}: {last}"


class _Follower:
    """Tells the progress what the files of a program's part say.

    Args:
        folder: the run's.
        program: what is followed; its part is there.
        index: its number, from 1.
        images: that a member sees in an epoch.
    """

    def __init__(self, folder: RunFolder, program: Program, index: int, images: int):
        self.program = program
        self._part, self._index, self._images = PartFolder(folder.path, program.id), index, images
        self._stamps: dict[str, Any] = {}
        self._said = 0
        self._seen = {key for line in self._part.read_metrics() if (key := _key(line))}
        _, members = waiting(self._part, [program])
        ids = {member.id for member in members}
        self._known = images * sum(member in ids for member, _ in self._seen)  # images that were seen before
        self._left = images * sum(member.epochs for member in members) - self._known
        self._time = time.monotonic()

    def begin(self, progress: Progress) -> None:
        """Tells what was seen before."""
        progress.turn(self._index)
        progress.skip(self._known)

    def look(self, progress: Progress) -> None:
        """Tells what is new."""
        if self._changed(NOTES):
            notes = read_lines(self._part.path / NOTES).whole
            if notes and not self._said:
                static, members = self.program.static, len(self.program.members)
                progress.program(self._index, static.model, static.optimizer, static.batch_size, members)
            progress.turn(self._index)
            for line in notes[self._said :]:
                progress.note(f"{self.program.id}: {line['note']}")
            self._said = len(notes)
        if self._changed("metrics.jsonl"):
            self._epochs(progress)

    def end(self, progress: Progress) -> None:
        """Tells that nothing more comes."""
        progress.turn(self._index)
        progress.skip(self._left)

    def _epochs(self, progress: Progress) -> None:
        lines = {key: line for line in self._part.read_metrics() if (key := _key(line)) and key not in self._seen}
        if not lines:
            return
        self._seen |= lines.keys()
        images, now = len(lines) * self._images, time.monotonic()
        self._left -= images
        newest = {member: line for (member, _), line in lines.items()}
        losses, accuracies = (
            [math.nan if line[name] is None else line[name] for line in newest.values()]
            for name in ("train_loss", "train_accuracy")
        )
        epoch, epochs = max(epoch for _, epoch in lines), max(member.epochs for member in self.program.members)
        progress.turn(self._index)
        progress.epoch(epoch, epochs, losses, accuracies, images, now - self._time, self.program.id)
        self._time = now

    def _changed(self, name: str) -> bool:
        """Whether a file is there and another than when last asked."""
        before, now = self._stamps.get(name), stamp(self._part.path / name)
        self._stamps[name] = now
        return now is not None and now != before


def _key(line: dict[str, Any]) -> tuple[str, int] | None:
    """Member and epoch of a line of metrics.jsonl, if it is one of training."""
    return (line["member"], line["epoch"]) if "member" in line else None
