"""Builds the page of a run: the answer, what limits it, figures, tables, and what ran.

A section of the page is a module of `report.sections` with the functions `tables(run)` and `figures(run)`; to add one,
write the module and list it here.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from cnnjax.analysis.chance import stuck_trials
from cnnjax.analysis.cost import study_cost
from cnnjax.analysis.read import read_run
from cnnjax.analysis.run import Run
from cnnjax.report import html
from cnnjax.report.parallel import Section, build_sections
from cnnjax.report.sections import (
    classes,
    confirmation,
    cost,
    curves,
    examples,
    headline,
    hyperparameters,
    measures,
    models,
    protocol,
    ranking,
    search,
    spread,
    variance,
)
from cnnjax.report.tables import Table
from cnnjax.runs.run_dir import RunFolder
from cnnjax.utils.progress import duration
from cnnjax.utils.tree import flatten

SUMMARY: tuple[Section, ...] = (confirmation, variance, ranking, search, spread, hyperparameters)  # also in Markdown
SECTIONS: tuple[Section, ...] = (
    confirmation,
    variance,
    ranking,
    search,
    spread,
    hyperparameters,
    models,
    cost,
    measures,
    curves,
)
_SLOW: tuple[Section, ...] = (examples, classes, curves, ranking, measures, hyperparameters)  # the slowest first


@threadpool_limits.wrap(limits=1, user_api="blas")  # processes share the cores already
def build_report(workdir: Path, select: str | None = None) -> Path:
    """Builds the report of a run from its files, finished or not.

    Writes `report/index.html`, a page that needs no other file and no network, every figure as SVG and PNG, and every
    table as CSV. Each file is replaced atomically.

    Args:
        workdir: the run's folder.
        select: the measure to rank by; the default is the study's own.

    Returns:
        The path of the page.

    Raises:
        RequestError: `workdir` is not the folder of a run, or one of its files cannot be read.
    """
    run = read_run(workdir, select)
    RunFolder(workdir).write_views()
    folder = workdir / "report"
    folder.mkdir(exist_ok=True)
    *found, by_class, single_images = build_sections(run, (*SECTIONS, classes, examples), _SLOW)
    sections = [
        html.Section("figures", "Figures", plots=[plot for _, plots in found for plot in plots]),
        html.Section("classes", "By class", *by_class, is_folded=True),
        html.Section("examples", "Examples", *single_images),
        html.Section("tables", "Tables", [table for tables, _ in found for table in tables]),
        html.Section("ran", "What ran", facts=_what_ran(run)),
    ]
    answer, details = headline.text(run)
    name = study_name(run)
    page = html.render(
        f"{name}: study report",
        f"Study of {name}",
        sections,
        answer=answer,
        details=details,
        findings=protocol.check(run),
        facts=_counts(run),
    )
    return html.write(folder, page, sections)


def list_tables(run: Run, sections: Iterable[Section]) -> list[Table]:
    """Returns the tables of sections."""
    return [table for section in sections for table in section.tables(run)]


def study_name(run: Run) -> str:
    """Returns the name of the data, or of the run's folder if the data has none."""
    return str(run.data.get("name", run.workdir.resolve().name))


def _counts(run: Run) -> list[tuple[Any, str]]:
    seeds, trained = run.trials["seed"].nunique(), run.plan.get("trained", "–")
    programs, configurations, stuck = len(run.plan.get("programs", ())), len(run.configurations), len(stuck_trials(run))
    stopped, spent = int((run.trials["status"] == "early_stopped").sum()), study_cost(run)
    counts: list[tuple[Any, str]] = [
        (f"{len(run.trials)} / {run.planned}", "trials finished"),
        (trained, "trained" if trained == run.planned else "trained, the others read off longer ones"),
        (programs, "compiled program" if programs == 1 else "compiled programs"),
        (configurations, "configuration" if configurations == 1 else "configurations"),
        (seeds, "seed" if seeds == 1 else "seeds"),
        (run.diverged, "diverged"),
        (duration(spent.seconds), "of training"),
        (f"{spent.images:,}", "training images"),
    ]
    return [*counts, *((n, words) for n, words in ((stuck, "stuck at chance"), (stopped, "stopped early")) if n)]


def _what_ran(run: Run) -> dict[str, str]:
    shown = {f"data: {key}": value for key, value in run.data.items() if key != "examined"}
    shown |= {f"config: {key}": value for key, value in flatten(run.config)}
    if run.config.get("data", {}).get("path"):
        shown["config: data.name"] = study_name(run)  # with a path, the config's own name may be an unused default
    return {
        str(key).replace("_", " "): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in (shown | run.environment).items()
    }
