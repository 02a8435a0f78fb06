"""The classes: what the best configuration of each model does with each class, from its trials' predictions."""

import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnjax.analysis import metrics
from cnnjax.analysis.run import Run, once_per_run
from cnnjax.report.labels import shortened
from cnnjax.report.tables import Table
from cnnjax.report.theme import (
    INK,
    LINES,
    MUTED,
    PAPER,
    SERIES,
    Plot,
    canvas,
    draw_bars,
    file_name,
    line_handle,
    name_rows,
    render,
    themed,
)
from cnnjax.utils.text import counted, significant

_WHOLE = 6  # configurations, at most, with more than a confusion matrix
_NAMED = 12  # classes, at most, that lines or cells tell apart
_READABLE = 30  # names of classes, at most, along an axis
_LONGEST = 24  # characters of a class's name
_RATES = np.linspace(0, 1, 101) ** 2  # at which curves are averaged: closest where they are steep


class _Results(NamedTuple):
    """A configuration's results for each class.

    Attributes:
        configuration: the configuration.
        name: its name.
        file: the part of file names that stands for it.
        counts: how many images of each true class (rows) are predicted as each class (columns), over all seeds [K, K].
        reports: of each seed; none of configurations that only have a confusion matrix.
        rates: true positive rates of each seed and class at `_RATES` [S, K, R].
        areas: area under the ROC curve of each seed and class [S, K]; NaN where there is none.
        macro_areas: mean area over classes of each seed [S].
    """

    configuration: int
    name: str
    file: str
    counts: np.ndarray
    reports: list[metrics.ClassReport]
    rates: np.ndarray
    areas: np.ndarray
    macro_areas: np.ndarray


@once_per_run
def _results(run: Run) -> list[_Results]:
    """Returns the results of the best configuration of each model, the one of the headline first."""
    found: list[_Results] = []
    for configuration in (s for s in run.ranked if s in run.best_of_models.values()):
        results = run.tested(configuration)
        if not results:
            continue
        counts = np.sum([metrics.confusion(*of_seed) for of_seed in results], axis=0)
        results = results if len(found) < _WHOLE else []
        curves = [metrics.roc(*of_seed) for of_seed in results]
        found.append(
            _Results(
                configuration,
                run.describe(configuration),
                file_name(str(run.configurations.loc[configuration, "model"])),
                counts,
                [metrics.class_report(*of_seed) for of_seed in results],
                np.array([[_rates(curve) for curve in of_seed] for of_seed in curves]),
                np.array([[curve.auc for curve in of_seed] for of_seed in curves]),
                np.array([metrics.macro_auc(of_seed) for of_seed in curves]),
            )
        )
    return found


def _rates(curve: metrics.Roc) -> np.ndarray:
    if not len(curve.false_positive_rate):  # a class without images, or with all of them
        return np.full(len(_RATES), np.nan)
    return np.interp(_RATES, curve.false_positive_rate, curve.true_positive_rate)


def tables(run: Run) -> list[Table]:
    """A classification report and the confusion matrix of each model's best configuration."""
    found = []
    for of in _results(run):
        found += [_report(run, of)] if of.reports else []
        found.append(_counts(run, of))
    return found


@themed
def figures(run: Run) -> Iterator[Plot]:
    """Accuracy by class, ROC curves and the confusion matrix of each model's best configuration."""
    for of in _results(run):
        if of.reports:
            yield _accuracies(run, of)
            yield _roc(run, of)
        yield _confusion(run, of)


def _report(run: Run, of: _Results) -> Table:
    columns: dict[str, Any] = {"class": [*run.classes, "macro mean", "weighted mean"]}
    for position, name in enumerate(("precision", "recall", "f1")):
        of_seeds = [[*getattr(r, name), r.macro[position], r.weighted[position]] for r in of.reports]
        columns |= _over_seeds(name, of_seeds)
    columns |= _over_seeds(
        "auc", [[*areas, macro, np.nan] for areas, macro in zip(of.areas, of.macro_areas, strict=True)]
    )
    support = of.reports[0].support
    columns["support"] = [*support, support.sum(), support.sum()]
    accuracy = np.array([report.accuracy for report in of.reports])
    n = len(accuracy)
    spread = f" ± {significant(100 * accuracy.std(ddof=1))} (std across seeds)" if n > 1 else ""
    note = (
        f"Test accuracy {significant(100 * accuracy.mean())} %{spread}: the weighted mean of recall. "
        f"{f'Means over {n} seeds, std across them' if n > 1 else 'One seed'}. Precision, recall and F1 are those of "
        "the class with the largest logit, 0 where undefined. AUC: area under the ROC curve of the class against "
        "the rest, by softmax probability."
    )
    name = f"classes_{of.file}"
    return Table(name, "Classification report", note, pd.DataFrame(columns), foot=2, group=of.name)


def _counts(run: Run, of: _Results) -> Table:
    frame = pd.DataFrame(of.counts, columns=[f"predicted {name}" for name in run.classes])
    frame.insert(0, "true class", run.classes)
    note = "Test images of each class (rows) that are predicted as each class (columns), summed over seeds."
    kinds = dict.fromkeys(frame, "count") | {"true class": "text"}
    return Table(f"confusion_{of.file}", "Confusion matrix", note, frame, kinds=kinds, group=of.name)


