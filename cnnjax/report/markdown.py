"""The summary of a run as Markdown, for a README or a pull request."""

import re
from collections.abc import Iterable
from pathlib import Path

from cnnjax.analysis.read import read_run
from cnnjax.analysis.run import Run
from cnnjax.report.build import SUMMARY, list_tables, study_name
from cnnjax.report.sections import headline, protocol
from cnnjax.report.tables import Table
from cnnjax.utils.text import counted

_ROWS = 10  # of a table, at most
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def summarize_run(workdir: Path, select: str | None = None) -> str:
    """Returns the answer, the findings on the protocol, the main tables and what ran, as Markdown.

    Args:
        workdir: the run's folder.
        select: the measure to rank by; the default is the study's own.

    Raises:
        RequestError: `workdir` is not the folder of a run, or one of its files cannot be read.
    """
    run = read_run(workdir, select)
    answer, details = headline.text(run)
    blocks = [f"# Study of {_escape(study_name(run))}", f"**{_escape(answer)}**"]
    blocks += [_escape(f"{label}: {text}" if label else text) for label, text in details]
    findings = [f"- {one.severity} `{one.name}`: {_escape(one.sentence)}" for one in protocol.check(run)]
    blocks += ["\n".join(findings)] if findings else []
    for table in list_tables(run, SUMMARY):
        blocks += [f"## {_escape(table.title)}", _table(table), _escape(table.note)]
    return "\n\n".join([*blocks, _escape(_what_ran(run))]) + "\n"


def _what_ran(run: Run) -> str:
    versions = run.environment.get("versions", {})
    ran = [f"{name} {version}" for name, version in versions.items() if version]
    revision = run.environment.get("git_revision")
    ran += [f"revision {revision}"] if revision else []
    devices = ", ".join(map(str, run.environment.get("devices", ())))
    programs = len(run.plan.get("programs", ()))
    count = f"{len(run.trials)} of {run.planned} trials finished, in {counted(programs, 'program')}"
    return f"{count} on {devices}. {', '.join(ran)}".strip()


def _table(table: Table) -> str:
    rows = [[cell.text for cell in row] for row in (table.header, *table.rows())]
    sides = ["---" if kind == "text" else "---:" for kind in table.column_kinds]
    head, *lines = (_row(map(_escape, row)) for row in rows[: _ROWS + 1])
    more = len(rows) - 1 - _ROWS
    lines += ["", f"{counted(more, 'more row')} in report/{table.name}.csv."] if more > 0 else []
    return "\n".join([head, _row(sides), *lines])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split("\n")))
