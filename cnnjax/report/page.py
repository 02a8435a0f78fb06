"""The report's page: the answer first, then warnings, tables, figures, and what ran."""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from cnnjax.report import parts
from cnnjax.report.classes import Section, make_classes
from cnnjax.report.figures import make_figures
from cnnjax.report.read import Run, read_run
from cnnjax.report.style import Plot
from cnnjax.report.tables import Table, make_tables, significant

_WORDS = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
    "f1": "test macro F1",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
}


def build_report(workdir: Path) -> Path:
    """Builds a run's report from its files alone, also while the study runs, and again.

    Args:
        workdir: the run's folder.

    Returns:
        The path of report/index.html, a page that needs no other file and no network. Beside it
        stand every figure as SVG and PNG and every table as CSV. Each file is replaced in one
        step.

    Raises:
        RequestError: `workdir` is not a run's folder, or a file of it cannot be read.
    """
    run = read_run(workdir)
    folder = workdir / "report"
    folder.mkdir(exist_ok=True)
    tables, plots, sections = make_tables(run), list(make_figures(run)), make_classes(run)
    page = _page(run, tables, plots, sections)
    tables += [table for section in sections for table in section.tables]
    plots += [plot for section in sections for plot in section.plots]
    return parts.write(folder, page, tables, plots)


def headline(run: Run) -> str:
    """One paragraph: the setting that the study's measure selects, and how sure that is."""
    best = run.best(run.settings, run.select) if len(run.ok) else None
    if best is None:
        return "No trial has finished with a value to select by."
    split = "" if run.select.startswith(("test", "f1")) else _interval(run, best, "test_accuracy")
    so_far = " so far" if len(run.trials) < run.planned else ""
    count = len(run.settings)
    verb = f"Best{so_far} of {count} settings: " if count > 1 else ""
    measured = "; ".join(filter(None, [_interval(run, best, run.select), split]))
    parts = [f"{verb}{run.describe(best)}. {measured[0].upper()}{measured[1:]}."]
    n = int(run.settings.loc[best, "n"])
    if n > 1:
        parts.append(f"Means over {n} seeds with 95\u00a0% t intervals.")
    else:
        parts.append("One seed: nothing can be said about how much another seed would change this.")
    return " ".join(parts)


def _interval(run: Run, setting: int, measure: str) -> str:
    summary = run.summary(setting, measure)
    if summary is None:
        return ""
    scale, unit = (100, " %") if measure.endswith("accuracy") else (1, "")
    mean, low, high = (significant(scale * value) for value in (summary.mean, summary.low, summary.high))
    between = f" ({low} to {high})" if summary.n > 1 else ""
    return f"{_WORDS[measure]} {mean}{unit}{between}"


def warnings(run: Run) -> list[str]:
    """What a reader must know before believing the numbers."""
    said = []
    if len(run.trials) < run.planned:
        said.append(f"{len(run.trials)} of {run.planned} trials finished: the figures will change.")
    if run.diverged:
        said.append(
            f"{run.diverged} of {len(run.trials)} finished trials diverged (non-finite loss). "
            "They are left out of every mean, so settings that lost seeds look better than they "
            "are; a setting that lost more seeds than others cannot be named best."
        )
    chosen = len(run.settings) > 1  # of one setting nothing was selected
    if chosen and run.select.startswith(("test", "f1")):
        said.append(
            f"The best setting is selected by {_WORDS[run.select]}: the test split chose it, so "
            "its test figures are optimistic."
        )
    elif chosen and run.select.startswith("train"):
        said.append(
            f"The best setting is selected by {_WORDS[run.select]}, which does not measure "
            "generalisation: there is no validation split in the choice."
        )
    data = run.config.get("data", {})
    if data.get("validation") and data.get("validation_from") == "test":
        said.append("The validation split is part of the data's test set.")
    if data.get("validation_from") == "same_as_test":
        said.append(
            "The validation split is the test split: whatever it chose (a setting, an epoch, when to stop), the test "
            "figures are optimistic."
        )
    if data.get("augment_test"):
        said.append(
            "Test images are augmented (data.augment_test), each once, alike for all trials: test figures are not "
            "those of the images as they are."
        )
    if data.get("stored_augment", "none") != "none" and run.data.get("counts", {}).get("validation"):
        said.append(
            "Validation images are stored in several versions each (data.stored_augment), test images are not: "
            "validation and test figures are of different kinds of images."
        )
    if run.data.get("test_from") == "pooled":
        said.append(
            "The data's own test set was pooled with its training images and cut anew (data.fractions): test figures "
            "are not comparable with published ones."
        )
    if chosen and run.settings["n"].max() < 2:
        said.append("One seed per setting: differences between settings may be chance.")
    fixed = {k: v for k, v in run.config.get("streams", {}).items() if v not in (None, [None])}
    if fixed:
        named = ", ".join(f"{name} = {json.dumps(value)}" for name, value in fixed.items())
        said.append(
            f"The study sets random streams itself ({named}): runs of a setting share them, so "
            "the spread shown is not the whole spread of independent runs."
        )
    return said


def _page(run: Run, tables: list[Table], plots: list[Plot], classes: list[Section]) -> str:
    name = str(run.data.get("name", run.workdir.resolve().name))
    alerts = "".join(f"<li>{escape(line)}</li>" for line in warnings(run))
    opening = f"""<h1>Study of {escape(name)}</h1>
<p class="answer">{escape(headline(run))}</p>
{f'<ul class="warnings">{alerts}</ul>' if alerts else ""}
{parts.facts(_facts(run))}"""
    sections = [
        parts.Section("tables", "Tables", "".join(map(parts.table, tables))),
        parts.Section("figures", "Figures", parts.figures(plots)),
        parts.Section("classes", "By class", _classes(classes)),
        parts.Section("ran", "What ran", _ran(run)),
    ]
    return parts.document(f"{name}: study report", opening, sections)


def _facts(run: Run) -> list[tuple[Any, str]]:
    seeds, trained = run.trials["seed"].nunique(), run.plan.get("trained", "–")
    facts: list[tuple[Any, str]] = [
        (f"{len(run.trials)} / {run.planned}", "trials finished"),
        (trained, "trained" if trained == run.planned else "trained, the others read off them"),
        (len(run.plan.get("programs", ())), "compiled programs"),
        (len(run.settings), "settings"),
        (seeds, "seed" if seeds == 1 else "seeds"),
        (run.diverged, "diverged"),
    ]
    stopped = int((run.trials["status"] == "early_stopped").sum())
    return [*facts, (stopped, "stopped early")] if stopped else facts


def _classes(classes: list[Section]) -> str:
    """The best setting of each model; the first stands open."""
    shown = []
    for index, section in enumerate(classes):
        content = "".join(map(parts.table, section.tables))
        content += f'<div class="plots">{"".join(map(parts.figure, section.plots))}</div>'
        opened = "" if index else " open"
        shown.append(f"<details{opened}><summary>{escape(section.title)}</summary>{content}</details>\n")
    return "".join(shown)


def _ran(run: Run) -> str:
    shown = {f"data: {key}": value for key, value in run.data.items()}
    shown |= {f"config: {key}": value for key, value in _flat(run.config)}
    shown |= run.environment
    rows = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(_text(value))}</dd>" for key, value in shown.items()
    )
    return f"<dl>{rows}</dl>"


def _flat(config: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
