"""Where the benchmarks write what they found."""

import csv
from pathlib import Path
from typing import Any

from absl import flags

RESUME = flags.DEFINE_bool("resume", False, "Keep the rows of a table that is there, and measure only what it lacks.")


def table_path(name: str, elsewhere: str | None = None) -> Path:
    """Returns the path of the table of that name beside this file, or `elsewhere`."""
    return Path(elsewhere) if elsewhere else Path(__file__).with_name(name)


def write_table(rows: list[dict[str, Any]], name: str, elsewhere: str | None = None) -> Path:
    """Writes rows as a CSV file of that name beside this file, or to the path `elsewhere`; returns the path."""
    path = table_path(name, elsewhere)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".new")  # so that a kill leaves the rows that were there
    with whole.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0] if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    whole.replace(path)
    return path


def kept_rows(name: str, elsewhere: str | None = None) -> list[dict[str, Any]]:
    """Returns the rows of the table that is there if `--resume` says to keep them, else none."""
    path = table_path(name, elsewhere)
    return read_table(path) if RESUME.value and path.exists() else []


def read_table(path: Path) -> list[dict[str, Any]]:
    """Reads what `write_table` wrote, numbers as such."""
    with path.open(newline="") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
