"""Reads and writes the folder of a run. A kill at any instant leaves the files readable. Imports no jax."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.models.ladder import LADDER, changed, described
from cnnjax.runs.integrity import Damaged, json_lines, read_json, read_lines, read_rows, replaced
from cnnjax.runs.lock import HOLDER, LOCK, locked
from cnnjax.runs.program_records import Folder, ProgramRecords
from cnnjax.runs.trials_csv import csv_text, read_shown, record_files
from cnnjax.study import own_code
from cnnjax.study.plan import Plan, Program
from cnnjax.study.renamed import modern_config
from cnnjax.study.schema import NOT_OF_STUDY
from cnnjax.utils.errors import RequestError

NO_RUN = "it is not empty and holds no config.json; use a new or empty folder, or the folder of a run"


class RunFolder(Folder):
    """Reads and writes the files of a run. docs/reference/run-folder.md lists them.

    Each program has a directory with its records. The run's metrics.jsonl and trials.csv are views of these records:
    `write_views` writes them again from the records.
    """

    CONTENTS = (
        *("programs", "jobs", "predictions", "checkpoints", "report", "profile", "confirm", "code"),
        *("metrics.jsonl", "trials.csv", "search.jsonl"),
        *("plan.json", "data.json", "environment.json", "config.json"),  # deleted last: it makes a folder a run's
    )

    def __init__(self, path: Path):
        super().__init__(path)
        self._programs: dict[str, ProgramRecords] = {}

    def program(self, name: str) -> ProgramRecords:
        """Returns the records of a program. They are cached in memory."""
        return self._programs.setdefault(name, ProgramRecords(self.path, name))

    def check_links(self, without: Iterable[str] = ()) -> None:
        """Refuses links that lead out of the folder, devices and pipes.

        Args:
            without: names of files and folders not to check.

        Raises:
            RequestError: names the link and its target, or the device or pipe.
        """
        inside = Path(os.path.realpath(self.path))
        for top in (self.path / name for name in {*self.CONTENTS, LOCK} - {*without}):
            walk = () if top.is_symlink() else os.walk(top)
            below = (Path(parent, name) for parent, folders, files in walk for name in (*folders, *files))
            for path in (top, *below):
                if path.is_symlink() and not Path(end := os.path.realpath(path)).is_relative_to(inside):
                    problem = f"it is a link to {end}; use links into the folder only"
                    raise RequestError("workdir", str(path), problem)
                if path.exists() and not path.is_file() and not path.is_dir():
                    raise RequestError("workdir", str(path), "it is a device or a pipe; use files and folders")

    def checkpoints(self, program: str, first: str, last: str) -> Path:
        """Returns the directory of the checkpoints of a batch of members, `first` to `last`, of a program."""
        return self.path / "checkpoints" / program / f"{first}-{last}"

    def check_overwritable(self) -> bool:
        """Returns whether the folder holds a run to overwrite. Raises RequestError if it holds anything else."""
        if self.path.is_dir() and (self.path / "config.json").exists():
            return True
        return self.read_config() is not None

    def clear(self) -> None:
        """Deletes the files of the run and no others."""
        for name in self.CONTENTS:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Deletes the temporary files that a kill has left."""
        for pattern in ("", "predictions/", "checkpoints/*/", "programs/*/", "report/"):
            for file in self.path.glob(f"{pattern}.*.tmp"):
                file.unlink()

    def read_layout(self, program: str, members: Sequence[str] = ()) -> list[tuple[list[str], int]]:
        """Returns the batches of members of a program: their ids, and how many train together. None may be stored.

        Args:
            program: its id.
            members: the ids of all members, which a run of version 0.1 stored by their places.
        """
        layout = self.read_if_intact(f"checkpoints/{program}/layout.json") or {}
        numbered = [(list(members[first:end]), size) for first, end, size in layout.get("chunks", ())]
        return [(batch["members"], batch["size"]) for batch in layout.get("batches", ())] or numbered

    def read_mesh(self, program: str) -> tuple[int, ...]:
        """Returns the shape of the mesh of devices that trained a program; empty if none is stored."""
        return tuple((self.read_if_intact(f"checkpoints/{program}/layout.json") or {}).get("mesh", ()))

    def write_layout(
        self, program: str, layout: Iterable[tuple[Sequence[str], int]], mesh: tuple[int, ...] = ()
    ) -> None:
        """Stores the batches of members of a program, and the shape of its mesh, so that a resumed run has the same."""
        (self.path / "checkpoints" / program).mkdir(parents=True, exist_ok=True)
        batches = [{"members": [*members], "size": size} for members, size in layout]
        self.write_json(f"checkpoints/{program}/layout.json", {"batches": batches, "mesh": [*mesh]})

    def read_config(self) -> dict[str, Any] | None:
        """Returns the config of the study in the folder, or None for a new folder.

        Raises:
            RequestError: config.json cannot be read, or the folder holds other files and no config.json.
        """
        config = self._read_config()
        if config is None:
            return None
        return modern_config({key: value for key, value in config.items() if key not in NOT_OF_STUDY})

    def read_earlier(self) -> list[dict[str, Any]]:
        """Returns the configs of earlier studies that asked this run for trials that the newest does not ask for."""
        return (self._read_config() or {}).get("earlier", [])

    def read_looks(self) -> list[dict[str, Any]] | None:
        """Returns the looks at the study so far, see `commands.growth`; None if none was planned or has been."""
        return (self._read_config() or {}).get("looks")

    def write_config(
        self,
        config: Mapping[str, Any],
        earlier: Sequence[Mapping[str, Any]] = (),
        looks: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Writes config.json: the study, earlier studies of the run, the layers of all networks, and the own code.

        The looks are those of the run if `looks` is None.
        """
        before = self._read_config() or {}
        networks = {**before.get("networks", {}), **described(config["models"])}
        more: dict[str, Any] = {"earlier": [*earlier]} if earlier else {}
        if code := {**before.get("code", {}), **config.get("code", {})}:
            more["code"] = code
        if (looks := before.get("looks") if looks is None else looks) is not None:
            more["looks"] = [*looks]
        self.write_json("config.json", {**config, **more, "networks": networks})

    def write_code(self, code: own_code.Code) -> None:
        """Copies the own code of a study into the folder."""
        for path, content in own_code.copies(code, self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as file:
                file.write(content)

    def check_code(self, code: own_code.Code) -> None:
        """Raises RequestError if a file of own code differs from the one that the run trained with."""
        for file in own_code.changed_files((self._read_config() or {}).get("code", {}), code):
            path, how = code[file]["path"] or file, "change it back, choose another folder, or --overwrite it"
            raise RequestError("code", str(path), f"it has changed since {self.path} trained with it; {how}")

    def check_networks(self, names: Iterable[str]) -> None:
        """Raises RequestError if a network has other layers than the run's network of the same name.

        A run of a version that stored no layers passes.
        """
        stored = (self._read_config() or {}).get("networks", {})
        if lacking := [name for name in names if name in stored and name not in LADDER]:
            problem = f"{self.path} trained a network that the study's file adds to the ladder; import that file first"
            raise RequestError("models", lacking[0], problem)
        for name, difference in changed(names, stored).items():
            how = "change it back, or give it another name and another folder"
            raise RequestError("models", name, f"{self.path} trained another network of that name: {difference}; {how}")

    def is_numbered(self) -> bool:
        """Returns whether an older version started the run: it numbered its trials."""
        plan = self.read_if_intact("plan.json")
        return plan is not None and "trial_ids" not in plan

    def check_version(self) -> None:
        """Raises RequestError if an older version started the run."""
        if self.is_numbered():
            how = "continue with the version that started it, choose another folder, or --overwrite it"
            raise RequestError("workdir", str(self.path), f"an older version of cnnjax trained its trials; {how}")

    def check_plan(self, plan: Plan) -> None:
        """Raises RequestError if the older version that started a run planned another number of trials for it."""
        before = (self.read_if_intact("plan.json") or {}).get("trials", len(plan.trials))
        if self.is_numbered() and before != len(plan.trials):
            how = "continue with the version that started it, or choose another folder"
            problem = f"its study had {before} trials, and has {len(plan.trials)} in this version; {how}"
            raise RequestError("workdir", str(self.path), problem)

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
            problem = f"it cannot be read ({what}); restore it, or start again with --overwrite"
            raise RequestError("workdir", str(file), problem) from error
        names = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
        # A kill before config.json was complete leaves its temporary file and the lock.
        if any(not name.startswith(".config.json.") for name in names - {LOCK, HOLDER}):
            raise RequestError("workdir", str(self.path), NO_RUN)
        return None

    def read_trials(self) -> dict[str, dict[str, Any]]:
        """Returns the intact rows of finished trials by trial id. Rows of older versions hold text."""
        files = record_files(self.path, "trials.jsonl")
        rows = read_rows(self.path / "trials.csv").intact if files is None else []
        rows += [row for file in files or () for row in read_lines(file).intact]
        return {row["trial"]: row for row in rows}

    def write_views(self) -> None:
        """Writes metrics.jsonl, trials.csv and the measured values in plan.json again, from the programs' records.

        The views have the trials that the newest study asks for, in the order of its grid.
        """
        files = record_files(self.path, "metrics.jsonl")
        if files is None:  # a run of an older version
            return
        shown = read_shown(self.path)
        with replaced(self.path / "metrics.jsonl") as view:
            for file in files:
                if self.read_earlier():
                    view.write(json_lines(line for line in read_lines(file).intact if shown.has_line(line)))
                else:
                    lines = file.read_bytes()
                    view.write(lines[: lines.rfind(b"\n") + 1])
        with replaced(self.path / "trials.csv") as view:
            view.write(csv_text(shown.sort(self.read_trials().values())).encode())
        found = record_files(self.path, "program.json") or ()
        measured = {file.parent.name: Folder(file.parent).read_if_intact(file.name) or {} for file in found}
        plan = self.read_if_intact("plan.json") or {}
        entries = [entry | measured.get(entry["id"], {}) for entry in plan.get("programs", ())]
        if entries and entries != plan["programs"]:
            self.write_json("plan.json", plan | {"programs": entries})

    def check_free(self, patience: float = 0.0) -> None:
        """Raises RequestError, which names the process, if a worker still holds a program's directory.

        Args:
            patience: seconds to wait for each worker.
        """
        for lock in sorted(self.path.glob(f"programs/*/{LOCK}")):
            with locked(lock.parent, patience):
                pass

    def write_predictions(self, name: str, **arrays: np.ndarray) -> None:
        """Writes a file of predictions/ atomically."""
        (self.path / "predictions").mkdir(exist_ok=True)
        with replaced(self.path / "predictions" / f"{name}.npz") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def finished_trials(folder: RunFolder, programs: Iterable[Program]) -> set[str]:
    """Returns the ids of the trials of programs that have a result in a run's folder."""
    return {trial for program in programs for trial in folder.program(program.id).finished(program.members)}


def waiting_programs(folder: RunFolder, programs: Sequence[Program]) -> list[Program]:
    """Returns the programs that have trials without a result, each with only the members of such trials."""
    finished = finished_trials(folder, programs)
    return [left for program in programs if (left := program.without(finished)).members]


def _epochs_of_records(program: Program) -> dict[str, int]:
    """Returns the maximum number of epochs of the records by epoch, by their ids."""
    epochs: dict[str, int] = {}
    for trial in (trial for member in program.members for trial in member.trials):
        epochs[trial.member] = max(trial.epochs, epochs.get(trial.member, 0))
    return epochs


def describe_plan(plan: Plan, programs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns plan.json: counts of trials, and for each program its members and its entry of `programs`."""
    return {
        "trials": len(plan.trials),
        "trained": plan.trained,
        "repeats": dict(plan.repeats),
        "trial_ids": [trial.id for trial in plan.trials],
        "programs": [
            {
                "id": program.id,
                **vars(program.static),
                "members": len(program.members),
                "trials": sum(len(member.trials) for member in program.members),
                "epochs": max(member.epochs for member in program.members),
                **more,
                "member_ids": [*(epochs := _epochs_of_records(program))],
                "member_epochs": [*epochs.values()],
            }
            for program, more in zip(plan.programs, programs, strict=True)
        ],
    }
