"""The files of a run's folder: written so that a kill at any instant leaves them readable. Imports no jax."""

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax.models.ladder import LADDER, changed, described
from cnnjax.runs.integrity import (
    SEAL,
    Damaged,
    check_links,
    read_array,
    read_json,
    read_lines,
    read_rows,
    replaced,
    seal,
    stamp,
)
from cnnjax.runs.lock import LOCK
from cnnjax.runs.trials_csv import TRIAL_COLUMNS, csv_line, csv_row
from cnnjax.study.plan import Member, Plan, Trial
from cnnjax.study.renamed import modern_config, modern_row
from cnnjax.utils.errors import RequestError
from cnnjax.utils.tree import finite


class Recorded(NamedTuple):
    """What metrics.jsonl holds.

    Attributes:
        epochs: the epochs of each member.
        evaluated: the trials with a line of their own.
        is_whole: whether every line is what was written, the last one to its end.
    """

    epochs: dict[str, set[int]]
    evaluated: set[str]
    is_whole: bool

    def add(self, line: Mapping[str, Any]) -> None:
        """Notes one more line."""
        if "member" in line:
            self.epochs.setdefault(line["member"], set()).add(line.get("epoch"))  # type: ignore[arg-type]
        self.evaluated.update([line["trial"]] if "trial" in line else [])


