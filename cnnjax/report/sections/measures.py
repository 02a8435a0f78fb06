"""Final measures of all configurations, by model, optimizer and other axes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cnnjax import stats
from cnnjax.analysis.chance import stuck_by_configuration
from cnnjax.analysis.columns import larger_is_better, measure_label, measure_name, scale, word
from cnnjax.analysis.run import Run
from cnnjax.report.labels import legend_label, shortened
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
    model_color,
    off_zero,
    render,
    themed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SEEDS_BAR = "the standard deviation across seeds within one configuration, pooled over the configurations averaged"
_NO_BARS = "no error bars: no configuration has two seeds, so the spread across seeds is unknown"
_NO_BAND = _NO_BARS.replace("error bars", "band").capitalize()


def scores(run: Run) -> list[str]:
    """Returns the recorded measures of the test split of which larger values are better."""
    return [measure for measure in _of_test(run) if larger_is_better(measure)]


def _of_test(run: Run) -> list[str]:
    return [measure for measure in run.measures if measure.startswith("test_") and run.ok[measure].notna().any()]


def tables(run: Run) -> list[Table]:
    """The best trials, means by model and optimizer, and all configurations."""
    if not len(run.ok):
        return []
    found = [_best_trials(run)] if len(run.ok) > 1 else []
    if _has_groups(run):
        found.append(_by_model_and_optimizer(run))
    configurations = _configurations(run)
    if len(configurations.frame) > 5:
        found.append(_top(run, configurations.frame))
    return [*found, configurations]


def _has_groups(run: Run) -> bool:
    return len(run.ok[["model", "optimizer"]].drop_duplicates()) > 1


def group_means(run: Run, by: list[str], measure: str) -> pd.DataFrame:
    """Groups configurations by axes, and computes means and two separate spreads of a measure.

    Returns:
        The groups as index, with `mean` (of the configurations' means), `configuration_std` (standard deviation of the
        configurations' means: the effect of hyperparameters), `seed_std` (standard deviation over seeds, pooled within
        configurations), `configurations` and `trials` (their numbers).
    """
    finished = run.configurations[run.configurations["n"] > 0]
    rows = {}
    for key, group in finished.groupby(by, sort=False, dropna=False):
        rows[key] = {
            "mean": group[measure].mean(),
            "configuration_std": group[measure].std(),
            "seed_std": run.seed_std(group.index.tolist(), measure),
            "configurations": len(group),
            "trials": int(group["n"].sum()),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=by)
    return frame


def _best_trials(run: Run) -> Table:
    winners = [run.ok["test_accuracy"].idxmax(), run.ok["test_f1"].idxmax()]
    columns = ["trial", *shown_axes(run), "seed", *scores(run)]
    frame = run.ok.loc[winners, columns].reset_index(drop=True)
    frame.insert(0, "best by", ["test accuracy", "test F1"])
    note = (
        "The luckiest single trials. They are selected by the test set, so their values are optimistic; the headline "
        "names the configuration to choose."
    )
    return Table("best_trials", "Best trials", note, frame)


def _by_model_and_optimizer(run: Run) -> Table:
    by = ["model", "optimizer"]
    groups = {measure: group_means(run, by, measure) for measure in scores(run)}
    frame = groups["test_f1"][["configurations", "trials"]].copy()
    frame.insert(1, "seeds", run.ok.groupby(by)["seed"].nunique())
    for measure, group in groups.items():
        frame[measure] = group["mean"]
        if measure in ("test_accuracy", "test_f1"):
            frame[f"{measure}_seed_std"] = group["seed_std"]
            frame[f"{measure}_configuration_std"] = group["configuration_std"]
    frame = frame.sort_values("test_f1", ascending=False).reset_index()
    note = (
        "Means of the configurations' means (test set), sorted by F1. std, seeds: standard deviation across seeds "
        "within one configuration, pooled (chance). std, configurations: standard deviation of the configurations' "
        "means (hyperparameters)."
    )
    return Table("by_model_and_optimizer", "By model and optimizer", note, frame, (0,))


def _top(run: Run, configurations: pd.DataFrame) -> Table:
    ranked = configurations.sort_values("test_f1", ascending=False).head(5)
    shown = [*shown_axes(run), "n", "test_f1", "test_f1_half", "test_accuracy", "test_accuracy_half"]
    note = (
        "Mean over n seeds ± half the 95 % t interval of the mean. Ranked by the test set: this describes the "
        "study, and is no basis for a selection."
    )
    return Table("top_5_by_f1", "Top 5 configurations by F1", note, ranked[shown])


def _configurations(run: Run) -> Table:
    """Returns every configuration, the best by the study's measure first."""
    configurations = run.configurations
    frame = configurations[[*shown_axes(run), "n", "diverged"]].copy()
    if stuck := stuck_by_configuration(run):
        frame["stuck"] = pd.Series(stuck).reindex(frame.index, fill_value=0)
    for split in ("train", "val"):
        if configurations[f"{split}_accuracy"].notna().any():
            frame[f"{split}_accuracy"] = configurations[f"{split}_accuracy"]
            frame[f"{split}_loss"] = configurations[f"{split}_loss"]
    losses = [measure for measure in _of_test(run) if not larger_is_better(measure)]
    frame[losses] = configurations[losses]
    for measure in scores(run):
        frame[measure] = configurations[measure]
        if measure in ("test_accuracy", "test_f1"):
            values = {configuration: run.values(configuration, measure) for configuration in configurations.index}
            summaries = {
                configuration: stats.summarize(of_seeds) for configuration, of_seeds in values.items() if of_seeds
            }
            frame[f"{measure}_std"] = pd.Series({s: one.std for s, one in summaries.items()}, dtype=float)
            frame[f"{measure}_half"] = pd.Series(
                {s: (one.high - one.low) / 2 for s, one in summaries.items()}, dtype=float
            )
    ascending = not larger_is_better(run.select)
    order = configurations[run.select].sort_values(ascending=ascending, kind="stable").index
    note = (
        f"Means over n seeds, sorted by {run.config['select']}; std across seeds, and ± half the 95 % t interval of "
        "the mean. The configuration of the headline is highlighted."
    )
    note += " Stuck: seeds that never left chance." if stuck else ""
    marked = () if run.best is None else (order.get_loc(run.best),)
    return Table("configurations", "Every configuration", note, frame.loc[order], marked)


