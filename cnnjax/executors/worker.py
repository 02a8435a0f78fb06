"""The worker: checks that its code, folder and data are the launcher's, and trains one program."""

import dataclasses
import functools
import os
import socket
import time
import traceback
from pathlib import Path
from typing import Any

from cnnjax.executors.base import PATIENCE, Outcome, Task
from cnnjax.runs.environment import code_versions
from cnnjax.runs.integrity import append
from cnnjax.runs.lock import holder, locked
from cnnjax.runs.run_dir import RunFolder, waiting_programs
from cnnjax.study import own_code
from cnnjax.study.schema import from_config
from cnnjax.training import program as programs
from cnnjax.training.compiler import Compiler
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress

PROGRESS = "progress.jsonl"
CALLS = ("note", "compiled", "epoch", "skip")  # methods of Progress that the worker records


def work(task: Task) -> Outcome:
    """Trains a program from its newest checkpoint. The process must not have used jax yet."""
    host = socket.gethostname()
    try:
        _train(task)
    except RequestError as error:
        return {"host": host, "error": str(error), "wrong": True}
    except Exception:
        return {"host": host, "error": traceback.format_exc(), "wrong": False}
    return {"host": host, "error": None, "wrong": False}


def _train(task: Task) -> None:
    for name, here in code_versions().items():
        if here != (there := task["versions"].get(name)):
            raise RequestError(name, here, f"the launcher has {there}; install the same version on every machine")
    folder = RunFolder(Path(task["workdir"]))
    records = folder.program(task["program"])
    _check_launch(task)
    with locked(records.path, PATIENCE), programs.writing(folder):
        _check_launch(task)  # another launch may have started while the worker waited
        records.repair()
        progress = _Recorder(records.path / PROGRESS)
        progress.note(f"process {os.getpid()} on {socket.gethostname()} trains it")
        study = from_config(folder.read_config() or {})
        study = dataclasses.replace(study, data=dataclasses.replace(study.data, path=task["data_path"]))
        earlier = [from_config(past) for past in folder.read_earlier()]
        own_code.prepare(study.code, study.models, folder.path, trusted=True)  # the launcher has written the copies
        if task["compilation_cache"] is not None:
            programs.enable_compilation_cache(task["compilation_cache"])
        plan = programs.load_plan(study, earlier)
        programs.prepare_jax(plan, task["cpus"])
        dataset = programs.load_data(study, earlier)
        found = dataset.describe()["sha256"]
        if found != task["data"]:
            problem = f"the launcher has other data (sha256 {task['data'][:12]}...); use the same data on every machine"
            raise RequestError("data", found, problem)
        programs.write_environment(records, progress)
        program = next(program for program in plan.programs if program.id == task["program"])
        waiting = waiting_programs(folder, [program])
        profile = folder.path / "profile" if task["profile"] else None
        compiler = Compiler(study.with_splits_of(earlier), dataset, task["max_members"], profile)
        programs.run_programs(folder, compiler, plan.members, waiting, progress, write_views=False)


def _check_launch(task: Task) -> None:
    """Raises RequestError if, after PATIENCE seconds, the task's launch does not hold the lock of the run's folder."""
    end = time.monotonic() + PATIENCE
    while holder(Path(task["workdir"])) != task["launch"]:
        if time.monotonic() > end:
            problem = f"its launcher, {task['launch']}, does not hold its lock after {PATIENCE:.0f} s"
            how = "use a folder that every machine has under the same path, or wait for another launch that holds it"
            raise RequestError("workdir", task["workdir"], f"{problem}; {how}")
        time.sleep(0.5)


class _Recorder(Progress):
    """Writes calls to a file, from which the launcher repeats them."""

    def __init__(self, file: Path):
        super().__init__()
        self._file = file
        for name in CALLS:
            setattr(self, name, functools.partial(self._write, name))

    def program(self, index: int, model: str, optimizer: str, batch_size: int, members: int) -> None:
        """Writes that the program starts. The launcher knows the arguments."""
        self._write("program")

    def _write(self, call: str, *values: Any) -> None:
        append(self._file, [{"call": call, "values": values}])
