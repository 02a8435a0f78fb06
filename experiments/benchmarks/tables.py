"""Where the benchmarks write what they found."""

import csv
from pathlib import Path
from typing import Any


def write_table(rows: list[dict[str, Any]], name: str, elsewhere: str | None = None) -> Path:
    """Writes rows as a CSV file of that name beside this file, or to the path `elsewhere`; returns the path."""
    path = Path(elsewhere) if elsewhere else Path(__file__).with_name(name)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path
