"""Single test images over the seeds of a configuration: outcomes, calibration, ensembles, and churn."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnjax import stats
from cnnjax.analysis import calibration
from cnnjax.analysis.columns import measure_label
from cnnjax.analysis.run import Run, once_per_run
from cnnjax.report.labels import shortened
from cnnjax.report.tables import Table
from cnnjax.report.theme import (
    LINES,
    MUTED,
    SERIES,
    Plot,
    as_rgb,
    canvas,
    configuration_color,
    draw_bars,
    keep_in_bounds,
    legend,
    line_handle,
    off_zero,
    render,
    themed,
)
from cnnjax.utils.text import significant

_CONFIGURATIONS = 6  # at most
_SEEDS = 64  # of a configuration, at most
_FEW = 12  # bars, at most, that all have a number
_COLUMNS, _ROWS = 8, 2  # of a gallery
_LONGEST = 12  # characters of a class's name
_PITCH = 1.62  # from row to row, in heights of an image
_SIZE = 0.93  # inches of an image


class _Contender(NamedTuple):
    """A configuration's predicted classes [S, N] over its seeds, and what follows from their probabilities."""

    configuration: int
    name: str
    predicted: np.ndarray
    labels: np.ndarray
    outcomes: calibration.Outcomes
    calibration: calibration.Calibration
    ensembles: calibration.Ensembles

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.predicted)


@once_per_run
def _contenders(run: Run) -> list[_Contender]:
    """Evaluates the stored predictions of the foremost configurations, the one of the headline first."""
    found = []
    for configuration, name in run.foremost(_CONFIGURATIONS).items():
        predictions = run.predictions(configuration)
        if predictions is None:
            continue
        logits, labels = predictions
        probabilities = calibration.softmax(np.stack(logits[:_SEEDS]))
        found.append(
            _Contender(
                configuration,
                name,
                probabilities.argmax(axis=2),
                labels,
                calibration.outcomes(probabilities, labels),
                calibration.calibration(probabilities, labels),
                calibration.ensembles(probabilities, labels),
            )
        )
    return found


def tables(run: Run) -> list[Table]:
    """Shares of images that are always right or wrong, churn, and the spread on other test sets."""
    contenders = _contenders(run)
    if not contenders:
        return []
    found = [_summary(contenders)]
    if len(contenders) > 1:
        found.append(_churn(contenders))
    if contenders[0].n > 1 and len(contenders[0].labels) > 1 and not run.crossed:
        found.append(_spread(contenders))
    return found


@themed
def figures(run: Run) -> Iterator[Plot]:
    """How many seeds are right about each image, reliability, ensembles, and galleries of images."""
    contenders = _contenders(run)
    if not contenders:
        return
    best = contenders[0]
    if best.n > 1:
        yield _shares(run, best)
    yield _reliability(run, contenders)
    if best.n > 1:
        yield _ensembles(run, contenders)
    if run.images is not None:
        yield from _galleries(run, best, run.images)


def _summary(contenders: list[_Contender]) -> Table:
    rows = []
    for contender in contenders:
        found, sizes = contender.outcomes, contender.ensembles
        kinds = ("always_right", "coin_flips", "always_wrong")
        rows.append(
            {"configuration": contender.name, "n": contender.n, "test_accuracy": found.right.mean()}
            | {"ensemble": sizes.mean[-1]}
            | {kind: len(getattr(found, kind)) / len(found.right) for kind in kinds}
            | {"confidence": found.confidence.mean(), "calibration error": contender.calibration.error}
        )
    note = (
        "From the test predictions of each configuration's n seeds. Ensemble: accuracy of the mean of all n seeds' "
        "probabilities. Always right, always wrong: by every seed; coin flips: by a quarter to three quarters of the "
        f"seeds. Confidence: mean probability of the predicted class. Calibration error: the expected one, in "
        f"{calibration.BINS} bins of equal width, all seeds pooled (Guo et al. 2017, equation 3)."
    )
    percent = ("ensemble", "always_right", "coin_flips", "always_wrong", "confidence", "calibration error")
    return Table("examples", "Examples over seeds", note, pd.DataFrame(rows), kinds=dict.fromkeys(percent, "percent"))