def _over_seeds(name: str, of_seeds: list[list[float]]) -> dict[str, np.ndarray]:
    values = np.array(of_seeds)
    mean = {name: values.mean(axis=0)}
    return mean | {f"{name}_std": values.std(axis=0, ddof=1)} if len(values) > 1 else mean


def _accuracies(run: Run, of: _Results) -> Plot:
    there = of.reports[0].support > 0
    recalls = 100 * np.array([np.where(there, report.recall, np.nan) for report in of.reports])
    places = np.arange(recalls.shape[1])
    figure, [[axes]] = canvas(5.4, 5.4)
    draw_bars(axes, places, recalls.mean(axis=0), 0.75, SERIES[0])
    bars = ""
    if len(recalls) > 1:
        std = recalls.std(axis=0, ddof=1)
        axes.errorbar(recalls.mean(axis=0), places, xerr=std, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2)
        bars = " Error bars: ± the standard deviation across seeds."
    axes.axvline(100 * statistics.fmean(report.accuracy for report in of.reports), color=MUTED, ls=LINES[1], lw=1.2)
    name_rows(axes, _names(run))
    axes.set_xlim(0, 100)
    axes.set_xlabel("Test accuracy within the class, %")
    caption = f"Accuracy by class (its recall), {of.name}.{bars} Dashed: accuracy over all classes."
    return render(figure, f"class_accuracy_{of.file}", of.name, caption)


def _roc(run: Run, of: _Results) -> Plot:
    """Draws the mean curve of each class over seeds.

    References:
        Fawcett (2006), section 8.1: vertical averaging.
    """
    figure, [[axes]] = canvas(5.4, 5.4)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=LINES[2])
    named = len(run.classes) <= _NAMED
    handles, means = [], []
    for label, name in enumerate(run.classes):
        rates = of.rates[:, label]
        if np.isnan(of.areas[0, label]):
            continue
        look = {"color": SERIES[label % len(SERIES)], "ls": LINES[label // len(SERIES)]} if named else {"color": MUTED}
        means.append(rates.mean(axis=0))
        if len(rates) > 1 and named:
            std = rates.std(axis=0, ddof=1)
            edges = np.clip(means[-1] - std, 0, 1), np.clip(means[-1] + std, 0, 1)
            axes.fill_between(_RATES, *edges, color=look["color"], alpha=0.12, lw=0)
        axes.plot([0, *_RATES], [0, *means[-1]], lw=1.2 if named else 0.5, **look)
        if named:
            handles.append(line_handle(f"{shortened(name, _LONGEST)}: {_area(of.areas[:, label])}", **look))
    if means:
        axes.plot([0, *_RATES], [0, *np.mean(means, axis=0)], color=INK, lw=1.6)
        handles.append(line_handle(f"mean of classes: {_area(of.macro_areas)}", color=INK))
    axes.legend(handles=handles, loc="lower right", title="AUC", fontsize=8)
    axes.set_aspect("equal")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    n = len(of.reports)
    averaged = f" Means over {n} seeds at equal false positive rate; bands and ±: their standard deviation."
    caption = f"ROC curve of each class against the rest on the test set, {of.name}.{averaged if n > 1 else ''}"
    return render(figure, f"roc_{of.file}", of.name, caption)


def _area(areas: np.ndarray) -> str:
    return f"{areas.mean():.3f}" + (f" ± {areas.std(ddof=1):.3f}" if len(areas) > 1 else "")


def _confusion(run: Run, of: _Results) -> Plot:
    from matplotlib.colors import to_rgb

    counts = of.counts
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, [[axes]] = canvas(5.4, 5.4)
    classes = len(counts)
    # one color with more or less opacity is readable on light and on dark paper
    cells = np.concatenate([np.broadcast_to(to_rgb(SERIES[0]), (*share.shape, 3)), share[..., None]], -1)
    axes.pcolormesh(cells, rasterized=classes > _READABLE)
    if classes <= _NAMED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = PAPER if share[row, column] > 0.55 else INK
                place: dict[str, Any] = {"color": color, "ha": "center", "in_layout": False}
                percent = f"{100 * share[row, column]:.0f}"
                for dy, text, va, size in ((0.48, percent, "bottom", 7.5), (0.54, count, "top", 5)):
                    axes.text(column + 0.5, row + dy, text, va=va, fontsize=size, **place)
    names = _names(run)
    axes.set_xticks(np.arange(classes) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(classes) + 0.5, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    n = int(run.configurations.loc[of.configuration, "n"])
    caption = (
        f"Confusion on the test set, {of.name}, summed over {counted(n, 'seed')}. Color and upper number: % of "
        "the true class; lower number: count."
    )
    return render(figure, f"confusion_{of.file}", of.name, caption)


def _names(run: Run) -> list[str]:
    """Returns the names of the classes as labels along an axis; empty ones if there are too many to read."""
    return [shortened(name, _LONGEST) if len(run.classes) <= _READABLE else "" for name in run.classes]
