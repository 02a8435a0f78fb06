"""The files of a run's folder: written so that a kill at any instant leaves them readable. Imports no jax."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.models.ladder import LADDER, changed, described
from cnnjax.runs.integrity import Damaged, check_links, read_json, read_lines, read_rows, replaced
from cnnjax.runs.lock import HOLDER, LOCK, locked
from cnnjax.runs.program_records import Folder, ProgramRecords
from cnnjax.runs.trials_csv import csv_text, record_files
from cnnjax.study.plan import Plan
from cnnjax.study.renamed import modern_config
from cnnjax.utils.errors import RequestError


class RunFolder(Folder):
    """Reads and writes one run's files; see the README for what each holds.

    The records of a run are those of its programs, each in a directory of its own. The run's metrics.jsonl and
    trials.csv are views of these records: `write_views` writes them again, whatever became of them.
    """

    CONTENTS = (
        *("programs", "jobs", "predictions", "checkpoints", "report", "profile", "confirm"),
        *("metrics.jsonl", "trials.csv"),
        *("plan.json", "data.json", "environment.json", "config.json"),  # the last, for it makes the folder a run's
    )

    def __init__(self, path: Path):
        super().__init__(path)
        self._programs: dict[str, ProgramRecords] = {}

    def program(self, name: str) -> ProgramRecords:
        """Returns the records of a program, which keep in memory what they have read."""
        return self._programs.setdefault(name, ProgramRecords(self.path, name))

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
        for pattern in ("", "predictions/", "checkpoints/*/", "programs/*/", "report/"):
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
            raise RequestError("models", lacking[0], f"{said}; use where that file has been imported")
        for name, difference in changed(names, stored).items():
            how = "change it back, or give it another name and another folder"
            raise RequestError("models", name, f"{self.path} trained another network of that name: {difference}; {how}")

    def check_version(self) -> None:
        """Raises RequestError where an older version began the run: programs had no records of their own."""
        if record_files(self.path, "") is None and (self.path / "trials.csv").exists():
            how = "go on with the version that began it, choose another folder, or --overwrite it"
            raise RequestError("workdir", str(self.path), f"an older version of cnnjax trained its trials; {how}")

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
            raise RequestError("workdir", str(self.path), f"{there} is a file; use a folder")
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
                "it is not empty and holds no config.json; use a new or empty folder, or a run's own",
            )
        return None

    def read_trials(self) -> dict[str, dict[str, Any]]:
        """Returns the whole rows of finished trials by trial id; those of an older version as text."""
        files = record_files(self.path, "trials.jsonl")
        rows = read_rows(self.path / "trials.csv").whole if files is None else []
        rows += [row for file in files or () for row in read_lines(file).whole]
        return {row["trial"]: row for row in rows}

    def write_views(self) -> None:
        """Writes metrics.jsonl, trials.csv and the programs' facts in plan.json again, from the programs' records."""
        files = record_files(self.path, "metrics.jsonl")
        if files is None:  # a run of an older version
            return
        with replaced(self.path / "metrics.jsonl") as view:
            for file in files:
                lines = file.read_bytes()
                view.write(lines[: lines.rfind(b"\n") + 1])
        with replaced(self.path / "trials.csv") as view:
            view.write(csv_text(self.read_trials().values()).encode())
        found = record_files(self.path, "program.json") or ()
        facts = {file.parent.name: Folder(file.parent).read_whole(file.name) or {} for file in found}
        plan = self.read_whole("plan.json") or {}
        entries = [entry | facts.get(entry["id"], {}) for entry in plan.get("programs", ())]
        if entries and entries != plan["programs"]:
            self.write_json("plan.json", plan | {"programs": entries})

    def check_free(self, patience: float = 0.0) -> None:
        """Raises RequestError, naming the process, where a worker is still in a program's directory."""
        for lock in sorted(self.path.glob(f"programs/*/{LOCK}")):
            with locked(lock.parent, patience):
                pass

    def write_predictions(self, name: str, **arrays: np.ndarray) -> None:
        """Writes one file of predictions/ whole or not at all."""
        (self.path / "predictions").mkdir(exist_ok=True)
        with replaced(self.path / "predictions" / f"{name}.npz") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


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
    return name in (LOCK, HOLDER) or name.startswith(".config.json.")
