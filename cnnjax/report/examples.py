"""Single examples over the seeds of a setting: who is always wrong, calibration, ensembles, churn between settings."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnjax import examples, stats
from cnnjax.report.colors import setting_color
from cnnjax.report.galleries import draw_galleries
from cnnjax.report.parts import Chapter
from cnnjax.report.run import Run
from cnnjax.report.style import (
    LINES,
    MUTED,
    PAPER,
    SERIES,
    Plot,
    canvas,
    context,
    keep_in_bounds,
    legend,
    line_handle,
    off_zero,
    render,
)
from cnnjax.report.tables import Table, significant

_SETTINGS = 6  # at most
_SEEDS = 64  # of a setting, at most
_FEW = 12  # bars that are all named


class _Contender(NamedTuple):
    """A setting beside others: its seeds' probabilities [S, N, K], and what they say."""

    setting: int
    name: str
    predicted: np.ndarray
    outcomes: examples.Outcomes
    calibration: examples.Calibration
    ensembles: examples.Ensembles

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.predicted)


def make_examples(run: Run) -> list[Chapter]:
    """What the stored predictions of the foremost settings say, that of the headline first; nothing without any."""
    contenders, labels = _read(run)
    if not contenders:
        return []
    best = contenders[0]
    tables = [_summary(contenders)]
    if len(contenders) > 1:
        tables.append(_churn(contenders))
    if best.n > 1 and len(labels) > 1 and not run.crossed:
        tables.append(_spread(contenders, labels))
    with context():
        plots = [_reliability(run, contenders)]
        if best.n > 1:
            plots = [_shares(run, best), *plots, _ensembles(run, contenders)]
        plots += draw_galleries(run, best.setting, best.outcomes, labels, best.n)
    return [Chapter("Examples", tables, plots)]


def _read(run: Run) -> tuple[list[_Contender], np.ndarray]:
    contenders, labels = [], np.empty(0, int)
    for setting, name in run.foremost(_SETTINGS).items():
        predictions = run.predictions(setting)
        if predictions is None:
            continue
        logits, labels = predictions
        probabilities = examples.softmax(np.stack(logits[:_SEEDS]))
        contenders.append(
            _Contender(
                setting,
                name,
                probabilities.argmax(axis=2),
                examples.outcomes(probabilities, labels),
                examples.calibration(probabilities, labels),
                examples.ensembles(probabilities, labels),
            )
        )
    return contenders, labels


def _summary(contenders: list[_Contender]) -> Table:
    rows = []
    for contender in contenders:
        found, sizes = contender.outcomes, contender.ensembles
        shares = {
            kind: len(getattr(found, kind)) / len(found.right)
            for kind in ("always_right", "coin_flips", "always_wrong")
        }
        rows.append(
            {"setting": contender.name, "n": contender.n, "test_accuracy": found.right.mean()}
            | {"ensemble": sizes.mean[-1]}
            | shares
            | {"confidence": found.confidence.mean(), "calibration error": contender.calibration.error}
        )
    note = (
        "From the test predictions of each setting's n seeds. Ensemble: accuracy of the mean of all n seeds' "
        "probabilities. Always right, always wrong: by every seed; coin flips: by a quarter to three quarters of the "
        f"seeds. Confidence: mean probability of the predicted class. Calibration error: expected, in {examples.BINS} "
        "bins of equal width, all seeds pooled (Guo et al. 2017, equation 3)."
    )
    kinds: dict[str, str] = {"setting": "text"}
    kinds |= dict.fromkeys(("ensemble", "always_right", "coin_flips", "always_wrong", "confidence"), "percent")
    kinds["calibration error"] = "percent"
    return Table("examples", "Examples over seeds", note, pd.DataFrame(rows), kinds=kinds)


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
        f"What taking {best.name} (n = {best.n}) instead of another setting changes, in % of the test images. Changed: "
        "predictions that differ, mean over pairs of one seed of each. By seed alone: that differ between two seeds of "
        "the other setting. Gained: from wrong to right; lost: from right to wrong."
    )
    kinds = {"instead of": "text"} | dict.fromkeys(("changed", "by seed alone", "gained", "lost"), "percent")
    return Table("churn", "Churn", note, pd.DataFrame(rows), kinds=kinds)


