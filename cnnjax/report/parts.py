"""What every page is made of: one self-contained HTML document, its tables and figures, and their files."""

import itertools
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax.report.data_lint import Finding
from cnnjax.report.style import Plot
from cnnjax.report.tables import MOST_ROWS, Table
from cnnjax.sealed import replaced
from cnnjax.types import counted

_LONG = 30  # rows; a longer table is folded


class Section(NamedTuple):
    """A part of a page that its navigation links to; the content is HTML."""

    key: str
    title: str
    content: str


class Chapter(NamedTuple):
    """Tables and figures of one thing."""

    title: str
    tables: list[Table]
    plots: list[Plot]


def document(title: str, opening: str, sections: Sequence[Section]) -> str:
    """Returns a page that needs no other file and no network.

    Args:
        title: as text.
        opening: HTML above the navigation.
        sections: in order; empty ones are left out.
    """
    here = Path(__file__).parent
    shown = [section for section in sections if section.content]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in shown)
    body = "".join(f'<section id="{key}"><h2>{title}</h2>{content}</section>\n' for key, title, content in shown)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{(here / "report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{opening}
<nav aria-label="sections">{links}</nav>
{body}</main>
<script>
{(here / "tables.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def write(folder: Path, page: str, tables: Iterable[Table], plots: Iterable[Plot]) -> Path:
    """Writes a page and, beside it, its tables as CSV and its figures as SVG and PNG; returns the page's path."""
    for table in tables:
        _write(folder / f"{table.name}.csv", table.csv().encode())
    for plot in plots:
        _write(folder / f"{plot.name}.svg", plot.svg.encode())
        _write(folder / f"{plot.name}.png", plot.png)
    index = folder / "index.html"
    _write(index, page.encode())
    return index


def _write(path: Path, content: bytes) -> None:
    with replaced(path) as file:
        file.write(content)


def findings(found: Iterable[Finding]) -> str:
    """What a reader must know, each with its name and severity; nothing of none."""
    items = "".join(f'<li class="{one.severity}"><b>{one.name}</b> {escape(one.sentence)}</li>' for one in found)
    return f'<ul class="findings">{items}</ul>' if items else ""


def facts(values: Iterable[tuple[Any, str]]) -> str:
    """A row of numbers, each with its words."""
    items = "".join(f"<li><b>{escape(str(value))}</b>{what}</li>" for value, what in values)
    return f'<ul class="facts">{items}</ul>'


def table(table: Table) -> str:
    """A table under its title, folded where it is long, with a button that copies it and a link to its CSV file."""
    rows = len(table.frame)
    cut = f", of which the first {MOST_ROWS} are shown" if rows > MOST_ROWS + table.foot else ""
    return (
        f'<details class="table"{" open" if rows <= _LONG else ""}>'
        f'<summary>{escape(table.title)} <span class="count">{counted(rows, "row")}{cut}</span></summary>'
        f'<p class="note">{escape(table.note)}</p>{table.html()}'
        '<p class="files"><button type="button" class="copy">Copy</button> '
        f'<a href="{table.name}.csv">{table.name}.csv</a> has every digit (percentages as shares).</p></details>\n'
    )


def chapter(shown: Chapter) -> str:
    """A chapter's tables and figures."""
    return "".join(map(table, shown.tables)) + f'<div class="plots">{"".join(map(figure, shown.plots))}</div>'


def figures(plots: Iterable[Plot]) -> str:
    """Figures under the headings of their groups, with links to their files."""
    groups = []
    for group, members in itertools.groupby(plots, key=lambda plot: plot.group):
        shown = [figure(plot) for plot in members]
        groups.append(f'<h3>{escape(group)}</h3><div class="plots">{"".join(shown)}</div>\n')
    return "".join(groups)


def figure(plot: Plot) -> str:
    """A figure as shown, its caption, and the files that hold it."""
    files = ", ".join(f'<a href="{plot.name}.{kind}">{kind.upper()}</a>' for kind in ("svg", "png"))
    size = "wide" if plot.wide else "half"
    return (
        f'<figure class="{size}"><div class="plot">{plot.inline}</div>'
        f"<figcaption>{escape(plot.caption)} {files}</figcaption></figure>\n"
    )
