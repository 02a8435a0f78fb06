"""A search: its hyperparameters, simple searches beside it, and the expected result of fewer trials."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cnnjax import stats
from cnnjax.analysis.columns import is_argument, larger_is_better, level, measure_label, measure_name, scale, word
from cnnjax.analysis.run import Run
from cnnjax.analysis.search import compare_searches, search_of, searched_columns
from cnnjax.report.labels import shortened
from cnnjax.report.tables import Table, shown_axes
from cnnjax.report.theme import (
    INK,
    MUTED,
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
from cnnjax.study.hparams import BY_COLUMN

_POINTS = 40  # of a line, at most
_PANELS = 9  # at most
_BEST = 10  # configurations
_LONGEST = 12  # characters of a value
_MODELS = len(SERIES)  # at most, one color each


def tables(run: Run) -> list[Table]:
    """The search, and simple searches beside it."""
    found = compare_searches(run)
    if not found:
        return []
    rows = [
        {"search": one.search, "epochs trained": one.epochs, run.select: one.score, "test_accuracy": one.test_accuracy}
        for one in found
    ]
    note = (
        f"What the search found by {measure_name(run.select)}, and what simple searches would have found among its "
        "configurations. Epochs trained: of all members together. Random search: the expected best of as many "
        "configurations as this cost trains to the last epoch; – if that is more than were drawn, or if they were not "
        "drawn at random. All but the best dropped after one epoch: Egele et al. 2024. A configuration that the search "
        "dropped counts with its last values, which more epochs would probably improve. --confirm trains the winner "
        "and the default configuration on fresh seeds."
    )
    kinds = {"search": "text", "epochs trained": "count"}
    return [Table("searches", "The search and simple ones", note, pd.DataFrame(rows), (0,), kinds), _best(run)]


def _best(run: Run) -> Table:
    """The best configurations of a search. Those with more seeds come first: halving gave them for their results."""
    shown = run.configurations.loc[run.ranked[:_BEST], [*shown_axes(run), "n", run.select, "test_accuracy"]]
    frame = shown.loc[:, ~shown.columns.duplicated()]
    frame.insert(0, "place", range(1, len(frame) + 1))
    count = f"The {len(frame)} best of {len(run.ranked)} configurations"
    note = f"{count}, those with the most seeds first; means over n seeds."
    return Table("searched_best", "The best of the search", note, frame, (0,))


@themed
def figures(run: Run) -> Iterator[Plot]:
    """The measure over each searched hyperparameter, and the expected best against the number of trials."""
    columns = [*searched_columns(run)][:_PANELS]
    if columns and len(run.ranked) > 1:
        yield _scatter(run, columns)
    if len(run.ranked) > 1 and not run.crossed and not _is_adaptive(run):
        yield _expected(run)


def _is_adaptive(run: Run) -> bool:
    study = search_of(run)
    return study is not None and study.search.is_adaptive


def _scatter(run: Run, columns: list[str]) -> Plot:
    across = min(len(columns), 3)
    down = -(-len(columns) // across)
    figure, grid = canvas(max(4.6, 2.9 * across), 2.8 * down, across, down, sharey=True)
    panels = [panel for row in grid for panel in row]
    shown = run.configurations.loc[run.ranked]
    values = scale(run.select) * shown[run.select].to_numpy(float)
    longest = (shown["epochs"] == shown["epochs"].max()).to_numpy()
    for panel, column in zip(panels, columns, strict=False):
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in shown[column]):
            places = shown[column].to_numpy(float)
            if searched_columns(run)[column]:
                panel.set_xscale("log")
                panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        else:
            names = [shortened(level(column, value), _LONGEST) for value in shown[column]]
            order = list(dict.fromkeys(names))
            places = np.array([order.index(name) for name in names], float)
            panel.set_xticks(range(len(order)), order)
            panel.margins(x=0.2)
        used = BY_COLUMN[column].optimizers if column in BY_COLUMN else ()
        is_used = shown["optimizer"].isin(used or shown["optimizer"]).to_numpy()
        if is_argument(column):
            is_used &= shown[column].notna().to_numpy()
        for some, color in ((is_used & ~longest, MUTED), (is_used & longest, SERIES[0])):
            panel.plot(places[some], values[some], "o", ms=4, color=color, alpha=0.6, mew=0)
        if is_used[0]:
            panel.plot(places[:1], values[:1], "D", ms=6.5, color=INK)
        panel.set_xlabel(word(column))
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    for row in grid:
        row[0].set_ylabel(measure_label(run.select))
    keep_in_bounds(panels, run.select)
    dropped = " Gray: configurations that trained for fewer epochs than the longest." if not longest.all() else ""
    caption = (
        f"Every configuration of the search: its mean {measure_name(run.select)} over each hyperparameter that the "
        f"search set, if its optimizer uses it. Diamond: the best.{dropped} No error bars."
        f"{off_zero(panels[: len(columns)])}"
    )
    return render(figure, "searched", "Which configuration is best", caption)


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
