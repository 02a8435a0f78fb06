"""The records of one program of a run, in a directory of its own. Imports no jax.

One process at a time writes there: the one that runs the study, or the worker of an engine that trains the program.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax.runs.integrity import Damaged, append, json_lines, read_array, read_json, read_lines, replaced, seal
from cnnjax.study.plan import Member, Trial


class Folder:
    """A folder with JSON files of a run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def read_whole(self, name: str) -> dict[str, Any] | None:
        """Returns a JSON file, or None where it is not there or damaged: it will be written again."""
        try:
            return read_json(self.path / name)
        except (FileNotFoundError, NotADirectoryError, Damaged):
            return None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file whole or not at all."""
        with replaced(self.path / name) as file:
            file.write((json.dumps(seal(value), indent=1) + "\n").encode())


class _Recorded(NamedTuple):
    """What the records hold: the epochs of each member, the evaluated trials, and the rows of finished trials."""

    epochs: dict[str, set[int]]
    evaluated: set[str]
    rows: dict[str, dict[str, Any]]

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Notes lines of metrics.jsonl."""
        for line in lines:
            if "member" in line:
                self.epochs.setdefault(line["member"], set()).add(line["epoch"])
            elif "trial" in line:
                self.evaluated.add(line["trial"])


class ProgramRecords(Folder):
    """The records of a program: metrics.jsonl, and trials.jsonl with the row of each finished trial.

    A study of ten thousand trials asks thousands of times what is recorded. The object therefore reads the files once.

    Args:
        run: the run's folder.
        name: the program's directory, by its id.
    """

    def __init__(self, run: Path, name: str):
        super().__init__(run / "programs" / name)
        self._run = run
        self._known: _Recorded | None = None

    def repair(self) -> None:
        """Makes the directory, and drops lines that are damaged or cut off. To be called before anything is written."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._known = None
        for name in ("metrics.jsonl", "trials.jsonl"):
            self._rewrite(name, read_lines(self.path / name).whole)

    def append_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines to metrics.jsonl and waits until they are on disk; non-finite numbers become null."""
        lines, known = [*lines], self._recorded()
        append(self.path / "metrics.jsonl", lines)
        known.add(lines)

    def read_metrics(self, names: Set[str]) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl about members or trials of these names."""
        known = self._recorded()
        if names.isdisjoint(known.epochs) and names.isdisjoint(known.evaluated):
            return []
        lines = read_lines(self.path / "metrics.jsonl").whole
        return [line for line in lines if line.get("member", line.get("trial")) in names]

    def keep_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drops lines of metrics.jsonl, all at once."""
        self._rewrite("metrics.jsonl", [line for line in read_lines(self.path / "metrics.jsonl").whole if keep(line)])
        self._known = None

    def _rewrite(self, name: str, lines: list[dict[str, Any]]) -> None:
        file, text = self.path / name, json_lines(lines)
        if not file.exists() or file.read_bytes() != text:
            with replaced(file) as beside:
                beside.write(text)

    def append_trials(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends the rows of finished trials to trials.jsonl; of a trial that has one, the new row counts."""
        rows, known = [*rows], self._recorded()
        append(self.path / "trials.jsonl", rows)
        known.rows.update({row["trial"]: dict(row) for row in rows})

    def finished(self, members: Iterable[Member]) -> list[str]:
        """Returns the ids of the trials of which everything that is written down is there and whole."""
        known = self._recorded()

        def is_finished(trial: Trial, member: str) -> bool:
            row, epochs = known.rows.get(trial.id, {}), known.epochs.get(member, set())
            if row.get("epochs_run") is None or any(e + 1 not in epochs for e in range(int(row["epochs_run"]))):
                return False
            return row["status"] == "diverged" or (trial.id in known.evaluated and self._has_predictions(trial.id))

        return [trial.id for member in members for trial in member.trials if is_finished(trial, member.id)]

    def _has_predictions(self, trial: str) -> bool:
        try:
            return read_array(self._run / "predictions" / f"{trial}.npz", "logits", (None, None)) is not None
        except (FileNotFoundError, Damaged):
            return False

    def _recorded(self) -> _Recorded:
        if self._known is None:
            rows = {row["trial"]: row for row in read_lines(self.path / "trials.jsonl").whole}
            self._known = _Recorded({}, set(), rows)
            self._known.add(read_lines(self.path / "metrics.jsonl").whole)
        return self._known
