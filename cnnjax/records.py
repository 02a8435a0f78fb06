"""The files of a run's folder: written so that a kill at any instant leaves them readable. Imports no jax."""

import contextlib
import csv
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

from cnnjax.types import Plan, RequestError, Trial

TRIAL_COLUMNS = (
    *("trial", "member", "model", "initialisation", "optimizer", "batch_size"),
    *("arithmetic", "convolution", "drop_last", "learning_rate", "momentum", "nesterov", "weight_decay", "decay"),
    *("clip_norm", "label_smoothing", "dropout_rate", "schedule", "early_stopping", "stage_start", "shuffle"),
    *("epochs", "seed"),
    *("stream_init", "stream_order", "stream_augment", "stream_dropout"),
    *("status", "epochs_run", "best_epoch", "train_loss", "train_accuracy", "val_loss"),
    *("val_accuracy", "test_loss", "test_accuracy", "precision", "recall", "f1"),
    *("seconds", "images_per_second"),
)
_TEXT_COLUMNS = (
    *("trial", "member", "model", "initialisation", "optimizer"),
    *("arithmetic", "convolution", "decay", "schedule", "early_stopping", "stage_start", "status"),
)


class RunFolder:
    """Reads and writes one run's files; see the README for what each holds."""

    CONTENTS = (
        *("predictions", "checkpoints", "report", "profile", "confirm", "metrics.jsonl", "trials.csv"),
        *("plan.json", "data.json", "environment.json", "config.json"),
    )

    def __init__(self, path: Path):
        self.path = path

    def checkpoints(self, program: str, first: str, last: str, size: int) -> Path:
        """Returns where a chunk of a program's members, `size` with its fillers, keeps its checkpoints."""
        return self.path / "checkpoints" / program / f"{first}-{last}x{size}"

    def check_overwritable(self) -> bool:
        """Whether there is a run to delete; raises RequestError for a folder that is something else."""
        if self.path.is_dir() and (self.path / "config.json").exists():
            return True
        return self.read_config() is not None

    def remove_unfinished(self) -> None:
        """Deletes what a kill left half written beside the files."""
        for pattern in ("", "predictions/", "checkpoints/*/", "report/"):
            for beside in self.path.glob(f"{pattern}.*.tmp"):
                beside.unlink()

    def read_layout(self, program: str) -> list[list[int]] | None:
        """Returns the chunks [first member, end, members at a time] of a program, or None before it was cut."""
        file = self.path / "checkpoints" / program / "layout.json"
        return json.loads(file.read_text()) if file.exists() else None

    def write_layout(self, program: str, layout: list[list[int]]) -> None:
        """Writes down how a program is cut into chunks, so that a resumed run cuts alike."""
        folder = self.path / "checkpoints" / program
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / "layout.json") as file:
            file.write(json.dumps(layout).encode())

    def update_plan(self, program: str, facts: Mapping[str, Any]) -> None:
        """Adds what was learned of a program to plan.json."""
        plan = json.loads((self.path / "plan.json").read_text())
        for entry in plan["programs"]:
            if entry["id"] == program:
                entry.update(facts)
        self.write_json("plan.json", plan)

    def read_config(self) -> dict[str, Any] | None:
        """Returns the study that the folder holds, or None for a new folder.

        Raises:
            RequestError: config.json cannot be read, or the folder holds something else.
        """
        file = self.path / "config.json"
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not there.is_dir():
            raise RequestError("workdir", str(self.path), f"{there} is a file; allowed: a folder")
        if not file.exists():
            # A kill while config.json was written leaves its beginning beside it.
            beside = ".config.json."
            if self.path.exists() and any(not file.name.startswith(beside) for file in self.path.iterdir()):
                raise RequestError(
                    "workdir",
                    str(self.path),
                    "it is not empty and holds no config.json; allowed: a new or empty folder, or a run's own",
                )
            return None
        try:
            config = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise RequestError(
                "workdir",
                str(file),
                f"it cannot be read ({error}); restore it, or start again with --overwrite",
            ) from error
        if not isinstance(config, dict):
            raise RequestError("workdir", str(file), "it is not a study's config.json")
        return config

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file whole or not at all."""
        text = json.dumps(value, indent=1) + "\n"
        with replaced(self.path / name) as file:
            file.write(text.encode())

    def append_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines to metrics.jsonl and waits until they are on disk; non-finite numbers become null."""
        text = "".join(json.dumps(finite(line)) + "\n" for line in lines)
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the whole lines of metrics.jsonl; a last line that a kill cut off is passed over."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def keep_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drops the lines of metrics.jsonl that are not to be kept, all at once."""
        lines = self.read_metrics()
        with replaced(self.path / "metrics.jsonl") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines if keep(line)).encode())

    def write_predictions(self, name: str, **arrays: np.ndarray) -> None:
        """Writes one file of predictions/ whole or not at all."""
        folder = self.path / "predictions"
        folder.mkdir(exist_ok=True)
        with replaced(folder / f"{name}.npz") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def read_trials(self) -> dict[str, dict[str, Any]]:
        """Returns the finished rows of trials.csv by trial id, values as text."""
        file = self.path / "trials.csv"
        if not file.exists():
            return {}
        with file.open(newline="") as lines:
            return {row["trial"]: row for row in csv.DictReader(lines)}

    def write_trials(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes trials.csv, one row per finished trial in the order of their ids."""
        lines = [",".join(TRIAL_COLUMNS)]
        for trial in sorted(rows):
            lines.append(",".join(_cell(rows[trial].get(column)) for column in TRIAL_COLUMNS))
        with replaced(self.path / "trials.csv") as file:
            file.write(("\n".join(lines) + "\n").encode())


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Opens a file beside `path` that takes its place, complete and on disk, when the block ends well."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Returns the keys in which two nested mappings differ, as `train.epochs`, with both values; None where none is."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = a, b
    return found


def finite(value: Any) -> Any:
    """Returns a value, with all that it holds, as JSON can say it: a number that is not finite is None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def trial_row(trial: Trial, member: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial's row of trials.csv."""
    return {**trial.row(), "member": member, **measured}


def load_results(workdir: str | Path) -> "pd.DataFrame":
    """Reads the results of a run.

    Args:
        workdir: the run's folder.

    Returns:
        One row per finished trial with the columns of trials.csv; an absent number is NaN.

    Raises:
        RequestError: the folder has no trials.csv.
    """
    import pandas as pd

    file = Path(workdir) / "trials.csv"
    if not file.is_file():
        raise RequestError("workdir", str(workdir), "it has no trials.csv; allowed: a run's folder")
    return pd.read_csv(file, dtype=dict.fromkeys(_TEXT_COLUMNS, str))


def describe_plan(plan: Plan, programs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns plan.json: the counts, and per program what `programs` says of it beside its members."""
    return {
        "trials": len(plan.trials),
        "trained": plan.trained,
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


def describe_environment(devices: list[str]) -> dict[str, Any]:
    """Returns environment.json: what may explain why two runs of one study differ."""
    packages = ("cnnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_count": os.cpu_count(),
        "devices": devices,
        "versions": {name: _version(name) for name in packages},
        "flags": {name: v for name, v in os.environ.items() if name.startswith(("XLA_", "JAX_"))},
        "git_revision": _git_revision(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The revision of the checkout that holds this package, with '-dirty' where it was changed; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(value)
