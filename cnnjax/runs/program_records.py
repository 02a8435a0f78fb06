"""The records of one program of a run, in a directory of its own. Imports no jax.

One process at a time writes there: the launcher, or the worker that trains the program.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax.runs.integrity import Damaged, add_checksum, append, json_lines, read_array, read_json, read_lines, replaced
from cnnjax.study.plan import Member
from cnnjax.study.trials import Trial
from cnnjax.utils.tree import finite


class Folder:
    """A folder with JSON files.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def read_if_intact(self, name: str) -> dict[str, Any] | None:
        """Returns the content of a JSON file, or None if the file is missing or damaged."""
        try:
            return read_json(self.path / name)
        except (FileNotFoundError, NotADirectoryError, Damaged):
            return None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file atomically, with its checksum."""
        with replaced(self.path / name) as file:
            file.write((json.dumps(add_checksum(value), indent=1) + "\n").encode())


class _Recorded(NamedTuple):
    """The epochs of each member, the evaluated trials, and the rows of finished trials in the records."""

    epochs: dict[str, set[int]]
    evaluated: set[str]
    rows: dict[str, dict[str, Any]]

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines of metrics.jsonl."""
        for line in lines:
            if "member" in line:
                self.epochs.setdefault(line["member"], set()).add(line["epoch"])
            elif "trial" in line:
                self.evaluated.add(line["trial"])


class ProgramRecords(Folder):
    """The records of a program: metrics.jsonl, and trials.jsonl with the row of each finished trial.

    The object reads the files once: a study of ten thousand trials looks records up thousands of times.

    Args:
        run: the run's folder.
        name: the program's id, which names its directory.
    """

    def __init__(self, run: Path, name: str):
        super().__init__(run / "programs" / name)
        self._run = run
        self._known: _Recorded | None = None

    def repair(self, trials: Iterable[Trial] = ()) -> None:
        """Creates the directory, and drops damaged and incomplete lines. Call it before writing.

        Args:
            trials: their rows get their configurations: a study that grows may describe a trial otherwise, by another
                value of a hyperparameter without effect.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._known = None
        for name in ("metrics.jsonl", "trials.jsonl"):
            self._rewrite(name, read_lines(self.path / name).intact)
        rows = self._recorded().rows
        described = {trial.id: finite(trial.row()) for trial in trials if trial.id in rows}
        self.append_trials(rows[name] | row for name, row in described.items() if rows[name] != rows[name] | row)

    def append_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines to metrics.jsonl and waits until they are on disk; non-finite numbers become null."""
        lines, known = [*lines], self._recorded()
        append(self.path / "metrics.jsonl", lines)
        known.add(lines)

    def read_metrics(self, names: Set[str]) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl of these members or trials."""
        known = self._recorded()
        if names.isdisjoint(known.epochs) and names.isdisjoint(known.evaluated):
            return []
        lines = read_lines(self.path / "metrics.jsonl").intact
        return [line for line in lines if line.get("member", line.get("trial")) in names]

    def keep_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drops the other lines of metrics.jsonl, atomically."""
        self._rewrite("metrics.jsonl", [line for line in read_lines(self.path / "metrics.jsonl").intact if keep(line)])
        self._known = None

    def _rewrite(self, name: str, lines: list[dict[str, Any]]) -> None:
        file, text = self.path / name, json_lines(lines)
        if not file.exists() or file.read_bytes() != text:
            with replaced(file) as temporary:
                temporary.write(text)

    def append_trials(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends the rows of finished trials to trials.jsonl. A new row of a trial replaces its older row."""
        rows, known = [*rows], self._recorded()
        append(self.path / "trials.jsonl", rows)
        known.rows.update({row["trial"]: dict(row) for row in rows})

    def finished(self, members: Iterable[Member]) -> list[str]:
        """Returns the ids of the trials whose epochs, evaluation, row and predictions are all complete and intact."""
        known = self._recorded()

        def is_finished(trial: Trial, member: str) -> bool:
            row, epochs = known.rows.get(trial.id, {}), known.epochs.get(member, set())
            if row.get("epochs_run") is None or any(e + 1 not in epochs for e in range(int(row["epochs_run"]))):
                return False
            return row["status"] == "diverged" or (trial.id in known.evaluated and self._has_predictions(trial.id))

        return [trial.id for member in members for trial in member.trials if is_finished(trial, trial.member)]

    def _has_predictions(self, trial: str) -> bool:
        try:
            return read_array(self._run / "predictions" / f"{trial}.npz", "logits", (None, None)) is not None
        except (FileNotFoundError, Damaged):
            return False

    def _recorded(self) -> _Recorded:
        if self._known is None:
            rows = {row["trial"]: row for row in read_lines(self.path / "trials.jsonl").intact}
            self._known = _Recorded({}, set(), rows)
            self._known.add(read_lines(self.path / "metrics.jsonl").intact)
        return self._known