class RunFolder:
    """Reads and writes one run's files; see the README for what each holds.

    A study of ten thousand trials asks thousands of times what is recorded. What metrics.jsonl and trials.csv hold is
    therefore kept in memory as long as they are, by size and time, as they were when this process read or wrote them.
    """

    CONTENTS = (
        *("parts", "jobs", "predictions", "checkpoints", "report", "profile", "confirm"),
        *("metrics.jsonl", "trials.csv"),
        *("plan.json", "data.json", "environment.json", "config.json"),  # the last, for it makes the folder a run's
    )

    def __init__(self, path: Path):
        self.path = path
        self._recorded: tuple[Any, Recorded] | None = None  # with the stamp of the file that it is of
        self._rows: tuple[Any, dict[str, str]] | None = None

    def check_links(self, without: Iterable[str] = ()) -> None:
        """Raises RequestError where links lead out of the folder; `without` names what is not used now."""
        check_links(self.path, (*self.CONTENTS, LOCK), without)

    def checkpoints(self, program: str, first: str, last: str) -> Path:
        """Returns where a chunk of a program's members, from the first to the last, keeps its checkpoints."""
        return self.path / "checkpoints" / program / f"{first}-{last}"

    def check_overwritable(self) -> bool:
        """Whether there is a run to delete; raises RequestError for a folder that is something else."""
        if self.path.is_dir() and (self.path / "config.json").exists():
            return True
        return self.read_config() is not None

    def clear(self) -> None:
        """Deletes a run, and nothing else that may lie beside it."""
        for name in self.CONTENTS:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Deletes what a kill left half written beside the files."""
        for pattern in ("", "predictions/", "checkpoints/*/", "report/"):
            for beside in self.path.glob(f"{pattern}.*.tmp"):
                beside.unlink()

    def read_layout(self, program: str) -> list[list[int]] | None:
        """Returns the chunks [first member, end, members at a time] of a program, or None before it was cut."""
        try:
            return read_json(self.path / "checkpoints" / program / "layout.json")["chunks"]
        except (FileNotFoundError, KeyError, Damaged):  # without it, the program is cut anew
            return None

    def write_layout(self, program: str, layout: list[list[int]]) -> None:
        """Writes down how a program is cut into chunks, so that a resumed run cuts alike."""
        (self.path / "checkpoints" / program).mkdir(parents=True, exist_ok=True)
        self.write_json(f"checkpoints/{program}/layout.json", {"chunks": layout})

    def update_plan(self, program: str, facts: Mapping[str, Any]) -> None:
        """Adds what was learned of a program to plan.json."""
        plan = read_json(self.path / "plan.json")
        for entry in plan["programs"]:
            if entry["id"] == program:
                entry.update(facts)
        self.write_json("plan.json", plan)

    def read_config(self) -> dict[str, Any] | None:
        """Returns the study that the folder holds, or None for a new folder.

        Raises:
            RequestError: config.json cannot be read, or the folder holds something else.
        """
        config = self._read_config()
        if config is None:
            return None
        return modern_config({key: value for key, value in config.items() if key != "networks"})

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json: the study, and the layers of its networks, whose names alone say little."""
        self.write_json("config.json", {**config, "networks": described(config["models"])})

    def check_networks(self, names: Iterable[str]) -> None:
        """Raises RequestError where a network is not the one that the run trained under its name.

        A run of a version that stored no layers passes.
        """
        stored = (self._read_config() or {}).get("networks", {})
        if lacking := [name for name in names if name in stored and name not in LADDER]:
            said = f"{self.path} trained a network that the study's own file adds to the ladder"
            raise RequestError("models", lacking[0], f"{said}; allowed: where that file has been imported")
        for name, difference in changed(names, stored).items():
            how = "change it back, or give it another name and another folder"
            raise RequestError("models", name, f"{self.path} trained another network of that name: {difference}; {how}")

    def check_plan(self, plan: Plan) -> None:
        """Raises RequestError where another version made other trials of the run's study: the ids are not theirs."""
        before = (self.read_whole("plan.json") or {}).get("trials", len(plan.trials))
        if before != len(plan.trials):
            how = "go on with the version that began it, or choose another folder"
            said = f"its study made {before} trials, and makes {len(plan.trials)} in this version; {how}"
            raise RequestError("workdir", str(self.path), said)

    def _read_config(self) -> dict[str, Any] | None:
        file = self.path / "config.json"
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not there.is_dir():
            raise RequestError("workdir", str(self.path), f"{there} is a file; allowed: a folder")
        try:
            return read_json(file)
        except FileNotFoundError:
            pass
        except (OSError, Damaged) as error:
            what = error.what if isinstance(error, Damaged) else error
            raise RequestError(
                "workdir", str(file), f"it cannot be read ({what}); restore it, or start again with --overwrite"
            ) from error
        # A kill before config.json was there leaves its beginning beside it, and the lock.
        if self.path.exists() and any(not _is_of_no_run_yet(file.name) for file in self.path.iterdir()):
            raise RequestError(
                "workdir",
                str(self.path),
                "it is not empty and holds no config.json; allowed: a new or empty folder, or a run's own",
            )
        return None

    def read_whole(self, name: str) -> dict[str, Any] | None:
        """Returns a JSON file of the run, or None where it is not there or damaged: it will be written again."""
        try:
            return read_json(self.path / name)
        except (FileNotFoundError, NotADirectoryError, Damaged):
            return None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file whole or not at all."""
        with replaced(self.path / name) as file:
            file.write((json.dumps(seal(value), indent=1) + "\n").encode())

    def append_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines to metrics.jsonl and waits until they are on disk; non-finite numbers become null."""
        file, lines = self.path / "metrics.jsonl", [*lines]
        there = stamp(file)
        if there is None and self._recorded and self._recorded[0]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        known = self._recorded if self._recorded and self._recorded[0] == there else None
        self.append_lines(file.name, lines)
        if known is not None:
            for line in lines:
                known[1].add(line)
            self._recorded = stamp(file), known[1]

    def append_lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Appends JSON objects to a file, one a line; as `append_metrics` otherwise."""
        text = "".join(json.dumps(seal(finite(line))) + "\n" for line in lines)
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def recorded(self) -> Recorded:
        """Returns what metrics.jsonl holds."""
        file = self.path / "metrics.jsonl"
        if self._recorded is None or self._recorded[0] != stamp(file):
            before, lines = stamp(file), read_lines(file)
            recorded = Recorded({}, set(), not lines.damaged and _ends_whole(file))
            for line in lines.whole:
                recorded.add(line)
            self._recorded = before, recorded
        return self._recorded[1]

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the whole lines of metrics.jsonl: neither a last one that a kill cut off, nor damaged ones."""
        return read_lines(self.path / "metrics.jsonl").whole

    def keep_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Drops the lines of metrics.jsonl that are damaged or not to be kept, all at once; returns the others."""
        file = self.path / "metrics.jsonl"
        kept = [line for line in self.read_metrics() if keep(line)]
        text = "".join(json.dumps(seal(line)) + "\n" for line in kept).encode()
        if not file.exists() or file.read_bytes() != text:
            with replaced(file) as beside:
                beside.write(text)
        return kept

    def write_predictions(self, name: str, **arrays: np.ndarray) -> None:
        """Writes one file of predictions/ whole or not at all."""
        folder = self.path / "predictions"
        folder.mkdir(exist_ok=True)
        with replaced(folder / f"{name}.npz") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def read_trials(self) -> dict[str, dict[str, Any]]:
        """Returns the rows of trials.csv that are whole by trial id, values as text."""
        return {row.get("trial", ""): modern_row(row) for row in read_rows(self.path / "trials.csv").whole}

    def write_trials(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds rows to trials.csv, or replaces them: one per finished trial, in the order of their ids.

        Rows that are there and damaged are dropped. The file is written whole or not at all.
        """
        lines = {**self._lines_of_trials(), **{trial: csv_row(row) for trial, row in rows.items()}}
        file = self.path / "trials.csv"
        with replaced(file) as beside:
            text = csv_line([*TRIAL_COLUMNS, SEAL]) + "".join(lines[trial] for trial in sorted(lines))
            beside.write(text.encode())
        self._rows = stamp(file), lines

    def _lines_of_trials(self) -> dict[str, str]:
        """The whole rows of trials.csv as text by trial id."""
        file = self.path / "trials.csv"
        if self._rows is None or self._rows[0] != stamp(file):
            before, rows = stamp(file), self.read_trials()
            self._rows = before, {trial: csv_row(row) for trial, row in rows.items()}
        return self._rows[1]

    def finished(self, members: Iterable[Member]) -> set[str]:
        """Returns the ids of the trials of which everything that is written down is there and whole."""
        lines, recorded = self._lines_of_trials(), self.recorded()

        def is_finished(trial: Trial, member: str) -> bool:
            if trial.id not in lines:
                return False
            row = dict(zip(TRIAL_COLUMNS, next(csv.reader([lines[trial.id]])), strict=False))
            ran, epochs = row["epochs_run"], recorded.epochs.get(member, set())
            if not ran.isdecimal() or any(epoch + 1 not in epochs for epoch in range(int(ran))):
                return False
            return row["status"] == "diverged" or (trial.id in recorded.evaluated and self._has_predictions(trial.id))

        return {trial.id for member in members for trial in member.trials if is_finished(trial, member.id)}

    def _has_predictions(self, trial: str) -> bool:
        try:
            return read_array(self.path / "predictions" / f"{trial}.npz", "logits", (None, None)) is not None
        except (FileNotFoundError, Damaged):
            return False


def describe_plan(plan: Plan, programs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns plan.json: the counts, and per program what `programs` says of it beside its members."""
    return {
        "trials": len(plan.trials),
        "trained": plan.trained,
        "repeats": dict(plan.repeats),
        "programs": [
            {
                "id": program.id,
                **vars(program.static),
                "members": len(program.members),
                "trials": sum(len(member.trials) for member in program.members),
                "epochs": max(member.epochs for member in program.members),
                **more,
                "member_ids": [member.id for member in program.members],
            }
            for program, more in zip(plan.programs, programs, strict=True)
        ],
    }


def _is_of_no_run_yet(name: str) -> bool:
    return name == LOCK or name.startswith(".config.json.")


def _ends_whole(file: Path) -> bool:
    if not file.exists() or not file.stat().st_size:
        return True
    with file.open("rb") as opened:
        opened.seek(-1, os.SEEK_END)
        return opened.read() == b"\n"
