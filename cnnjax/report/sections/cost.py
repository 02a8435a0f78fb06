"""Training time against accuracy: which configurations are worth their time."""

import textwrap
from collections.abc import Iterator
from typing import Any

import pandas as pd

from cnnjax.analysis.cost import by_configuration
from cnnjax.analysis.run import Run
from cnnjax.report.labels import shortened
from cnnjax.report.tables import Table, shown_axes
from cnnjax.report.theme import (
    INK,
    MUTED,
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

_NAMED = 12  # points of the front with a name, at most
_NAME, _LINE = 84, 46  # characters of a name, and of its lines


def tables(run: Run) -> list[Table]:
    """The configurations of the Pareto front, the cheapest first."""
    found = _costs(run)
    if found is None:
        return []
    front = found[found["is_front"]].sort_values("seconds")
    frame = run.configurations.loc[front.index, [*shown_axes(run), "n"]].join(front.drop(columns="is_front"))
    note = (
        "Configurations of which no other is at least as accurate in less training time. Means over n seeds. Seconds: "
        "a training's share of the time of the members trained together, without compilation. Images: training "
        "images, each counted in each epoch."
    )
    kinds = {"images": "count"}
    return [Table("worth_their_time", "Configurations that are worth their time", note, frame, kinds=kinds)]


@themed
def figures(run: Run) -> Iterator[Plot]:
    """Training time against accuracy, if there are several configurations."""
    found = _costs(run)
    if found is not None:
        yield _time_and_accuracy(run, found)


def _costs(run: Run) -> pd.DataFrame | None:
    if run.ok.empty:
        return None
    found = by_configuration(run)
    return found if len(found) > 1 and (found["seconds"] > 0).all() else None


def _time_and_accuracy(run: Run, found: pd.DataFrame) -> Plot:
    figure, [[axes]] = canvas(8.6, 4.2)
    models = run.configurations["model"].loc[found.index]
    for model in models.unique():
        points = found[models == model]
        look: dict[str, Any] = {"color": model_color(run, model), "mec": "none", "ms": 6, "alpha": 0.65}
        axes.plot(points["seconds"], 100 * points["test_accuracy"], "o", **look)
    front = found[found["is_front"]].sort_values("seconds")
    axes.plot(front["seconds"], 100 * front["test_accuracy"], color=INK, lw=1, drawstyle="steps-post", zorder=1.5)
    axes.plot(front["seconds"], 100 * front["test_accuracy"], "o", ms=8.5, mfc="none", mec=INK)
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.12)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(_two_and_five)
    named = front[-_NAMED:]
    for number, (configuration, seconds, accuracy) in enumerate(
        zip(named.index, named["seconds"], named["test_accuracy"], strict=True), 1
    ):
        axes.annotate(
            str(number), (seconds, 100 * accuracy), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
        lines = textwrap.wrap(f"{number}  {shortened(run.tell_apart(int(configuration)), _NAME)}", _LINE)
        at = 1.03, 1.04 - 0.08 * number
        axes.text(*at, "\n     ".join(lines), transform=axes.transAxes, va="center", fontsize=7.5, color=MUTED)
    keep_in_bounds([axes], "test_accuracy")
    axes.set_xlabel("Seconds of training")
    axes.set_ylabel("Test accuracy, %")
    handles = [line_handle(str(m), color=model_color(run, m), marker="o", ls="") for m in models.unique()]
    legend(figure, [*handles, line_handle("Pareto front", color=INK, lw=1, marker="o", mfc="none", ms=8.5)])
    some = f" Names: its {_NAMED} most accurate." if len(front) > _NAMED else ""
    caption = (
        f"Training time and test accuracy of {len(found)} configurations, means over seeds. Pareto front: no other "
        f"configuration is at least as accurate in less time.{some} Seconds: a training's share of the time of the "
        f"members trained together, on a logarithmic axis, without compilation.{off_zero([axes])}"
    )
    return render(figure, "time_and_accuracy", "Training time against accuracy", caption)


def _two_and_five(value: float, place: float | None) -> str:
    """Returns the label of a tick between powers of ten."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