def _churn(contenders: list[_Contender]) -> Table:
    best, *others = contenders
    rows: list[dict[str, Any]] = []
    for other in others:
        found = stats.churn(other.predicted, best.predicted)
        wrong, right = 1 - other.outcomes.right, best.outcomes.right
        rows.append(
            {"instead of": other.name, "n": other.n, "changed": found.between, "by seed alone": found.within_a}
            | {"gained": (wrong * right).mean(), "lost": ((1 - wrong) * (1 - right)).mean()}
        )
    note = (
        f"The effect of choosing {best.name} (n = {best.n}) instead of another configuration, in % of the test images. "
        "Changed: predictions that differ, mean over pairs of one seed of each. By seed alone: predictions that differ "
        "between two seeds of the other configuration. Gained: from wrong to right; lost: from right to wrong."
    )
    kinds = dict.fromkeys(("changed", "by seed alone", "gained", "lost"), "percent")
    return Table("churn", "Churn", note, pd.DataFrame(rows), kinds=kinds)


def _spread(contenders: list[_Contender]) -> Table:
    rows = []
    for contender in contenders:
        if contender.n > 1:
            found = stats.spread_accuracy(contender.predicted == contender.labels)
            rows.append(
                {"configuration": contender.name, "n": contender.n, "std here": found.test_set_std}
                | {"std on all data": found.distribution_std}
                | {"low": found.distribution_low, "high": found.distribution_high}
                | {"std if independent": found.independent_std}
            )
    note = (
        "Standard deviations of test accuracy over n seeds, in points. Here: on this test set. On all data: on an "
        "infinite test set, with its 95 % interval; the rest of the spread is chance in which of these images each "
        "seed gets right (Jordan, arXiv 2304.01910, theorem 2). If independent: on this test set, if the seeds were "
        "equally good and their errors independent."
    )
    kinds = dict.fromkeys(("std here", "std on all data", "low", "high", "std if independent"), "percent")
    title = "Spread on this test set, and on all data"
    return Table("spread_on_all_data", title, note, pd.DataFrame(rows), kinds=kinds)


