"""What each model's best setting does with each class, from its trials' predictions."""

import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cnnjax import metrics
from cnnjax.report.lettering import shortened
from cnnjax.report.parts import Chapter
from cnnjax.report.run import Run
from cnnjax.report.style import INK, LINES, MUTED, PAPER, SERIES, Plot, canvas, context, file_name, line_handle, render
from cnnjax.report.tables import Table, significant
from cnnjax.types import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHAPTERS = 6  # that hold more than a confusion matrix
_NAMED = 12  # classes, at most, that lines or cells are told apart for
_LONGEST = 24  # letters of a class's name
_RATES = np.linspace(0, 1, 101) ** 2  # where curves are averaged: closest where they are steep


class _Seeds(NamedTuple):
    """What each seed's predictions say: a report, and a curve per class."""

    reports: list[metrics.ClassReport]
    curves: list[list[metrics.Roc]]


def make_classes(run: Run) -> list[Chapter]:
    """Each model's best setting, the one that the headline names first; the first six with every measure."""
    chapters: list[Chapter] = []
    with context():
        for setting in (s for s in run.ranked if s in run.best_of_models.values()):
            predictions = run.predictions(setting)
            if predictions is not None:
                chapters.append(_chapter(run, setting, *predictions, whole=len(chapters) < _CHAPTERS))
    return chapters


def _chapter(run: Run, setting: int, logits: list[np.ndarray], labels: np.ndarray, whole: bool) -> Chapter:
    tables, plots = [], []
    if whole:
        seeds = _Seeds(
            [metrics.class_report(of_seed, labels) for of_seed in logits],
            [metrics.roc(of_seed, labels) for of_seed in logits],
        )
        tables.append(_table(run, setting, seeds))
        plots += [_accuracies(run, setting, seeds), _roc(run, setting, seeds)]
    counts = np.sum([metrics.confusion(of_seed, labels) for of_seed in logits], axis=0)
    plots.append(_confusion(run, setting, counts))
    tables.append(_counts(run, setting, counts))
    return Chapter(run.describe(setting), tables, plots)


def _table(run: Run, setting: int, seeds: _Seeds) -> Table:
    columns: dict[str, Any] = {"class": [*run.classes, "macro mean", "weighted mean"]}
    for position, name in enumerate(("precision", "recall", "f1")):
        of_seeds = [[*getattr(r, name), r.macro[position], r.weighted[position]] for r in seeds.reports]
        columns |= _over_seeds(name, of_seeds)
    areas = [[*(curve.auc for curve in curves), metrics.macro_auc(curves), np.nan] for curves in seeds.curves]
    columns |= _over_seeds("auc", areas)
    support = seeds.reports[0].support
    columns["support"] = [*support, support.sum(), support.sum()]
    accuracy = np.array([report.accuracy for report in seeds.reports])
    spread = f" ± {significant(100 * accuracy.std(ddof=1))} (std across seeds)" if len(accuracy) > 1 else ""
    note = (
        f"Test accuracy {significant(100 * accuracy.mean())} %{spread}: the weighted mean of recall. {_means(seeds)} "
        "Precision, recall and F1 of the class with the largest logit, 0 where they are undefined; AUC: area under "
        "the ROC curve of the class against the rest, by softmax probability."
    )
    return Table(f"classes_{_file(run, setting)}", "Classification report", note, pd.DataFrame(columns), foot=2)


def _counts(run: Run, setting: int, counts: np.ndarray) -> Table:
    frame = pd.DataFrame(counts, columns=[f"predicted {name}" for name in run.classes])
    frame.insert(0, "true class", run.classes)
    note = "Test images of each class (rows) that are predicted as each class (columns), summed over seeds."
    kinds = dict.fromkeys(frame, "count") | {"true class": "text"}
    return Table(f"confusion_{_file(run, setting)}", "Confusion matrix", note, frame, kinds=kinds)


def _over_seeds(name: str, of_seeds: list[list[float]]) -> dict[str, np.ndarray]:
    values = np.array(of_seeds)
    mean = {name: values.mean(axis=0)}
    return mean | {f"{name}_std": values.std(axis=0, ddof=1)} if len(values) > 1 else mean


def _means(seeds: _Seeds) -> str:
    n = len(seeds.reports)
    return f"Means over {n} seeds, std across them." if n > 1 else "One seed."


