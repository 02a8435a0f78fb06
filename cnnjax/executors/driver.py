"""The launcher: submits programs to an engine and follows the records that its workers write."""

import contextlib
import math
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from cnnjax.data import Dataset
from cnnjax.executors.base import PATIENCE, Engine, Outcome, Task
from cnnjax.executors.worker import CALLS, PROGRESS
from cnnjax.runs.environment import code_versions, comparable
from cnnjax.runs.integrity import read_lines
from cnnjax.runs.lock import holder
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import Program
from cnnjax.study.schema import Study
from cnnjax.training.estimate import training_images
from cnnjax.utils.errors import RelayedError, RequestError
from cnnjax.utils.progress import Progress
from cnnjax.utils.tree import differences

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
    """Trains programs as tasks of an engine. Otherwise like `cnnjax.training.program.run_programs`.

    If a task fails, the other tasks continue, and their results are kept.

    Args:
        folder: the run's folder.
        study: the study.
        dataset: its data.
        programs: those that `waiting_programs` returned.
        progress: shows the workers' progress.
        engine: an entered engine.
        max_members: largest number of members trained at once.
        profile: whether to write profiles.

    Raises:
        RequestError: a task was refused.
        RuntimeError: a task failed.
    """
    shared = {
        "workdir": str(folder.path.absolute()),
        "launch": holder(folder.path),
        "data": dataset.describe()["sha256"],
        "data_path": study.data.path,
        "versions": code_versions(),
        "cpus": engine.cpus,
        "max_members": max_members,
        "profile": profile,
        "compilation_cache": engine.compilation_cache,
    }
    followers = {
        program.id: _Follower(folder, program, index, training_images(program, dataset))
        for index, program in enumerate(programs, 1)
    }
    failed: dict[str, Outcome] = {}
    try:
        tasks = [cast(Task, {**shared, "program": program.id}) for program in programs]
        progress.note(engine.submit(folder.path.absolute(), tasks))
        while followers:
            ended = engine.ended()
            for follower in followers.values():
                follower.update(progress)
            for name, outcome in ended.items():
                followers.pop(name).end(progress)
                if outcome["error"] is not None:
                    failed[name] = outcome
                    progress.note(_line(name, outcome))
            if ended:
                folder.write_views()
            elif followers:
                time.sleep(_POLL)
    except BaseException:
        engine.cancel()
        with contextlib.suppress(RequestError):  # the next launch names a worker that has not ended
            folder.check_free(PATIENCE)
        raise
    finally:
        _write_environment(folder, programs)
    _raise(failed)


def _write_environment(folder: RunFolder, programs: Sequence[Program]) -> None:
    """Adds the workers' environments to environment.json: the first one, and the differences of the others."""
    read = {program.id: folder.program(program.id).read_if_intact("environment.json") for program in programs}
    found = {name: environment for name, environment in read.items() if environment is not None}
    if not found:
        return
    first = folder.read_if_intact("environment.json") or {**next(iter(found.values())), "command": sys.argv}
    tasks = first.get("tasks", {})
    for name, environment in found.items():
        keys = {key.partition(".")[0] for key in differences(comparable(first), comparable(environment))}
        tasks[name] = {key: environment.get(key) for key in sorted(keys)}
    tasks = {name: keys for name, keys in tasks.items() if keys}
    folder.write_json("environment.json", first | ({"tasks": tasks} if tasks else {}))


def _raise(failed: dict[str, Outcome]) -> None:
    """Raises the errors of the tasks that failed, if any."""
    broken = {name: outcome for name, outcome in failed.items() if not outcome["wrong"]}
    if broken:
        raise RuntimeError("\n".join(f"program {name} on {o['host']}: {o['error']}" for name, o in broken.items()))
    if failed:
        first, *others = [_line(name, outcome) for name, outcome in failed.items()]
        more = f" (and {len(others)} more; see above)" if others else ""
        raise RelayedError(f"{first}{more}; the other results are kept: run the same command again to continue")


def _line(name: str, outcome: Outcome) -> str:
    """Returns the error of a task in one line: the last line of a traceback."""
    *_, last = (outcome["error"] or "").strip().split("\n")
    return f"program {name} on {outcome['host']}: {last}"


class _Follower:
    """Repeats the calls that a worker has made to its Progress on the launcher's Progress.

    Args:
        folder: the run's folder.
        program: the worker's program.
        index: its number, from 1.
        images: number of images left to train on, summed over its members.
    """

    def __init__(self, folder: RunFolder, program: Program, index: int, images: int):
        self._program, self._index, self._images, self._left = program, index, images, images
        self._file, self._read = folder.program(program.id).path / PROGRESS, 0
        self._file.unlink(missing_ok=True)  # left by an earlier launch

    def update(self, progress: Progress) -> None:
        """Repeats the new calls."""
        lines = read_lines(self._file).intact
        for line in lines[self._read :]:
            progress.turn(self._index)
            self._repeat(progress, line["call"], line["values"])
        self._read = len(lines)

    def end(self, progress: Progress) -> None:
        """Skips the images that the worker has not trained on."""
        progress.turn(self._index)
        progress.skip(self._left)

    def _repeat(self, progress: Progress, call: str, values: list[Any]) -> None:
        name = self._program.id
        if call == "program":  # the worker starts or restarts; it then skips the images of finished epochs
            progress.skip(self._left - self._images)
            self._left = self._images
            static, members = self._program.static, len(self._program.members)
            progress.program(self._index, static.model, static.optimizer, static.batch_size, members)
        elif call == "epoch":
            epoch, epochs, *measured, images, seconds, members = values
            losses, accuracies = ([math.nan if value is None else value for value in each] for each in measured)
            self._left -= images
            progress.epoch(epoch, epochs, losses, accuracies, images, seconds, f"{name} {members}")
        elif call == "note":
            progress.note(f"{name}: {values[0]}")
        elif call in CALLS:
            self._left -= values[0] if call == "skip" else 0
            getattr(progress, call)(*values)
