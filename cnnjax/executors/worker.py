"""The worker's side: checks that it sees what the launcher sees, and trains one program."""

import dataclasses
import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cnnjax.executors.base import PATIENCE, Outcome, Task, check_versions
from cnnjax.executors.program_dirs import TASK, PartFolder
from cnnjax.runs.integrity import checksum
from cnnjax.runs.lock import locked
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.schema import from_config
from cnnjax.training import program as programs
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress

NOTES = "notes.jsonl"
_Result = TypeVar("_Result")


def work(task: Task) -> Outcome:
    """Trains a program from its newest state on disk, in a process that has not used jax yet."""
    host = socket.gethostname()
    try:
        _train(task)
    except RequestError as error:
        return {"host": host, "error": str(error), "wrong": True}
    except Exception:
        return {"host": host, "error": traceback.format_exc(), "wrong": False}
    return {"host": host, "error": None, "wrong": False}


def _train(task: Task) -> None:
    check_versions(task["versions"])
    folder = RunFolder(Path(task["workdir"]))
    part = PartFolder(folder.path, task["program"])
    _patiently(lambda: _check_shared(folder, part, task))
    with locked(part.path, PATIENCE), programs.writing(part):
        _check_shared(folder, part, task)  # while it waited, another launch may have lent the program anew
        notes = _Notes(part)
        notes.note(f"process {os.getpid()} on {socket.gethostname()} has it")
        study = from_config(folder.read_config() or {})
        study = dataclasses.replace(study, data=dataclasses.replace(study.data, path=task["data_path"]))
        dataset, plan = programs.load(study)
        found = dataset.describe()["sha256"]
        if found != task["data"]:
            what = f"the launcher's data is another (sha256 {task['data'][:12]}...); bring the same to every machine"
            raise RequestError("data", found, what)
        if task["compilation_cache"] is not None:
            programs.enable_compilation_cache(task["compilation_cache"])
        programs.prepare_jax(plan, task["cpus"])
        programs.write_environment(part, notes)
        program = next(program for program in plan.programs if program.id == task["program"])
        waiting, _ = programs.waiting(part, [program])
        profile = folder.path / "profile" if task["profile"] else None
        programs.run_programs(part, study, dataset, waiting, notes, task["max_members"], profile)


def _check_shared(folder: RunFolder, part: PartFolder, task: Task) -> None:
    """Raises RequestError where this machine does not see what the launcher wrote."""
    config, lent = folder.read_whole("config.json"), part.read_whole(TASK)
    cure = "put the run's folder where every machine finds it under the same path"
    if config is None or checksum(config) != task["config"]:
        what = "another config.json than the launcher's" if config else "no config.json"
        raise RequestError("workdir", task["workdir"], f"it holds {what} after {PATIENCE:.0f} s; {cure}")
    if lent is None or lent.get("lending") != task["lending"]:
        what = f"what the launcher wrote to parts/{task['program']} is not there after {PATIENCE:.0f} s"
        raise RequestError("workdir", task["workdir"], f"{what}: {cure}; or another launch took the program since")


def _patiently(check: Callable[[], _Result]) -> _Result:
    """Returns what a check returns, which may fail for so long as another machine's files take to come."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return check()
        except RequestError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


class _Notes(Progress):
    """Writes down for the launcher what stays on the screen; the rest it reads off metrics.jsonl."""

    def __init__(self, part: PartFolder):
        super().__init__()
        self._part = part

    def program(self, index: int, model: str, optimizer: str, batch_size: int, members: int) -> None:
        """Said by the launcher."""

    def note(self, text: str) -> None:
        """Appends a line to the part's notes."""
        self._part.append_lines(NOTES, [{"note": text}])

    def _show(self, line: str) -> None:
        pass