def _shares(run: Run, best: _Contender) -> Plot:
    figure, [[axes]] = canvas(5.4, 3.6)
    bins = best.n
    counts, _ = np.histogram(best.outcomes.right, (np.arange(bins + 2) - 0.5) / bins)
    percent, seeds = 100 * counts / counts.sum(), np.arange(bins + 1)
    draw_bars(axes, seeds, percent, 0.9, SERIES[0], upright=True)
    for place in seeds if bins <= _FEW else (0, bins):
        text = f"{percent[place]:.1f} %"
        axes.annotate(text, (place, percent[place]), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    if bins <= _FEW:
        axes.set_xticks(seeds)
    else:
        axes.locator_params(axis="x", integer=True)
    axes.set_xlim(-0.5, bins + 0.5)
    axes.set_xlabel(f"number of seeds, of {bins}, that are right")
    axes.set_ylabel("% of the test images")
    axes.grid(False, axis="x")
    axes.margins(y=0.12)
    keep_in_bounds([axes], "test_accuracy")
    caption = (
        f"How many of {best.n} seeds classify each test image correctly, {run.describe(best.configuration)}. Left: "
        "always wrong; right: always right; between: the seed decides."
    )
    return render(figure, "examples_by_seeds", "", caption)


def _reliability(run: Run, contenders: list[_Contender]) -> Plot:
    figure, [[axes]] = canvas(5.4, 4.6)
    axes.plot([0, 100], [0, 100], color=MUTED, lw=0.8, ls=LINES[2])
    handles = []
    for contender in contenders:
        found = contender.calibration
        there = found.counts > 0
        look: dict[str, Any] = {"color": configuration_color(run, contender.configuration), "marker": "o"}
        look |= {"ms": 3.5, "lw": 1.4}
        axes.plot(100 * found.confidence[there], 100 * found.accuracy[there], **look)
        error = significant(100 * found.error)
        handles.append(line_handle(f"{contender.name}: error {error} %, n = {contender.n}", **look))
    best = contenders[0].calibration
    shares = 100 * best.counts / best.counts.sum()
    width = 100 / calibration.BINS
    axes.bar((np.arange(len(shares)) + 0.5) * width, shares, 0.9 * width, color=SERIES[0], alpha=0.2)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("confidence (probability of the predicted class), %")
    axes.set_ylabel("accuracy, %")
    legend(figure, handles, columns=1)
    caption = (
        f"Reliability: accuracy against confidence on the test set, in {calibration.BINS} bins of equal width, all "
        "seeds pooled; no error bars. On the dotted line confidence equals accuracy; below it, the networks are "
        f"overconfident. Bars: % of predictions in each bin, {contenders[0].name}. Error: expected calibration error."
    )
    return render(figure, "reliability", "", caption)


def _ensembles(run: Run, contenders: list[_Contender]) -> Plot:
    figure, [[axes]] = canvas(5.4, 4.2)
    handles = []
    for contender in contenders:
        found, color = contender.ensembles, configuration_color(run, contender.configuration)
        mean, std = 100 * found.mean, 100 * found.std
        axes.fill_between(found.size, mean - std, mean + std, color=color, alpha=0.15, lw=0)
        axes.plot(found.size, mean, color=color, marker="o", ms=3.5)
        handles.append(line_handle(contender.name, color=color, marker="o", ms=3.5))
    most = max(contender.n for contender in contenders)
    if most > 10:
        axes.set_xscale("log")
        ticks = [size for size in (1, 2, 5, 10, 20, 50) if size <= most]
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.minorticks_off()
    else:
        axes.set_xticks(range(1, most + 1))
    axes.set_xlabel("seeds in the ensemble")
    axes.set_ylabel(measure_label("test_accuracy"))
    keep_in_bounds([axes], "test_accuracy")
    legend(figure, handles, columns=1)
    caption = (
        "Accuracy of ensembles, which predict by the mean probabilities of their seeds: mean over sets of seeds (all, "
        "or 100 drawn at random). Band: ± the standard deviation over these sets, which share seeds; the last point is "
        f"one set.{off_zero([axes])}"
    )
    return render(figure, "ensembles", "", caption)


def _galleries(run: Run, best: _Contender, images: np.ndarray) -> Iterator[Plot]:
    """Draws images that some seeds classify correctly, that none does, and that all do with the least confidence."""
    kinds = (
        ("coin_flips", "Coin flips", "25 to 75 % of the seeds classify", "nearest to 50 %"),
        ("always_wrong", "Always wrong", "no seed classifies", "most confident"),
        ("always_right", "Barely right", "every seed classifies", "least confident"),
    )
    total = len(best.labels)
    for kind, title, what, first in kinds:
        chosen = getattr(best.outcomes, kind)
        shown = chosen[chosen < len(images)][: _COLUMNS * _ROWS]
        if not len(shown):
            continue
        some = f", of the first {len(images):,}" if len(images) < total else ""
        caption = (
            f"{title}: {len(chosen):,} of {total:,} test images ({100 * len(chosen) / total:.1f} %) that {what} "
            f"correctly, {run.describe(best.configuration)}. Shown{some}: the {first}. Above: the true class; below: "
            "the class predicted most often, and the share of seeds that are right."
        )
        yield _gallery(run, best, images[shown], shown, f"examples_{kind}", caption)


def _gallery(run: Run, best: _Contender, images: np.ndarray, shown: np.ndarray, name: str, caption: str) -> Plot:
    rows = -(-len(shown) // _COLUMNS)
    height, width = images.shape[1:3]
    edge = max(height, width)
    figure, [[axes]] = canvas(_SIZE * 1.08 * _COLUMNS, _SIZE * _PITCH * rows)
    for place, example in enumerate(shown):
        row, column = divmod(place, _COLUMNS)
        left, top = 1.08 * column, _PITCH * row
        axes.imshow(
            as_rgb(images[place]), extent=(left, left + width / edge, top + height / edge, top), interpolation="none"
        )
        middle = left + width / edge / 2
        text: dict[str, Any] = {"ha": "center", "fontsize": 6.8, "in_layout": False}
        axes.text(middle, top - 0.05, shortened(run.classes[best.labels[example]], _LONGEST), va="bottom", **text)
        guess = shortened(run.classes[best.outcomes.predicted[example]], _LONGEST)
        predicted = f"{guess}\n{100 * best.outcomes.right[example]:.0f} % right"
        axes.text(middle, top + height / edge + 0.05, predicted, va="top", color=MUTED, **text)
    axes.set_xlim(0, 1.08 * _COLUMNS - 0.08)
    axes.set_ylim(_PITCH * rows - 0.3, -0.32)
    axes.set_axis_off()
    return render(figure, name, "", caption)
