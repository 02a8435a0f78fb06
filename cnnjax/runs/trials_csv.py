"""The rows of trials.csv: their columns, how a row is written as a line, and the table that a user reads."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

from cnnjax.runs.integrity import SEAL, Damaged, read_rows, seal
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


def csv_row(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of trials.csv, with its checksum; what is absent or not finite is nothing."""
    return csv_line(seal({column: _cell(row.get(column)) for column in TRIAL_COLUMNS}).values())


def csv_line(cells: Iterable[str]) -> str:
    """Returns cells as a line of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def load_results(workdir: str | Path) -> "pd.DataFrame":
    """Reads the results of a run.

    Args:
        workdir: the run's folder.

    Returns:
        One row per finished trial with the columns of trials.csv; an absent number is NaN.

    Raises:
        RequestError: the folder has no trials.csv, or it is damaged.
    """
    file = Path(workdir) / "trials.csv"
    if not file.is_file():
        raise RequestError("workdir", str(workdir), "it has no trials.csv; allowed: a run's folder")
    if damaged := read_rows(file).damaged:
        raise Damaged(f"{file}, line {damaged[0]}", "it is not what was written")
    return read_table(file)


def read_table(file: Path) -> "pd.DataFrame":
    """Reads the rows of a trials.csv, whole or not. Only an empty field is missing: networks may be called "null"."""
    import pandas as pd

    old = [name for name, column in OLD_COLUMNS.items() if column in TEXT_COLUMNS]
    text = dict.fromkeys((*TEXT_COLUMNS, *old, "decay"), str)
    table = pd.read_csv(file, dtype=text, keep_default_na=False, na_values=[""])
    table = table.rename(columns=OLD_COLUMNS)
    if "decay" in table:
        of_adamw = table.pop("decay") == "decoupled"
        table.loc[of_adamw, "optimizer"] = table["optimizer"].str.replace(r"(\+|$)", r"w\1", n=-1, regex=True)
    return table.drop(columns=SEAL, errors="ignore")


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(value)
