"""The report's page: the answer first, then what to know before believing it, figures, tables, and what ran."""

import json
from html import escape
from pathlib import Path
from typing import Any

from cnnjax.nested import flatten
from cnnjax.report import parts
from cnnjax.report.analysis import Analysis, analyse, analysis_tables, draw_analysis
from cnnjax.report.answer import write_answer
from cnnjax.report.chance import stuck_trials
from cnnjax.report.classes import make_classes
from cnnjax.report.examples import make_examples
from cnnjax.report.figures import make_figures
from cnnjax.report.lint import check_protocol
from cnnjax.report.parts import Chapter
from cnnjax.report.read import read_run
from cnnjax.report.run import Run
from cnnjax.report.style import Plot
from cnnjax.report.tables import Table, make_tables


def build_report(workdir: Path, select: str | None = None) -> Path:
    """Builds a run's report from its files alone, also while the study runs, and again.

    Args:
        workdir: the run's folder.
        select: the measure to rank by; the default is the study's own.

    Returns:
        The path of report/index.html, a page that needs no other file and no network. Beside it
        stand every figure as SVG and PNG and every table as CSV. Each file is replaced in one
        step.

    Raises:
        RequestError: `workdir` is not a run's folder, or a file of it cannot be read.
    """
    run = read_run(workdir, select)
    folder = workdir / "report"
    folder.mkdir(exist_ok=True)
    analysis, classes, examples = analyse(run), make_classes(run), make_examples(run)
    tables = [*analysis_tables(run, analysis), *make_tables(run)]
    plots = [*draw_analysis(run, analysis), *make_figures(run)]
    page = _page(run, _opening(run, analysis), tables, plots, classes, examples)
    for chapter in (*classes, *examples):
        tables += chapter.tables
        plots += chapter.plots
    return parts.write(folder, page, tables, plots)


def study_name(run: Run) -> str:
    """What a page is called by: the data, or the folder."""
    return str(run.data.get("name", run.workdir.resolve().name))


def _page(
    run: Run, opening: str, tables: list[Table], plots: list[Plot], classes: list[Chapter], examples: list[Chapter]
) -> str:
    sections = [
        parts.Section("figures", "Figures", parts.figures(plots)),
        parts.Section("classes", "By class", _classes(classes)),
        parts.Section("examples", "Examples", "".join(map(parts.chapter, examples))),
        parts.Section("tables", "Tables", "".join(map(parts.table, tables))),
        parts.Section("ran", "What ran", _ran(run)),
    ]
    return parts.document(f"{study_name(run)}: study report", opening, sections)


def _opening(run: Run, analysis: Analysis) -> str:
    """The answer, and what to know before believing it."""
    answer, *details = write_answer(run, analysis.evidence, analysis.sources, analysis.confirmed)
    return f"""<h1>Study of {escape(study_name(run))}</h1>
<p class="answer">{escape(answer)}</p>
{"".join(map(_detail, details))}
{parts.findings(check_protocol(run))}
{parts.facts(_facts(run))}"""


def _detail(text: str) -> str:
    """A paragraph whose first word says what it is about."""
    about, colon, rest = text.partition(":")
    return f"<p><b>{escape(about)}{colon}</b>{escape(rest)}</p>\n" if " " not in about else f"<p>{escape(text)}</p>\n"


def _facts(run: Run) -> list[tuple[Any, str]]:
    seeds, trained = run.trials["seed"].nunique(), run.plan.get("trained", "–")
    programs, settings = len(run.plan.get("programs", ())), len(run.settings)
    facts: list[tuple[Any, str]] = [
        (f"{len(run.trials)} / {run.planned}", "trials finished"),
        (trained, "trained" if trained == run.planned else "trained, the others read off them"),
        (programs, "compiled program" if programs == 1 else "compiled programs"),
        (settings, "setting" if settings == 1 else "settings"),
        (seeds, "seed" if seeds == 1 else "seeds"),
        (run.diverged, "diverged"),
    ]
    stuck = len(stuck_trials(run))
    facts += [(stuck, "stuck at chance")] if stuck else []
    stopped = int((run.trials["status"] == "early_stopped").sum())
    return [*facts, (stopped, "stopped early")] if stopped else facts


def _classes(chapters: list[Chapter]) -> str:
    """The best setting of each model; the first stands open."""
    return "".join(
        f"<details{'' if index else ' open'}><summary>{escape(shown.title)}</summary>{parts.chapter(shown)}</details>\n"
        for index, shown in enumerate(chapters)
    )


def _ran(run: Run) -> str:
    shown = {f"data: {key}": value for key, value in run.data.items() if key != "examined"}
    shown |= {f"config: {key}": value for key, value in flatten(run.config)}
    if run.config.get("data", {}).get("path"):
        shown["config: data.name"] = study_name(run)  # what the config has may be a default that names other data
    shown |= run.environment
    rows = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(_text(value))}</dd>" for key, value in shown.items()
    )
    return f"<dl>{rows}</dl>"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
