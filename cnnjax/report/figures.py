"""Figures of final measures; each is drawn only for a study whose axes give it a meaning."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.report.colors import model_color, setting_color
from cnnjax.report.curves import draw_curves
from cnnjax.report.history import draw_history
from cnnjax.report.lettering import legend_label, shortened
from cnnjax.report.names import scale, word
from cnnjax.report.run import Run
from cnnjax.report.style import (
    INK,
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
from cnnjax.report.tables import group_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {
    "test_accuracy": "Test accuracy",
    "precision": "Macro precision",
    "recall": "Macro recall",
    "f1": "Macro F1",
    "test_loss": "Test loss",
}
_SEEDS_BAR = "the standard deviation across seeds within one setting, pooled over the settings averaged here"
_NO_BARS = "no error bars: no setting has two seeds, so the spread across seeds is unknown"

_NO_BAND = _NO_BARS.replace("error bars", "band").capitalize()


def make_figures(run: Run) -> Iterator[Plot]:
    """Every figure that the study's axes and its finished trials give a meaning."""
    if not len(run.ok):
        return
    with context():
        if len(run.ok[["model", "optimizer"]].drop_duplicates()) > 1:
            for measure in ("test_accuracy", "precision", "recall", "f1"):
                yield _bars(run, measure)
        if len(run.best_of_models) > 2:
            yield _best_accuracies(run)
        if len(run.settings) <= 4 and run.ok["seed"].nunique() > 1:
            yield _by_seed(run)
        if run.ok["learning_rate"].nunique() > 1:
            yield _by_learning_rate(run)
        if run.ok["epochs"].nunique() > 1:
            yield _by_epochs(run)
        yield from draw_history(run)
        yield from draw_curves(run)


def _label(measure: str) -> str:
    return _NAMES[measure] + (", %" if scale(measure) == 100 else "")


