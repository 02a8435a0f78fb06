"""Tables: data frames with every digit, and how pages and terminals show their columns."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from cnnjax.analysis.columns import AXES, MAIN_AXES, kind_of, level, measure_name, word
from cnnjax.analysis.run import Run
from cnnjax.study.metrics import is_measure
from cnnjax.utils.text import significant

MOST_ROWS = 250  # that a page shows of a table; the CSV file beside it has all
_HEADS = {
    "f1": "F1",
    "auc": "AUC",
    "forward_flops": "forward FLOPs",
    "certainty": "certainty %",
    "p_beats": "P(beats) %",
}
_SUFFIXES = {
    "_seed_std": "std, seeds",
    "_configuration_std": "std, configurations",
    "_std": "std",
    "_half": "±\u00a095\u00a0%",
}
_KINDS = {
    "text": {"trial", "best by", "measure", "class", "configuration", "instead of", "the winner is", "may be best"}
    | {"source", "effect"},
    "whole": {"support", "n", "seed", "seeds", "configurations", "trials", "diverged", "stuck", "more_seeds", "freedom"}
    | {"place", "first_place", "last_place"},
    "count": {"parameters", "forward_flops", "images_per_second"},
    "percent": {"share", "certainty", "p_beats", "black"},
}


class Cell(NamedTuple):
    """A value as shown, its kind, and the number by which a page sorts it (empty for text and for gaps)."""

    text: str
    kind: str
    value: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: of its CSV file.
        title: its heading.
        note: what its columns are.
        frame: its values.
        best: positions of the rows to highlight.
        kinds: how to show columns whose name does not say it: text, axis, whole, count, percent or number.
        foot: how many rows at the end stay last when a reader sorts the table.
        group: the heading under which a page shows it, if any.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    best: tuple[int, ...] = ()
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    foot: int = 0
    group: str = ""

    def csv(self) -> str:
        """The table as CSV, with every digit."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    @property
    def column_kinds(self) -> list[str]:
        """How each column is shown."""
        return [self.kinds.get(column) or _kind(str(column), values) for column, values in self.frame.items()]

    @property
    def header(self) -> list[Cell]:
        """The heads of the columns."""
        return [
            Cell(_head(str(column), kind), kind, "") for column, kind in zip(self.frame, self.column_kinds, strict=True)
        ]

    def rows(self, most: int | None = None) -> list[list[Cell]]:
        """The rows as shown: percent, and four significant digits.

        Args:
            most: leave out the rows from this one on, up to the foot; None for all rows.
        """
        kinds, columns = self.column_kinds, list(self.frame)
        total, body = len(self.frame), len(self.frame) - self.foot
        kept = self.frame.iloc[[*range(body if most is None else min(most, body)), *range(body, total)]]
        return [
            [_cell(*cell) for cell in zip(row, kinds, columns, strict=True)] for row in kept.itertuples(index=False)
        ]

    def text(self) -> str:
        """The table as shown, in aligned columns."""
        rows = [self.header, *self.rows()]
        widths = [max(len(cell.text) for cell in column) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(
                f"{text:{'<' if kind == 'text' else '>'}{w}}" for (text, kind, _), w in zip(row, widths, strict=True)
            )
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)


def shown_axes(run: Run) -> list[str]:
    """The axes by which tables name a configuration: the main ones, and all others that vary."""
    return [axis for axis in AXES if axis in MAIN_AXES or axis in run.varying]


def _split(column: str) -> tuple[str, str]:
    """Splits the name of a column into a measure and the suffix of a statistic."""
    suffix = next((suffix for suffix in _SUFFIXES if column.endswith(suffix)), "")
    return column.removesuffix(suffix), suffix


def _head(column: str, kind: str) -> str:
    name, suffix = _split(column)
    plain = measure_name(name) if is_measure(name) else word(name)
    plain += " %" if kind == "percent" else ""
    return _SUFFIXES[suffix] if suffix else _HEADS.get(name, plain)


def _kind(column: str, values: pd.Series) -> str:
    if column in AXES:
        return "text" if any(isinstance(value, str) for value in values) else "axis"
    if is_measure(measure := _split(column)[0]):
        return kind_of(measure)
    return next((kind for kind, columns in _KINDS.items() if column in columns), "number")


def _cell(value: Any, kind: str, column: str) -> Cell:
    is_missing = bool(pd.isna(value))
    if kind == "text":
        return Cell("–" if is_missing and value is not None else str(value), kind, "")
    number = "" if is_missing else repr(float(value))
    if kind == "axis":
        return Cell(level(column, value), kind, number)
    if is_missing:
        return Cell("–", kind, number)
    if kind in ("whole", "count"):
        return Cell(f"{int(value):,}" if kind == "count" else str(int(value)), kind, number)
    return Cell(significant(100 * value if kind == "percent" else value), kind, number)