def _spread(contenders: list[_Contender], labels: np.ndarray) -> Table:
    """How much of the spread over seeds is of these test images alone."""
    rows = []
    for contender in contenders:
        if contender.n > 1:
            found = stats.spread_accuracy(contender.predicted == labels)
            rows.append(
                {"setting": contender.name, "n": contender.n, "std here": found.test_set_std}
                | {"std on all data": found.distribution_std}
                | {"low": found.distribution_low, "high": found.distribution_high}
                | {"std if independent": found.independent_std}
            )
    note = (
        "Standard deviations of test accuracy over n seeds, in points. Here: on this test set. On all data: what would "
        "be left with a test set without end, with its 95 % interval; the rest is which of these images each seed "
        "happens to get right (Jordan, arXiv 2304.01910, theorem 2). If independent: what would be seen here if each "
        "seed erred on each image by itself, though all were equally good."
    )
    kinds = {"setting": "text"} | dict.fromkeys(
        ("std here", "std on all data", "low", "high", "std if independent"), "percent"
    )
    return Table(
        "spread_on_all_data", "Spread on this test set, and on all data", note, pd.DataFrame(rows), kinds=kinds
    )


def _shares(run: Run, best: _Contender) -> Plot:
    figure, [[axes]] = canvas(5.4, 3.6)
    bins = best.n
    counts, _ = np.histogram(best.outcomes.right, (np.arange(bins + 2) - 0.5) / bins)
    percent, seeds = 100 * counts / counts.sum(), np.arange(bins + 1)
    axes.bar(seeds, percent, 0.9, color=PAPER)  # hides the grid
    axes.bar(seeds, percent, 0.9, color=SERIES[0], alpha=0.6)
    for place in seeds if bins <= _FEW else (0, bins):
        text = f"{percent[place]:.1f} %"
        axes.annotate(text, (place, percent[place]), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    if bins <= _FEW:
        axes.set_xticks(seeds)
    else:
        axes.locator_params(axis="x", integer=True)
    axes.set_xlim(-0.5, bins + 0.5)
    axes.set_xlabel(f"how many of the {bins} seeds have an image right")
    axes.set_ylabel("% of the test images")
    axes.grid(False, axis="x")
    axes.margins(y=0.12)
    keep_in_bounds([axes], "test_accuracy")
    caption = (
        f"How many of {best.n} seeds have each test image right, {run.describe(best.setting)}. Left: always wrong; "
        "right: always right; between: the seed decides."
    )
    return render(figure, "examples_by_seeds", "", caption)


def _reliability(run: Run, contenders: list[_Contender]) -> Plot:
    figure, [[axes]] = canvas(5.4, 4.6)
    axes.plot([0, 100], [0, 100], color=MUTED, lw=0.8, ls=LINES[2])
    handles = []
    for contender in contenders:
        found = contender.calibration
        there = found.counts > 0
        look: dict[str, Any] = {"color": setting_color(run, contender.setting), "marker": "o"}
        look |= {"ms": 3.5, "lw": 1.4}
        axes.plot(100 * found.confidence[there], 100 * found.accuracy[there], **look)
        error = significant(100 * found.error)
        handles.append(line_handle(f"{contender.name}: error {error} %, n = {contender.n}", **look))
    best = contenders[0].calibration
    shares = 100 * best.counts / best.counts.sum()
    width = 100 / examples.BINS
    axes.bar((np.arange(len(shares)) + 0.5) * width, shares, 0.9 * width, color=SERIES[0], alpha=0.2)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("confidence (probability of the predicted class), %")
    axes.set_ylabel("accuracy, %")
    legend(figure, handles, columns=1)
    caption = (
        f"Reliability: accuracy against confidence on the test set, in {examples.BINS} bins of equal width, all seeds "
        "pooled; no error bars. On the dotted line confidence is accuracy; below it, the networks are overconfident. "
        f"Bars: % of the predictions in each bin, {contenders[0].name}. Error: the expected calibration error."
    )
    return render(figure, "reliability", "", caption)


def _ensembles(run: Run, contenders: list[_Contender]) -> Plot:
    figure, [[axes]] = canvas(5.4, 4.2)
    handles = []
    for contender in contenders:
        found, colour = contender.ensembles, setting_color(run, contender.setting)
        mean, std = 100 * found.mean, 100 * found.std
        axes.fill_between(found.size, mean - std, mean + std, color=colour, alpha=0.15, lw=0)
        axes.plot(found.size, mean, color=colour, marker="o", ms=3.5)
        handles.append(line_handle(contender.name, color=colour, marker="o", ms=3.5))
    most = max(contender.n for contender in contenders)
    if most > 10:
        axes.set_xscale("log")
        ticks = [size for size in (1, 2, 5, 10, 20, 50) if size <= most]
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.minorticks_off()
    else:
        axes.set_xticks(range(1, most + 1))
    axes.set_xlabel("seeds in the ensemble")
    axes.set_ylabel("Test accuracy, %")
    keep_in_bounds([axes], "test_accuracy")
    legend(figure, handles, columns=1)
    caption = (
        "Accuracy of ensembles, which predict by the mean probabilities of so many seeds: mean over sets of seeds "
        "(all, or 100 drawn at random). Band: ± the standard deviation over these sets, which share seeds; the last "
        f"point is one set.{off_zero([axes])}"
    )
    return render(figure, "ensembles", "", caption)