def _accuracies(run: Run, setting: int, seeds: _Seeds) -> Plot:
    there = seeds.reports[0].support > 0
    recalls = 100 * np.array([np.where(there, report.recall, np.nan) for report in seeds.reports])
    accuracy = 100 * statistics.fmean([report.accuracy for report in seeds.reports])
    classes = recalls.shape[1]
    figure, [[axes]] = canvas(5.4, 5.4)
    places = np.arange(classes)
    axes.barh(places, recalls.mean(axis=0), 0.75, color=PAPER)  # hides the grid
    axes.barh(places, recalls.mean(axis=0), 0.75, color=SERIES[0], alpha=0.6)
    bars = ""
    if len(recalls) > 1:
        std = recalls.std(axis=0, ddof=1)
        axes.errorbar(recalls.mean(axis=0), places, xerr=std, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2)
        bars = " Error bars: ± the standard deviation across seeds."
    axes.axvline(accuracy, color=MUTED, ls=LINES[1], lw=1.2)
    axes.set_yticks(places, _names(run) if classes <= 30 else [""] * classes)
    axes.set_xlim(0, 100)
    axes.set_ylim(classes - 0.4, -0.6)
    axes.set_xlabel("Test accuracy within the class, %")
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    caption = f"Accuracy by class (its recall), {run.describe(setting)}.{bars} Dashed: accuracy over all classes."
    return render(figure, f"class_accuracy_{_file(run, setting)}", "", caption)


def _roc(run: Run, setting: int, seeds: _Seeds) -> Plot:
    figure, [[axes]] = canvas(5.4, 5.4)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=LINES[2])
    named = len(run.classes) <= _NAMED
    handles = []
    means = []
    for label, name in enumerate(_names(run)):
        of_class = [curves[label] for curves in seeds.curves]
        if np.isnan(of_class[0].auc):
            continue
        look = {"color": SERIES[label % len(SERIES)], "ls": LINES[label // len(SERIES)]} if named else {"color": MUTED}
        means.append(_mean_curve(axes, of_class, band=named, **look))
        if named:
            handles.append(line_handle(f"{name}: {_area([c.auc for c in of_class])}", **look))
    if means:
        axes.plot([0, *_RATES], [0, *np.mean(means, axis=0)], color=INK, lw=1.6)
        areas = [metrics.macro_auc(curves) for curves in seeds.curves]
        handles.append(line_handle(f"mean of classes: {_area(areas)}", color=INK))
    axes.legend(handles=handles, loc="lower right", title="AUC", fontsize=8)
    axes.set_aspect("equal")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    averaged = (
        f" Means over {len(seeds.curves)} seeds at equal false positive rate; bands and ±: their standard deviation."
        if len(seeds.curves) > 1
        else ""
    )
    caption = f"ROC curve of each class against the rest on the test set, {run.describe(setting)}.{averaged}"
    return render(figure, f"roc_{_file(run, setting)}", "", caption)


def _mean_curve(axes: "Axes", curves: list[metrics.Roc], band: bool, **look: Any) -> np.ndarray:
    """Draws the mean true positive rate over seeds; returns it at `_RATES`.

    References:
        Fawcett (2006), section 8.1: vertical averaging.
    """
    rates = np.array([np.interp(_RATES, curve.false_positive_rate, curve.true_positive_rate) for curve in curves])
    mean = rates.mean(axis=0)
    if len(rates) > 1 and band:
        std = rates.std(axis=0, ddof=1)
        edges = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
        axes.fill_between(_RATES, *edges, color=look["color"], alpha=0.12, lw=0)
    axes.plot([0, *_RATES], [0, *mean], lw=1.2 if band else 0.5, **look)
    return mean


def _area(areas: list[float]) -> str:
    return f"{np.mean(areas):.3f}" + (f" ± {np.std(areas, ddof=1):.3f}" if len(areas) > 1 else "")


def _confusion(run: Run, setting: int, counts: np.ndarray) -> Plot:
    from matplotlib.colors import to_rgb

    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)
    figure, [[axes]] = canvas(5.4, 5.4)
    classes = len(counts)
    # one colour, more or less of it: readable on light and on dark paper
    cells = np.concatenate([np.broadcast_to(to_rgb(SERIES[0]), (*share.shape, 3)), share[..., None]], -1)
    axes.pcolormesh(cells, rasterized=classes > 30)
    if classes <= _NAMED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = PAPER if share[row, column] > 0.55 else INK
                place: dict[str, Any] = {"color": colour, "ha": "center", "in_layout": False}
                percent = f"{100 * share[row, column]:.0f}"
                for dy, text, va, size in ((0.48, percent, "bottom", 7.5), (0.54, count, "top", 5)):
                    axes.text(column + 0.5, row + dy, text, va=va, fontsize=size, **place)
    names = _names(run) if classes <= 30 else [""] * classes  # more cannot be read
    axes.set_xticks(np.arange(classes) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(classes) + 0.5, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    n = int(run.settings.loc[setting, "n"])
    caption = (
        f"Confusion on the test set, {run.describe(setting)}, summed over "
        f"{counted(n, 'seed')}. Colour and upper figure: % of the true class; lower figure: count."
    )
    return render(figure, f"confusion_{_file(run, setting)}", "", caption)


def _names(run: Run) -> list[str]:
    return [shortened(name, _LONGEST) for name in run.classes]


def _file(run: Run, setting: int) -> str:
    return file_name(str(run.settings.loc[setting, "model"]))
