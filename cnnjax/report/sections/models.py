"""Each model at its best configuration: its cost and its accuracy."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.analysis.run import Run
from cnnjax.report.sections.measures import draw_error, patches
from cnnjax.report.tables import Table, shown_axes
from cnnjax.report.theme import (
    INK,
    LINES,
    MUTED,
    PAPER,
    SERIES,
    Plot,
    canvas,
    draw_bars,
    keep_in_bounds,
    legend,
    line_handle,
    name_rows,
    render,
    themed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def tables(run: Run) -> list[Table]:
    """The costs of each model, and the accuracy of its best configuration."""
    return [_costs(run)] if run.best_of_models else []


def _costs(run: Run) -> Table:
    best = list(run.best_of_models.values())
    trials = run.ok.groupby("configuration")
    program_of = {member: p for p in run.plan["programs"] for member in p.get("member_ids", ())}
    programs = [program_of.get(member, {}) for member in trials["member"].first().loc[best]]
    frame = run.configurations.loc[best, [*shown_axes(run), "n"]].copy()
    for fact in ("parameters", "forward_flops"):
        frame[fact] = [program.get(fact, math.nan) for program in programs]
    for cost in ("seconds", "images_per_second", "epochs_run", "best_epoch"):
        frame[cost] = trials[cost].mean()
    for split in ("val", "test"):
        frame[f"{split}_accuracy"] = run.configurations[f"{split}_accuracy"]
        frame[f"{split}_accuracy_std"] = trials[f"{split}_accuracy"].std()
    note = (
        f"Each model's best configuration by {run.config['select']}: means over its n seeds. Forward FLOPs: of one "
        "image, counting a multiplication and an addition as two. Seconds: a trial's share of the time of the members "
        "trained together. Images per second: of all these members."
    )
    return Table("models", "Models", note, frame.dropna(axis="columns", how="all"))


@themed
def figures(run: Run) -> Iterator[Plot]:
    """The accuracy of the best configuration of three and more models."""
    if len(run.best_of_models) > 2:
        yield _best_accuracies(run)


def _best_accuracies(run: Run) -> Plot:
    """Draws bars of each model's best configuration."""
    best, values = run.best_of_models, _accuracies(run)
    figure, [[axes]] = canvas(8.6, 0.9 + (0.22 + 0.2 * len(values)) * len(best))
    width, ends = 0.8 / len(values), []
    for index, of_split in enumerate(values.values()):
        for place, of_seeds in enumerate(of_split.values()):
            if not len(of_seeds):
                continue
            y = place + (index - (len(values) - 1) / 2) * width
            mean, std = 100 * of_seeds.mean(), 100 * of_seeds.std(ddof=1) if len(of_seeds) > 1 else np.nan
            draw_bars(axes, y, mean, 0.92 * width, SERIES[index])
            draw_error(axes, mean, y, std, along="x")
            ends += [mean - np.nan_to_num(std), mean + np.nan_to_num(std)]
            beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
            paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
            axes.annotate(f"{mean:.1f}", (ends[-1], y), (5, 0), bbox=paper, **beside)
    first = next(iter(values["test"].values())).mean()
    axes.axvline(100 * first, color=INK, ls=LINES[1], lw=1)
    start = _cut(axes, min(ends), max(ends))
    keep_in_bounds([axes], "test_accuracy", "x")
    name_rows(axes, list(best))
    axes.set_xlabel("Accuracy, %")
    handles = patches(list(values)) if len(values) > 1 else []
    legend(figure, [*handles, line_handle(f"{next(iter(best))}, test", color=INK, ls=LINES[1], lw=1)])
    caption = (
        f"Accuracy of each model's best configuration by {run.config['select']}, mean over seeds; error bars: ± the "
        "standard deviation across seeds."
        + (" Highest validation accuracy: the best of all epochs, so it is optimistic." if len(values) > 1 else "")
        + (f" The axis is cut: it starts at {start} %, so bar lengths are not proportional." if start else "")
    )
    return render(figure, "models_best_accuracy", "Models, each at its best configuration", caption)


def _accuracies(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Returns the accuracies over seeds of each model's best configuration, by split."""
    best = run.best_of_models
    values = {
        "test": {model: np.array(run.values(configuration, "test_accuracy")) for model, configuration in best.items()}
    }
    highest = run.history_of(best.values()).groupby(["configuration", "member"])["val_accuracy"].max().dropna()
    if len(highest):
        by_configuration = {
            configuration: of_seeds.to_numpy() for configuration, of_seeds in highest.groupby("configuration")
        }
        values["highest validation"] = {
            m: by_configuration.get(configuration, np.empty(0)) for m, configuration in best.items()
        }
    return values


def _cut(axes: "Axes", low: float, high: float) -> int:
    """Starts an axis of accuracy at 0, or below `low` with a mark of the cut if 0 is far; returns the start."""
    step = 5 if high - low > 5 else 1
    start = int((low - 0.4 * (high - low)) // step * step)
    if start < 20:
        axes.set_xlim(left=0)
        return 0
    axes.set_xlim(left=start)
    stroke: dict[str, Any] = {"marker": [(-0.5, -1), (0.5, 1)], "ms": 9, "ls": "", "color": MUTED, "mew": 1}
    axes.plot([0.012, 0.02], [0, 0], transform=axes.transAxes, clip_on=False, **stroke)
    return start