@themed
def figures(run: Run) -> Iterator[Plot]:
    """The measures by model and optimizer, learning rate and epochs, of those that take several values."""
    if _has_groups(run):
        for measure in scores(run):
            yield _bars(run, measure)
    if run.ok["learning_rate"].nunique() > 1:
        yield _by_learning_rate(run)
    if run.ok["epochs"].nunique() > 1:
        yield _by_epochs(run)


def _bars(run: Run, measure: str) -> Plot:
    means = group_means(run, ["model", "optimizer"], measure)
    models = list(dict.fromkeys(run.configurations["model"]))
    optimizers = list(dict.fromkeys(run.configurations["optimizer"]))
    unit, width = scale(measure), 0.8 / len(optimizers)
    figure, [[axes]] = canvas(min(11, max(4.6, 0.9 + 0.75 * len(models) * len(optimizers))), 3.5)
    for (model, optimizer), row in means.iterrows():
        at = optimizers.index(optimizer)
        x = models.index(model) + (at - (len(optimizers) - 1) / 2) * width
        draw_bars(axes, x, unit * row["mean"], 0.92 * width, SERIES[at % len(SERIES)], upright=True)
        here = (run.configurations["model"] == model) & (run.configurations["optimizer"] == optimizer)
        points = unit * run.configurations.loc[here, measure].dropna()
        # beside the error bar, spread sideways so that they do not overlap
        beside = x + width * (0.2 + 0.2 * (np.arange(len(points)) % 5) / 4)
        axes.plot(beside, points, "o", ms=4, color=SERIES[at % len(SERIES)], mec=PAPER, mew=0.4)
        draw_error(axes, x - 0.12 * width, unit * row["mean"], unit * row["seed_std"])
    names = [shortened(model, 24) for model in models]
    is_long = len(models) > 6 or max(map(len, names)) > 16
    slant: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
    axes.set_xticks(range(len(models)), names, **slant)
    axes.set_ylabel(measure_label(measure))
    axes.grid(False, axis="x")
    axes.set_ylim(bottom=0)
    keep_in_bounds([axes], measure)
    has_bars = bool(means["seed_std"].notna().any())
    handles = patches(optimizers)
    handles.append(line_handle("one configuration", color=MUTED, marker="o", ms=3.5, ls=""))
    if has_bars:
        handles.append(line_handle("± std across seeds", color=INK, lw=1.4))
    legend(figure, handles)
    bars = f"Error bars: ± {_SEEDS_BAR}" if has_bars else _NO_BARS.capitalize()
    name = measure_name(measure)
    caption = (
        f"{name[0].upper()}{name[1:]} by model and optimizer. Bars: mean of the configurations' means. {bars}. Points: "
        "one per configuration, its mean over seeds: they spread by hyperparameters, not by chance."
    )
    return render(figure, f"bars_{measure}", "Measures by model and optimizer", caption)


