"""The table of a config's keys in configs/README.md is what the code takes."""

import dataclasses
from pathlib import Path

from cnnjax.study.schema import Study

TABLE = Path(__file__).parents[2] / "configs" / "README.md"


def keys_of(config, prefix=""):
    """Each key, its default, whether it is an axis, and what it takes."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{prefix}{field.name}.")
            continue
        is_axis = field.metadata.get("axis", False)
        rule = field.metadata.get("rule")
        takes = rule.allowed.removeprefix("allowed: ") if rule else ""
        yield f"{prefix}{field.name}", repr(value[0] if is_axis else value), "axis" if is_axis else "", takes


def test_the_table_of_keys_is_what_the_code_takes():
    rows = [line.split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    written = [tuple(cell.strip("| ").replace("`", "") for cell in row[:4]) for row in rows]
    there = list(keys_of(Study()))
    there = [(*row[:3], row[3] or said[3]) for row, said in zip(there, written, strict=True)]  # stages: a rule in words
    assert written == there
    assert all(len(row) == 5 and row[4].strip("| ") for row in rows)
