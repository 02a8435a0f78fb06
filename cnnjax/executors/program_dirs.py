"""What a run's programs share, one part for each program that a worker trains: lent, written there, and taken back.

A folder is written by one process, its launcher. A worker writes into the run's folder what belongs to its program
alone (checkpoints, predictions), and into parts/PROGRAM what programs share (metrics, rows, facts of the plan). A part
begins with what the run knows of its program and is the truth about it from then on; a kill at any instant leaves
either no part or a whole one, and to merge it twice is to merge it once.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnjax.runs.environment import lasting
from cnnjax.runs.lock import locked
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import Program
from cnnjax.utils.tree import differences

TASK = "task.json"


class PartFolder(RunFolder):
    """The files of one program of a run, as one of its workers sees and writes them.

    Args:
        workdir: the run's folder.
        program: the program's id.
    """

    def __init__(self, workdir: Path, program: str):
        super().__init__(workdir / "parts" / program)
        self._run = RunFolder(workdir)

    def checkpoints(self, program: str, first: str, last: str) -> Path:
        """As those of the run."""
        return self._run.checkpoints(program, first, last)

    def read_layout(self, program: str) -> list[list[int]] | None:
        """As that of the run."""
        return self._run.read_layout(program)

    def write_layout(self, program: str, layout: list[list[int]]) -> None:
        """As that of the run."""
        self._run.write_layout(program, layout)

    def write_predictions(self, name: str, **arrays: Any) -> None:
        """As those of the run."""
        self._run.write_predictions(name, **arrays)

    def _has_predictions(self, trial: str) -> bool:
        return self._run._has_predictions(trial)


def lend(folder: RunFolder, programs: Iterable[Program], lending: str) -> None:
    """Makes each program's part: what the run knows of it, and who lent it. `merge` has left none of them."""
    lines, rows = folder.read_metrics(), folder.read_trials()
    plan, environment = folder.read_whole("plan.json"), folder.read_whole("environment.json")
    for program in programs:
        names = _names(program)
        beside = RunFolder(folder.path / "parts" / f".{program.id}.tmp")
        beside.path.mkdir(parents=True)
        beside.append_metrics(line for line in lines if _owner(line) in names)
        beside.write_trials({trial: row for trial, row in rows.items() if trial in names})
        entries = [entry for entry in (plan or {}).get("programs", ()) if entry["id"] == program.id]
        beside.write_json("plan.json", {"programs": entries})
        if environment is not None and folder.read_layout(program.id) is not None:  # it has begun
            there = lasting(environment) | environment.get("tasks", {}).get(program.id, {})
            beside.write_json("environment.json", there)
        beside.write_json(TASK, {"lending": lending})
        beside.path.rename(folder.path / "parts" / program.id)


def merge(folder: RunFolder, programs: Iterable[Program], patience: float = 0.0) -> None:
    """Takes back the parts of those programs that have one.

    Args:
        folder: the run's; this process holds its lock.
        programs: of the run.
        patience: seconds to wait for a process that holds a part.

    Raises:
        RequestError: another process holds a part; it names it.
    """
    for beside in (folder.path / "parts").glob(".*.tmp"):  # half made, or half deleted
        shutil.rmtree(beside)
    parts = {program: PartFolder(folder.path, program.id) for program in programs}
    parts = {program: part for program, part in parts.items() if part.path.is_dir()}
    with contextlib.ExitStack() as stack:
        for part in parts.values():
            stack.enter_context(locked(part.path, patience))
        if parts:
            _merge_records(folder, parts)
        for program, part in parts.items():
            _merge_facts(folder, program, part)
        for program, part in parts.items():  # at once: a part that is half deleted is none
            beside = part.path.with_name(f".{program.id}.tmp")
            part.path.rename(beside)
            shutil.rmtree(beside)
    with contextlib.suppress(OSError):  # others are there, or none was
        (folder.path / "parts").rmdir()


def check_free(folder: RunFolder) -> None:
    """Raises RequestError, naming the process, where one holds a part."""
    for path in sorted((folder.path / "parts").glob("*")):
        with locked(path):
            pass


def _merge_records(folder: RunFolder, parts: Mapping[Program, PartFolder]) -> None:
    """Puts the lines and rows of parts in the place of what the run has of their programs."""
    names = set().union(*map(_names, parts))
    folder.keep_metrics(lambda line: _owner(line) not in names)
    if lines := [line for part in parts.values() for line in part.read_metrics()]:
        folder.append_metrics(lines)
    before = folder.read_trials()
    rows = {trial: row for part in parts.values() for trial, row in part.read_trials().items()}
    if any(before.get(trial) != row for trial, row in rows.items()):
        folder.write_trials(rows)


def _merge_facts(folder: RunFolder, program: Program, part: PartFolder) -> None:
    """Adds what a worker learned to plan.json, and what it ran on to environment.json."""
    plan = part.read_whole("plan.json") or {}
    for entry in plan.get("programs", ()):
        if folder.read_whole("plan.json") is not None:
            folder.update_plan(program.id, entry)
    environment = part.read_whole("environment.json")
    if environment is None:
        return
    there = folder.read_whole("environment.json") or {**environment, "command": sys.argv}
    found = differences(lasting(there), lasting(environment))
    tasks = there.get("tasks", {})
    tasks.pop(program.id, None)
    if found:  # whole values of the keys that differ, as they stand in the file
        keys = {key.partition(".")[0] for key in found}
        tasks[program.id] = {key: environment.get(key) for key in sorted(keys)}
    earlier = there.get("earlier", [])
    earlier += [one for one in environment.get("earlier", ()) if one not in earlier and there is not environment]
    there |= ({"tasks": tasks} if tasks else {}) | ({"earlier": earlier} if earlier else {})
    folder.write_json("environment.json", there)


def _names(program: Program) -> set[str]:
    """The ids of a program's trials, and so of its members."""
    return {trial.id for member in program.members for trial in member.trials}


def _owner(line: dict[str, Any]) -> str | None:
    """The trial or member that a line of metrics.jsonl is about."""
    return line.get("trial", line.get("member"))