def draw_error(axes: "Axes", x: Any, y: Any, std: Any, along: str = "y") -> None:
    """Draws an error bar, if the standard deviation is known."""
    if np.isfinite(std):
        axes.errorbar(x, y, **{f"{along}err": std}, fmt="none", ecolor=INK, elinewidth=1.4, capsize=3)


def patches(names: list[str]) -> list[Any]:
    """Returns legend entries of bars."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=SERIES[i % len(SERIES)], alpha=0.6, label=legend_label(name)) for i, name in enumerate(names)
    ]


def _by_learning_rate(run: Run) -> Plot:
    models = list(dict.fromkeys(run.configurations["model"]))
    by = ["model", "optimizer", "batch_size", "learning_rate"]
    means = group_means(run, by, "test_f1").reset_index()
    optimizers, batches = list(dict.fromkeys(means["optimizer"])), sorted(set(means["batch_size"]))
    rates = sorted(set(means["learning_rate"]))
    figure, panels = _panels(len(models), 3.1)
    for axes, model in zip(panels, models, strict=False):
        for (optimizer, batch), line in means[means["model"] == model].groupby(["optimizer", "batch_size"]):
            line = line.sort_values("learning_rate")
            look: dict[str, Any] = {"color": SERIES[optimizers.index(optimizer) % len(SERIES)]}
            x, y, std = line["learning_rate"], line["mean"], line["seed_std"]
            axes.plot(x, y, ls=LINES[batches.index(batch) % len(LINES)], marker="o", **look)
            axes.fill_between(x, y - std, y + std, alpha=0.15, lw=0, **look)
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set_xlabel("learning rate")
        axes.set_title(shortened(model, 32))
    panels[0].set_ylabel(measure_label("test_f1"))
    keep_in_bounds(panels, "test_f1")
    handles = [line_handle(o, color=SERIES[i % len(SERIES)]) for i, o in enumerate(optimizers)]
    if len(batches) > 1:
        handles += [
            line_handle(f"batch size {b}", color=MUTED, ls=LINES[i % len(LINES)]) for i, b in enumerate(batches)
        ]
    legend(figure, handles)
    over = [word(axis) for axis in run.varying if axis not in by]
    averaged = f" Means over {', '.join(over)}." if over else ""
    band = f"Band: ± {_SEEDS_BAR}" if means["seed_std"].notna().any() else _NO_BAND
    caption = f"Test macro F1 against the learning rate.{averaged} {band}.{off_zero(panels[:1])}"
    return render(figure, "f1_by_learning_rate", "Hyperparameters", caption)


def _by_epochs(run: Run) -> Plot:
    means = group_means(run, ["model", "epochs"], "test_accuracy").reset_index()
    figure, [[axes]] = canvas(5.6, 3.6)
    models = list(dict.fromkeys(means["model"]))
    for model in models:
        line = means[means["model"] == model].sort_values("epochs")
        x, y, std = line["epochs"], 100 * line["mean"], 100 * line["seed_std"]
        color = model_color(run, model)
        axes.plot(x, y, color=color, marker="o")
        axes.fill_between(x, y - std, y + std, color=color, alpha=0.18, lw=0)
    axes.set_xticks(sorted(set(means["epochs"])))
    axes.set_xlabel("epochs")
    axes.set_ylabel(measure_label("test_accuracy"))
    keep_in_bounds([axes], "test_accuracy")
    legend(figure, [line_handle(model, color=model_color(run, model), marker="o") for model in models])
    band = f"Band: ± {_SEEDS_BAR}" if means["seed_std"].notna().any() else _NO_BAND
    caption = f"Test accuracy against epochs by model, mean of the configurations' means. {band}."
    return render(figure, "accuracy_by_epochs", "Hyperparameters", caption)


def _panels(count: int, height: float) -> tuple[Any, list["Axes"]]:
    """Creates a row of axes that share y, or rows of four."""
    columns = min(count, 4)
    rows = -(-count // columns)
    figure, grid = canvas(max(4.6, 3 * columns), height * rows + 0.5, columns, rows, sharey=True)
    panels = [axes for row in grid for axes in row]
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels
