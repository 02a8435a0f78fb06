"""The columns and rows of trials.csv, and the table of results."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

from cnnjax.runs.integrity import CHECKSUM, Damaged, read_json, read_rows, read_undamaged
from cnnjax.runs.schema import TEXT_COLUMNS
from cnnjax.study.hparams import COLUMNS, STREAM_COLUMNS
from cnnjax.study.metrics import MEASURES, is_measure
from cnnjax.study.optimizers import COLUMN as ARGUMENT
from cnnjax.study.renamed import modern_table, with_old_columns
from cnnjax.study.trials import Trial
from cnnjax.utils.errors import RequestError

TRIAL_COLUMNS = (
    *("trial", "member", "model"),
    *COLUMNS,
    *("later_stages", "seed"),
    *STREAM_COLUMNS,
    *("status", "epochs_run", "best_epoch"),
    *MEASURES,
    *("seconds", "images_per_second"),
)


def trial_row(trial: Trial, member: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial's row of trials.csv."""
    return {**trial.row(), "member": member, **measured}


class Shown(NamedTuple):
    """What the views of a run have: the trials that its newest study asks for.

    Attributes:
        places: of the trials in the grid, by id; None for a run of an older version, which shows all of them.
        epochs: the maximum number of epochs of each member, by id.
    """

    places: dict[str, int] | None
    epochs: dict[str, int]

    def sort(self, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Returns the rows of the trials that are shown, in the order of the grid; an older version's by id."""
        if (places := self.places) is None:
            return sorted(rows, key=lambda row: row["trial"])
        return sorted((row for row in rows if row["trial"] in places), key=lambda row: places[row["trial"]])

    def has_line(self, line: Mapping[str, Any]) -> bool:
        """Returns whether a line of metrics.jsonl is shown."""
        if self.places is None:
            return True
        if "trial" in line:
            return line["trial"] in self.places
        return line["epoch"] <= self.epochs.get(line["member"], 0)


def read_shown(run: Path) -> Shown:
    """Returns what the views of a run have, by its plan.json."""
    try:
        plan = read_json(run / "plan.json")
    except (FileNotFoundError, Damaged):  # a launch writes it again
        plan = {}
    if "trial_ids" not in plan:
        return Shown(None, {})
    pairs = (zip(p["member_ids"], p["member_epochs"], strict=True) for p in plan["programs"])
    return Shown({trial: place for place, trial in enumerate(plan["trial_ids"])}, dict(itertools.chain(*pairs)))


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns trials.csv. Absent and non-finite values become empty cells.

    The arguments of optimizers and the user's metrics that a trial has are columns, too.
    """
    rows, text = [*rows], io.StringIO()
    place = TRIAL_COLUMNS.index("later_stages")
    arguments = sorted({column for row in rows for column in row if column.startswith(ARGUMENT)})
    own = (column for row in rows for column in row if is_measure(column))
    usual = (*TRIAL_COLUMNS[:place], *arguments, *TRIAL_COLUMNS[place:])
    columns = [*dict.fromkeys((*usual[:-2], *own, *usual[-2:]))]  # before the speed
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return text.getvalue()


def record_files(run: Path, name: str) -> list[Path] | None:
    """Returns the files named `name` in the directories of a run's programs.

    Returns None for a run of an older version, whose records are in the run's folder itself.
    """
    programs = run / "programs"
    return sorted(programs.glob(f"*/{name}")) if programs.is_dir() else None


def read_table(run: Path) -> "pd.DataFrame":
    """Reads the rows of a run's trials from the records of its programs, or of an older version from trials.csv.

    Raises:
        FileNotFoundError: neither exists.
        Damaged: a row is damaged.
    """
    import pandas as pd

    source: io.StringIO | Path = run / "trials.csv"
    if (files := record_files(run, "trials.jsonl")) is not None:
        rows = {row["trial"]: row for file in files for row in read_undamaged(file)}  # the newest row of each trial
        source = io.StringIO(csv_text(read_shown(run).sort(rows.values())))
    else:
        read_undamaged(run / "trials.csv", read_rows)
    text = dict.fromkeys(with_old_columns(TEXT_COLUMNS), str)
    # Only empty fields are missing values: a network may be named "null".
    table = modern_table(pd.read_csv(source, dtype=text, keep_default_na=False, na_values=[""]))
    return table.drop(columns=CHECKSUM, errors="ignore")


def load_results(workdir: str | Path) -> "pd.DataFrame":
    """Reads the results of a run.

    Args:
        workdir: the run's folder.

    Returns:
        One row per finished trial, with the columns of trials.csv. Missing numbers are NaN.

    Raises:
        RequestError: the folder is not that of a run, or its records are damaged.
    """
    try:
        return read_table(Path(workdir))
    except FileNotFoundError:
        problem = "it holds neither programs nor trials.csv; use the folder of a run"
        raise RequestError("workdir", str(workdir), problem) from None


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(value)
