"""The rows of trials.csv: their columns, how the file is written, and the table that a user reads."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

from cnnjax.runs.integrity import SEAL, read_rows, whole
from cnnjax.runs.schema import TEXT_COLUMNS
from cnnjax.study.hparams import HPARAMS
from cnnjax.study.metrics import MEASURES
from cnnjax.study.plan import Trial
from cnnjax.study.renamed import OLD_COLUMNS
from cnnjax.utils.errors import RequestError

TRIAL_COLUMNS = (
    *("trial", "member", "model"),
    *(h.column for h in HPARAMS),
    *("later_stages", "seed"),
    *("stream_init", "stream_order", "stream_augment", "stream_dropout"),
    *("status", "epochs_run", "best_epoch"),
    *MEASURES,
    *("seconds", "images_per_second"),
)


def trial_row(trial: Trial, member: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial's row of trials.csv."""
    return {**trial.row(), "member": member, **measured}


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns trials.csv for rows, in the order of their ids. What is absent or not finite is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TRIAL_COLUMNS)
    for row in sorted(rows, key=lambda row: row["trial"]):
        writer.writerow([_cell(row.get(column)) for column in TRIAL_COLUMNS])
    return text.getvalue()


def record_files(run: Path, name: str) -> list[Path] | None:
    """Returns the files of that name in the directories of a run's programs; None for a run of an older version.

    A run of an older version has its records in its own folder.
    """
    programs = run / "programs"
    return sorted(programs.glob(f"*/{name}")) if programs.is_dir() else None


def read_table(run: Path) -> "pd.DataFrame":
    """Reads the rows of a run's trials, from the records of its programs; those of an older version from trials.csv.

    Raises:
        FileNotFoundError: there are neither.
        Damaged: a row is not what was written.
    """
    import pandas as pd

    source: io.StringIO | Path = run / "trials.csv"
    if (files := record_files(run, "trials.jsonl")) is not None:
        rows = {row["trial"]: row for file in files for row in whole(file)}  # of a trial trained again, the newest
        source = io.StringIO(csv_text(rows.values()))
    else:
        whole(run / "trials.csv", read_rows)
    old = [name for name, column in OLD_COLUMNS.items() if column in TEXT_COLUMNS]
    text = dict.fromkeys((*TEXT_COLUMNS, *old, "decay"), str)
    # Only an empty field is missing: networks may be called "null".
    table = pd.read_csv(source, dtype=text, keep_default_na=False, na_values=[""]).rename(columns=OLD_COLUMNS)
    if "decay" in table:
        of_adamw = table.pop("decay") == "decoupled"
        table.loc[of_adamw, "optimizer"] = table["optimizer"].str.replace(r"(\+|$)", r"w\1", n=-1, regex=True)
    return table.drop(columns=SEAL, errors="ignore")


def load_results(workdir: str | Path) -> "pd.DataFrame":
    """Reads the results of a run.

    Args:
        workdir: the run's folder.

    Returns:
        One row per finished trial with the columns of trials.csv; an absent number is NaN.

    Raises:
        RequestError: the folder is not a run's, or its records are damaged.
    """
    try:
        return read_table(Path(workdir))
    except FileNotFoundError:
        said = "it has neither programs nor trials.csv; use a run's folder"
        raise RequestError("workdir", str(workdir), said) from None


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(value)
