"""Pages: self-contained HTML documents, with their tables as CSV and their figures as SVG and PNG beside them."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from cnnjax.report.tables import MOST_ROWS, Table
from cnnjax.report.theme import Plot
from cnnjax.runs.integrity import replaced
from cnnjax.utils.text import counted

_OPEN_ROWS = 30  # a longer table is folded


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page, to which the navigation links.

    Attributes:
        key: its id in the page.
        title: its heading.
        tables: shown under the heading of their group.
        plots: shown under the heading of their group, after its tables.
        notes: paragraphs above all tables.
        facts: names and values.
        is_folded: whether each group can be folded; all but the first are.
    """

    key: str
    title: str
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_folded: bool = False

    def __bool__(self) -> bool:
        return bool(self.tables or self.plots or self.notes or self.facts)

    def groups(self) -> Iterator[tuple[str, list[Table], list[Plot]]]:
        """Yields the heading, tables and plots of each group, in order of appearance."""
        for group in dict.fromkeys([*(table.group for table in self.tables), *(plot.group for plot in self.plots)]):
            tables = [table for table in self.tables if table.group == group]
            yield group, tables, [plot for plot in self.plots if plot.group == group]


def render(title: str, heading: str, sections: Iterable[Section], **opening: Any) -> str:
    """Renders a page that needs no other file and no network.

    Args:
        title: of the document.
        heading: the first line.
        sections: in order; empty ones are left out.
        **opening: what stands above the sections: `answer`, one sentence or more; `details`, paragraphs each with a
            label; `findings`, of `report.sections.data_rules`; `facts`, numbers with their words.
    """
    page = environment().get_template("page.html")
    return page.render(title=title, heading=heading, sections=[s for s in sections if s], **opening) + "\n"


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the templates. They escape what they are given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(counted=counted, most_rows=MOST_ROWS, open_rows=_OPEN_ROWS)
    return environment


def write(folder: Path, page: str, sections: Iterable[Section]) -> Path:
    """Writes a page as index.html, its tables as CSV and its figures as SVG and PNG; returns the path of the page."""
    for section in sections:
        for table in section.tables:
            _write(folder / f"{table.name}.csv", table.csv().encode())
        for plot in section.plots:
            _write(folder / f"{plot.name}.svg", plot.svg.encode())
            _write(folder / f"{plot.name}.png", plot.png)
    index = folder / "index.html"
    _write(index, page.encode())
    return index


def _write(path: Path, content: bytes) -> None:
    with replaced(path, sync=False) as file:  # a report can be built again
        file.write(content)
