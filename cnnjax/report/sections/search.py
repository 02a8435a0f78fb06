"""The expected result of a search of fewer trials: the best of many trials is better than the best of few."""

from collections.abc import Iterator

import numpy as np

from cnnjax import stats
from cnnjax.analysis.columns import larger_is_better, measure_label, measure_name, scale
from cnnjax.analysis.run import Run
from cnnjax.report.tables import Table
from cnnjax.report.theme import (
    INK,
    SERIES,
    Plot,
    canvas,
    keep_in_bounds,
    legend,
    line_handle,
    model_color,
    off_zero,
    render,
    themed,
)

_POINTS = 40  # of a line, at most
_MODELS = len(SERIES)  # at most, one color each


def tables(run: Run) -> list[Table]:
    """A search has no tables."""
    return []


@themed
def figures(run: Run) -> Iterator[Plot]:
    """The expected best against the number of trials, for each model and for all; needs several configurations."""
    if len(run.ranked) > 1 and not run.crossed:
        yield _expected(run)


def _expected(run: Run) -> Plot:
    models = list(dict.fromkeys(run.configurations.loc[run.ranked, "model"]))
    shown = models[:_MODELS] if len(models) > 1 else []
    figure, [[axes]] = canvas(6.4, 3.6)
    lines = [("all", None, INK), *((model, model, model_color(run, model)) for model in shown)]
    most = 1
    for _, model, color in lines:
        numbers, best = expected_bests(run, model)
        most = max(most, int(numbers[-1]))
        axes.plot(numbers, scale(run.select) * best, color=color, lw=1.8, marker="o", ms=3)
    axes.set_xscale("log")
    ticks = [first * 10**zeros for zeros in range(len(str(most))) for first in (1, 2, 5) if first * 10**zeros <= most]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("trials searched")
    keep_in_bounds([axes], run.select)
    axes.set_ylabel(measure_label(run.select))
    if shown:
        legend(figure, [line_handle(label, color=color, lw=1.8) for label, _, color in lines])
    some = f" of the {len(shown)} best models" if len(models) > len(shown) > 0 else ""
    caption = (
        f"Expected best {measure_name(run.select)} of a number of finished trials{some}, drawn without "
        "replacement from those of this study. The best value grows with the number of trials, so compare models at "
        "the same number. "
        f"No error bars.{off_zero([axes])}"
    )
    return render(figure, "search", "Which configuration is best", caption)


def expected_bests(run: Run, model: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of trials and the expected best of each number, among the trials of a model or all trials."""
    configurations = [s for s in run.ranked if model is None or run.configurations.loc[s, "model"] == model]
    values = [
        value
        for configuration in configurations
        for value in run.values(configuration, run.select)
        if np.isfinite(value)
    ]
    numbers = np.unique(np.geomspace(1, len(values), _POINTS).round().astype(int))
    larger = larger_is_better(run.select)
    return numbers, np.array([stats.expected_best(values, int(n), larger_is_better=larger) for n in numbers])