def _bars(run: Run, measure: str) -> Plot:
    means = group_means(run, ["model", "optimizer"], measure)
    models = list(dict.fromkeys(run.settings["model"]))
    optimizers = list(dict.fromkeys(run.settings["optimizer"]))
    unit, width = scale(measure), 0.8 / len(optimizers)
    figure, [[axes]] = canvas(min(11, max(4.6, 0.9 + 0.75 * len(models) * len(optimizers))), 3.5)
    for (model, optimizer), row in means.iterrows():
        at = optimizers.index(optimizer)
        x = models.index(model) + (at - (len(optimizers) - 1) / 2) * width
        axes.bar(x, unit * row["mean"], 0.92 * width, color=PAPER)  # hides the grid
        axes.bar(x, unit * row["mean"], 0.92 * width, color=SERIES[at % len(SERIES)], alpha=0.45)
        here = (run.settings["model"] == model) & (run.settings["optimizer"] == optimizer)
        points = unit * run.settings.loc[here, measure].dropna()
        # beside the error bar, spread sideways so that points do not cover each other
        beside = x + width * (0.2 + 0.2 * (np.arange(len(points)) % 5) / 4)
        axes.plot(beside, points, "o", ms=4, color=SERIES[at % len(SERIES)], mec=PAPER, mew=0.4)
        _error(axes, x - 0.12 * width, unit * row["mean"], unit * row["seed_std"])
    names = [shortened(model, 24) for model in models]
    axes.set_xticks(range(len(models)), names)
    if len(models) > 6 or max(map(len, names)) > 16:
        axes.set_xticks(range(len(models)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_ylabel(_label(measure))
    axes.grid(False, axis="x")
    axes.set_ylim(bottom=0)
    keep_in_bounds([axes], measure)
    has_bars = bool(means["seed_std"].notna().any())
    handles = _patches(optimizers)
    handles.append(line_handle("one setting", color=MUTED, marker="o", ms=3.5, ls=""))
    if has_bars:
        handles.append(line_handle("± std across seeds", color=INK, lw=1.4))
    legend(figure, handles)
    bars = f"Error bars: ± {_SEEDS_BAR}" if has_bars else _NO_BARS.capitalize()
    caption = (
        f"{_NAMES[measure]} by model and optimizer. Bars: mean of the settings' means. {bars}. "
        "Points: one per setting (mean over its seeds): the spread of the hyperparameters, not "
        "of chance."
    )
    return render(figure, f"bars_{measure}", "Measures by model and optimizer", caption)


def _best_accuracies(run: Run) -> Plot:
    """Bars of each model's best setting; horizontal, since models have long names."""
    best, values = run.best_of_models, _accuracies(run)
    figure, [[axes]] = canvas(8.6, 0.9 + (0.22 + 0.2 * len(values)) * len(best))
    width, ends = 0.8 / len(values), []
    for index, of_split in enumerate(values.values()):
        for place, of_seeds in enumerate(of_split.values()):
            if not len(of_seeds):
                continue
            y = place + (index - (len(values) - 1) / 2) * width
            mean, std = 100 * of_seeds.mean(), 100 * of_seeds.std(ddof=1) if len(of_seeds) > 1 else np.nan
            axes.barh(y, mean, 0.92 * width, color=PAPER)  # hides the grid
            axes.barh(y, mean, 0.92 * width, color=SERIES[index], alpha=0.6)
            _error(axes, mean, y, std, along="x")
            ends += [mean - np.nan_to_num(std), mean + np.nan_to_num(std)]
            beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
            paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
            axes.annotate(f"{mean:.1f}", (ends[-1], y), (5, 0), bbox=paper, **beside)
    first = next(iter(values["test"].values())).mean()
    axes.axvline(100 * first, color=INK, ls=LINES[1], lw=1)
    start = _cut(axes, min(ends), max(ends))
    keep_in_bounds([axes], "test_accuracy", "x")
    axes.set_yticks(range(len(best)), list(best))
    axes.set_ylim(len(best) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("Accuracy, %")
    handles = _patches(list(values)) if len(values) > 1 else []
    legend(figure, [*handles, line_handle(f"{next(iter(best))}, test", color=INK, ls=LINES[1], lw=1)])
    caption = (
        f"Accuracy of each model's best setting by {run.config['select']}, mean over seeds; error bars: ± the standard "
        "deviation across seeds."
        + (" Highest validation accuracy: of all epochs, so it is optimistic." if len(values) > 1 else "")
        + (f" The axis is cut: it starts at {start} %, so the lengths of bars do not compare." if start else "")
    )
    return render(figure, "models_best_accuracy", "Models, each at its best setting", caption)


def _accuracies(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """The accuracies of the seeds of each model's best setting, by what they are."""
    best = run.best_of_models
    values = {"test": {model: np.array(run.values(setting, "test_accuracy")) for model, setting in best.items()}}
    highest = run.history_of(best.values()).groupby(["setting", "member"])["val_accuracy"].max().dropna()
    if len(highest):
        by_setting = {setting: of_seeds.to_numpy() for setting, of_seeds in highest.groupby("setting")}
        values["highest validation"] = {m: by_setting.get(setting, np.empty(0)) for m, setting in best.items()}
    return values


def _cut(axes: "Axes", low: float, high: float) -> int:
    """Starts an accuracy's axis below `low`, marked as broken, or at 0 where that is near; returns the start."""
    step = 5 if high - low > 5 else 1
    start = int((low - 0.4 * (high - low)) // step * step)
    if start < 20:
        axes.set_xlim(left=0)
        return 0
    axes.set_xlim(left=start)
    stroke: dict[str, Any] = {"marker": [(-0.5, -1), (0.5, 1)], "ms": 9, "ls": "", "color": MUTED, "mew": 1}
    axes.plot([0.012, 0.02], [0, 0], transform=axes.transAxes, clip_on=False, **stroke)
    return start


def _error(axes: "Axes", x: Any, y: Any, std: Any, along: str = "y") -> None:
    if np.isfinite(std):
        axes.errorbar(x, y, **{f"{along}err": std}, fmt="none", ecolor=INK, elinewidth=1.4, capsize=3)


def _patches(names: list[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=SERIES[i % len(SERIES)], alpha=0.6, label=legend_label(name)) for i, name in enumerate(names)
    ]


def _by_seed(run: Run) -> Plot:
    figure, [row] = canvas(8, 3.4, columns=2)
    seeds = sorted(run.ok["seed"].unique())
    for axes, measure in zip(row, ("test_loss", "test_accuracy"), strict=True):
        unit = scale(measure)
        for setting in map(int, run.settings.index):
            trials = run.ok[run.ok["setting"] == setting]
            summary, colour = run.summary(setting, measure), setting_color(run, setting)
            if summary is None:
                continue
            axes.axhline(unit * summary.mean, color=colour, lw=1.2)
            if summary.low < summary.high:
                axes.axhspan(unit * summary.low, unit * summary.high, color=colour, alpha=0.12, lw=0)
            x = [seeds.index(seed) for seed in trials["seed"]]
            axes.plot(x, unit * trials[measure], "o", color=colour, ms=6 if len(seeds) <= 12 else 3.5)
        named = range(0, len(seeds), -(-len(seeds) // 12))
        axes.set_xticks(named, [str(seeds[place]) for place in named])
        axes.set_xlim(-0.5, len(seeds) - 0.5)
        axes.set_xlabel("seed")
        axes.set_title(_label(measure))
        axes.grid(False, axis="x")
        keep_in_bounds([axes], measure)
    if len(run.settings) > 1:
        handles = [
            line_handle(run.describe(setting), color=setting_color(run, setting), marker="o", lw=1.2)
            for setting in map(int, run.settings.index)
        ]
        legend(figure, handles, columns=1)
    caption = (
        "Test loss and accuracy by seed. Points: trials. Line: mean over seeds; band: the 95 % t "
        f"interval of that mean.{off_zero(row)}"
    )
    return render(figure, "by_seed", "Seeds", caption)


def _by_learning_rate(run: Run) -> Plot:
    models = list(dict.fromkeys(run.settings["model"]))
    by = ["model", "optimizer", "batch_size", "learning_rate"]
    means = group_means(run, by, "f1").reset_index()
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
    panels[0].set_ylabel("Macro F1")
    keep_in_bounds(panels, "f1")
    handles = [line_handle(o, color=SERIES[i % len(SERIES)]) for i, o in enumerate(optimizers)]
    if len(batches) > 1:
        handles += [
            line_handle(f"batch size {b}", color=MUTED, ls=LINES[i % len(LINES)]) for i, b in enumerate(batches)
        ]
    legend(figure, handles)
    over = [word(axis) for axis in run.varying if axis not in by]
    averaged = f" Means over {', '.join(over)}." if over else ""
    band = f"Band: ± {_SEEDS_BAR}" if means["seed_std"].notna().any() else _NO_BAND
    caption = f"Macro F1 on the test set against the learning rate.{averaged} {band}.{off_zero(panels[:1])}"
    return render(figure, "f1_by_learning_rate", "Hyperparameters", caption)


def _by_epochs(run: Run) -> Plot:
    means = group_means(run, ["model", "epochs"], "test_accuracy").reset_index()
    figure, [[axes]] = canvas(5.6, 3.6)
    models = list(dict.fromkeys(means["model"]))
    for model in models:
        line = means[means["model"] == model].sort_values("epochs")
        x, y, std = line["epochs"], 100 * line["mean"], 100 * line["seed_std"]
        colour = model_color(run, model)
        axes.plot(x, y, color=colour, marker="o")
        axes.fill_between(x, y - std, y + std, color=colour, alpha=0.18, lw=0)
    axes.set_xticks(sorted(set(means["epochs"])))
    axes.set_xlabel("epochs")
    axes.set_ylabel("Test accuracy, %")
    keep_in_bounds([axes], "test_accuracy")
    legend(figure, [line_handle(model, color=model_color(run, model), marker="o") for model in models])
    known = means["seed_std"].notna().any()
    band = f"Band: ± {_SEEDS_BAR}" if known else _NO_BAND
    caption = f"Test accuracy against epochs by model, mean of the settings' means. {band}."
    return render(figure, "accuracy_by_epochs", "Hyperparameters", caption)


def _panels(count: int, height: float) -> tuple[Any, list["Axes"]]:
    """A row of axes that share y, or rows of four."""
    columns = min(count, 4)
    rows = -(-count // columns)
    figure, grid = canvas(max(4.6, 3 * columns), height * rows + 0.5, columns, rows, sharey=True)
    panels = [axes for row in grid for axes in row]
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels
