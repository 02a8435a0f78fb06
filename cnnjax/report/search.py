"""What a search of fewer trials would have found: the best of many is better than the best of few, of any model."""

from collections.abc import Iterator

import numpy as np

from cnnjax import stats
from cnnjax.report.colors import model_color
from cnnjax.report.names import larger_is_better, measure_name, scale
from cnnjax.report.run import Run
from cnnjax.report.style import (
    INK,
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

_POINTS = 40  # of a line, at most
_MODELS = len(SERIES)  # more are not told apart


def draw_search(run: Run) -> Iterator[Plot]:
    """The expected best of so many trials, for each model and of all, where settings were searched."""
    if len(run.ranked) > 1 and not run.crossed:
        with context():
            yield _expected(run)


def _expected(run: Run) -> Plot:
    models = list(dict.fromkeys(run.settings.loc[run.ranked, "model"]))
    shown = models[:_MODELS] if len(models) > 1 else []
    unit = scale(run.select)
    figure, [[axes]] = canvas(6.4, 3.6)
    lines = [("all", None, INK), *((model, model, model_color(run, model)) for model in shown)]
    most = 1
    for _, model, colour in lines:
        numbers, best = expected_bests(run, model)
        most = max(most, int(numbers[-1]))
        axes.plot(numbers, unit * best, color=colour, lw=1.8, marker="o", ms=3)
    axes.set_xscale("log")
    ticks = [first * 10**zeros for zeros in range(len(str(most))) for first in (1, 2, 5) if first * 10**zeros <= most]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("trials searched")
    keep_in_bounds([axes], run.select)
    name = measure_name(run.select)
    axes.set_ylabel(f"{name[0].upper()}{name[1:]}{', %' if unit == 100 else ''}")
    if shown:
        legend(figure, [line_handle(label, color=colour, lw=1.8) for label, _, colour in lines])
    some = f" of the {len(shown)} best models" if len(models) > len(shown) > 0 else ""
    caption = (
        f"Expected best {name} of so many finished trials{some}, drawn from those of this study without replacement: "
        "what is reported as the best grows with the number tried, so models are compared at one number of trials. "
        f"No error bars.{off_zero([axes])}"
    )
    return render(figure, "search", "Which setting is best", caption)


def expected_bests(run: Run, model: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of trials, and the expected best of so many of a model's trials, or of all."""
    settings = [s for s in run.ranked if model is None or run.settings.loc[s, "model"] == model]
    values = [value for setting in settings for value in run.values(setting, run.select) if np.isfinite(value)]
    numbers = np.unique(np.geomspace(1, len(values), _POINTS).round().astype(int))
    larger = larger_is_better(run.select)
    return numbers, np.array([stats.expected_best(values, int(n), larger_is_better=larger) for n in numbers])
