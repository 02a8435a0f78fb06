"""A run's report as Markdown, short enough for a README or a pull request."""

import re
from collections.abc import Iterable
from pathlib import Path

from cnnjax.report.analysis import analyse, analysis_tables
from cnnjax.report.answer import write_answer
from cnnjax.report.lint import check_protocol
from cnnjax.report.page import study_name
from cnnjax.report.read import read_run
from cnnjax.report.run import Run
from cnnjax.report.tables import Table
from cnnjax.types import counted

_ROWS = 10  # of a table, at most
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def summarise_run(workdir: Path, select: str | None = None) -> str:
    """Returns the answer, what to know before believing it, the tables that it rests on, and what ran.

    Args:
        workdir: the run's folder.
        select: the measure to rank by; the default is the study's own.

    Raises:
        RequestError: `workdir` is not a run's folder, or a file of it cannot be read.
    """
    run = read_run(workdir, select)
    analysis = analyse(run)
    answer, *details = write_answer(run, analysis.evidence, analysis.sources, analysis.confirmed)
    lines = [f"# Study of {_escape(study_name(run))}", "", f"**{_escape(answer)}**", ""]
    for detail in details:
        lines += [_escape(detail), ""]
    findings = check_protocol(run)
    lines += [f"- {found.severity} `{found.name}`: {_escape(found.sentence)}" for found in findings]
    lines += [""] if findings else []
    for table in analysis_tables(run, analysis):
        lines += [f"## {_escape(table.title)}", "", *_table(table), "", _escape(table.note), ""]
    return "\n".join([*lines, _escape(_what_ran(run)), ""])


def _what_ran(run: Run) -> str:
    versions = run.environment.get("versions", {})
    ran = [f"{name} {version}" for name, version in versions.items() if version]
    revision = run.environment.get("git_revision")
    ran += [f"revision {revision}"] if revision else []
    devices = ", ".join(map(str, run.environment.get("devices", ())))
    programs = len(run.plan.get("programs", ()))
    count = f"{len(run.trials)} of {run.planned} trials finished, in {counted(programs, 'program')}"
    return f"{count} on {devices}. {', '.join(ran)}".strip()


def _table(table: Table) -> list[str]:
    head, *rows = table.cells()
    sides = ["---" if kind == "text" else "---:" for kind in table.column_kinds]
    lines = [_row(map(_escape, head)), _row(sides), *(_row(map(_escape, row)) for row in rows[:_ROWS])]
    more = len(rows) - _ROWS
    return [*lines, "", f"{counted(more, 'more row')} in report/{table.name}.csv."] if more > 0 else lines


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split("\n")))
