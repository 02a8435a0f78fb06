"""Learning curves: loss and accuracy by epoch, all measures of the history, and all models on common axes."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cnnjax.analysis.columns import bounds, level, measure_label, scale, word
from cnnjax.analysis.run import Run
from cnnjax.report.labels import shortened
from cnnjax.report.tables import Table
from cnnjax.report.theme import (
    LINES,
    MUTED,
    SERIES,
    Plot,
    canvas,
    configuration_color,
    configuration_look,
    keep_in_bounds,
    legend,
    line_handle,
    render,
    themed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4  # of panels, at most
_LINES = 100  # configurations, at most
_FEW = len(SERIES)  # lines that colors alone tell apart
_GROUP = "Models and configurations by epoch"


class _Look(NamedTuple):
    """The axes that colors and dashes tell apart, their colors and dashes, and the axes that nothing tells apart."""

    colors: list[str]
    dashes: list[str]
    color_of: dict[tuple, str]
    dash_of: dict[tuple, Any]
    untold: list[str]


def tables(run: Run) -> list[Table]:
    """Curves have no tables."""
    return []


@themed
def figures(run: Run) -> Iterator[Plot]:
    """A panel per measure of the history, all models on common axes, and loss and accuracy of every configuration."""
    if run.history.empty:
        return
    if run.history["epoch"].nunique() > 1:
        yield from _history(run)
    for name in ("loss", "accuracy"):
        yield _curves(run, name)


def _history(run: Run) -> Iterator[Plot]:
    shown = [column for column in run.epoch_measures if run.epochs[column].notna().any()]
    models = {configuration: model for model, configuration in run.best_of_models.items()}
    configurations = (
        {configuration: run.tell_apart(configuration) for configuration in map(int, run.configurations.index)}
        if len(run.configurations) <= _FEW
        else models
    )
    # of one model, the learning curves show the loss and the accuracy already
    if configurations and (len(models) > 1 or len(shown) > 4):
        yield _panels(run, configurations, shown)
    if len(models) > 1:
        yield _together(run, models, "val_loss" if "val_loss" in shown else "train_loss")
    if len(models) > 3:
        yield _together(run, models, "train_accuracy")


def _panels(run: Run, configurations: dict[int, str], columns: list[str]) -> Plot:
    """Draws two panels in a row, with the legend in the free panel or below."""
    rows = -(-len(columns) // 2)
    figure, grid = canvas(8.6, 2.2 * rows + 0.3, 2, rows, sharex=True)
    panels = [axes for row in grid for axes in row]
    history = run.history_of(configurations)
    for axes, column in zip(panels, columns, strict=False):
        _draw(run, axes, history, configurations, column)
        axes.set_title(measure_label(column))
        keep_in_bounds([axes], column)
    _hide_spare(panels, len(columns), 2)
    if len(panels) > len(columns) and len(configurations) <= 2 * _FEW:
        panels[-1].legend(handles=_lines(run, configurations), loc="center", ncols=1 + (len(configurations) > _FEW))
    else:
        legend(figure, _lines(run, configurations), columns=len(configurations))
    caption = f"Every measure by epoch, one line per {_what(run, configurations)}. {_spread(run, history)}"
    return render(figure, "history", _GROUP, caption)


def _together(run: Run, models: dict[int, str], column: str) -> Plot:
    figure, [[axes]] = canvas(8.6, 4.6)
    history = run.history_of(models)
    _draw(run, axes, history, models, column)
    keep_in_bounds([axes], column)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel(measure_label(column))
    legend(figure, _lines(run, models), columns=len(models))
    caption = f"{measure_label(column)} by epoch, one line per {_what(run, models)}. {_spread(run, history)}"
    return render(figure, f"models_{column}", _GROUP, caption)


def _draw(run: Run, axes: Any, history: pd.DataFrame, configurations: dict[int, str], column: str) -> None:
    for configuration in configurations:
        of_configuration = history[history["configuration"] == configuration]
        if of_configuration[column].notna().any():
            draw_mean(
                axes,
                of_configuration,
                column,
                band=len(configurations) <= _FEW,
                **configuration_look(run, configuration),
            )


def _lines(run: Run, configurations: dict[int, str]) -> list[Any]:
    return [
        line_handle(name, **configuration_look(run, configuration)) for configuration, name in configurations.items()
    ]


def _what(run: Run, configurations: dict[int, str]) -> str:
    if len(configurations) == len(run.configurations):
        return "configuration"
    return f"model: its best configuration by {run.config['select']}"


def _spread(run: Run, history: pd.DataFrame) -> str:
    if history.groupby("configuration")["member"].nunique().max() < 2:
        said = "One seed each: no bands."
    elif history["configuration"].nunique() > _FEW:
        said = "Mean over seeds; bands are left out, for they would overlap."
    else:
        said = "Mean over seeds, band: ± the standard deviation across seeds."
    return " ".join([said, *_left_out(run, history)])


def _curves(run: Run, name: str) -> Plot:
    trained = set(run.history["configuration"])
    shown_configurations = [configuration for configuration in run.ranked if configuration in trained][
        :_LINES
    ] or sorted(trained)
    history = run.history[run.history["configuration"].isin(shown_configurations)]
    history = history.join(run.configurations[run.axes], on="configuration")
    splits = [s for s in ("train", "val") if history[f"{s}_{name}"].notna().any()]
    models = list(dict.fromkeys(history["model"]))
    few = history.groupby("model")["configuration"].nunique().max() <= 3
    blocks = [splits] if few else [[split] for split in splits]
    look = _look(run, history, dashes=not (few and len(splits) > 1))
    rows = -(-len(models) // _COLUMNS)
    columns = -(-len(models) // rows)
    figure, grid = canvas(
        max(4.6, 3.1 * columns),
        (3 if rows == 1 else 2.4) * rows * len(blocks) + 0.6,
        columns,
        rows * len(blocks),
        sharex=True,
        sharey=True,
    )
    for index, shown in enumerate(blocks):
        block = grid[index * rows : (index + 1) * rows]
        panels = [axes for row in block for axes in row]
        for axes, model in zip(panels, models, strict=False):
            axes.set_title(shortened(model, 32))
            for _, of_configuration in history[history["model"] == model].groupby("configuration"):
                first = of_configuration.iloc[0]
                color = look.color_of[_key(first, look.colors)]
                dash = look.dash_of[_key(first, look.dashes)]
                for split in shown:
                    ls = LINES[1] if len(shown) > 1 and split == "train" else dash
                    draw_mean(axes, of_configuration, f"{split}_{name}", color=color, ls=ls)
        for row in block:
            row[0].set_ylabel(f"{' and '.join(map(_split, shown))} {name}{', %' if name == 'accuracy' else ''}")
        _hide_spare(panels, len(models), columns)
    if name == "loss":
        grid[0][0].set_ylim(bottom=0)
    keep_in_bounds([axes for row in grid for axes in row], f"train_{name}")
    handles = _handles(look, splits if few and len(splits) > 1 else [])
    if handles:
        legend(figure, handles)
    caption = _caption(run, name, history, look)
    return render(figure, f"curves_{name}", "Learning curves", caption)


def draw_mean(axes: "Axes", of_configuration: pd.DataFrame, column: str, band: bool = True, **style: Any) -> None:
    """Draws the mean of a configuration over its seeds while all of them train, then each remaining seed as a line.

    A mean over the remaining seeds would jump wherever a seed stops.

    Args:
        axes: to draw in.
        of_configuration: the configuration's rows of `Run.history`.
        column: of `Run.history`; an accuracy is drawn in %.
        band: whether to show one standard deviation around the mean, cut to the bounds of the measure.
        style: of the line, with its `color`.
    """
    unit, epochs, members = scale(column), of_configuration["epoch"], of_configuration["member"]
    by_epoch = of_configuration[column].groupby(epochs).agg(["count", "mean", "std"])
    by_epoch = by_epoch[by_epoch["count"] == members.nunique()]
    mean, std = by_epoch["mean"], by_epoch["std"]
    axes.plot(mean.index, unit * mean, lw=1.4, marker="o" if len(mean) == 1 else "", **style)
    if band:
        low, high = (unit * np.clip(edge, *bounds(column)) for edge in (mean - std, mean + std))
        axes.fill_between(mean.index, low, high, color=style["color"], alpha=0.15, lw=0)
    together = mean.index.max() if len(mean) else 0
    for member in members[epochs > together].unique():
        of_member = of_configuration[(members == member) & (epochs >= together)]
        axes.plot(of_member["epoch"], unit * of_member[column], lw=0.6, alpha=0.7, **style)


def _hide_spare(panels: Sequence["Axes"], count: int, columns: int) -> None:
    """Empties the panels after the first `count`, and labels the lowest remaining panel of each column with epochs."""
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes in panels[(count - 1) // columns * columns : count]:
        axes.set_xlabel("epoch")
    for axes in panels[max(0, count - columns) : count]:
        axes.locator_params(axis="x", integer=True)
        axes.tick_params(labelbottom=True)


def _look(run: Run, history: pd.DataFrame, dashes: bool) -> _Look:
    """Assigns colors to as many of the varying axes as eight colors can tell apart, and dashes to the next axis."""
    told_by = [axis for axis in run.axes if axis != "model"]  # each model has its own panel
    varying = [a for a in told_by if history.groupby("optimizer")[a].nunique(dropna=False).max() > 1]
    if history["optimizer"].nunique() > 1:
        varying.insert(0, "optimizer")
    by_color: list[str] = []
    for axis in varying:
        if dashes and by_color and axis == "batch_size":
            continue  # dashes show it better
        if len(_combinations(history, [*by_color, axis])) > len(SERIES):
            break
        by_color.append(axis)
    rest = [axis for axis in varying if axis not in by_color]
    by_dash = rest[:1] if dashes and rest and history[rest[0]].nunique() <= len(LINES) else []
    color_of = dict(zip(_combinations(history, by_color), SERIES, strict=False))
    configurations = {
        _key(row, by_color): int(row["configuration"]) for _, row in history.drop_duplicates("configuration").iterrows()
    }
    if (
        history["configuration"].nunique() == len(configurations) <= len(SERIES)
    ):  # each color belongs to one configuration
        color_of = {key: configuration_color(run, configurations[key]) for key in color_of}
    dash_of = dict(zip(_combinations(history, by_dash), LINES, strict=False))
    return _Look(by_color, by_dash, color_of, dash_of, [a for a in rest if a not in by_dash])


def _combinations(history: pd.DataFrame, axes: Sequence[str]) -> list[tuple]:
    distinct = history.drop_duplicates(list(axes)).sort_values(list(axes)) if axes else history[:1]
    return [_key(row, axes) for _, row in distinct.iterrows()]


def _key(row: pd.Series, axes: Sequence[str]) -> tuple:
    return tuple(level(axis, row[axis]) for axis in axes)


def _handles(look: _Look, overlaid: list[str]) -> list[Any]:
    handles = []
    if look.colors:
        handles += [line_handle(_name(look.colors, key), color=color) for key, color in look.color_of.items()]
    if look.dashes:
        handles += [line_handle(_name(look.dashes, key), color=MUTED, ls=dash) for key, dash in look.dash_of.items()]
    styles = {"train": LINES[1], "val": "-"}
    return handles + [line_handle(_split(split), color=MUTED, ls=styles[split]) for split in overlaid]


def _name(axes: Sequence[str], values: tuple) -> str:
    return ", ".join(
        value if axis == "optimizer" else f"{word(axis)} {value}" for axis, value in zip(axes, values, strict=True)
    )


def _split(split: str) -> str:
    return {"train": "training", "val": "validation"}[split]


def _caption(run: Run, name: str, history: pd.DataFrame, look: _Look) -> str:
    few, all_of_them = history["configuration"].nunique(), run.history["configuration"].nunique()
    some = f" ({few} best of {all_of_them:,})" if few < all_of_them else ""
    parts = [f"{name.capitalize()} by epoch, one line per configuration{some}, averaged over its seeds."]
    if history.groupby("configuration")["member"].nunique().max() > 1:
        parts.append("Band: ± the standard deviation across seeds.")
    else:
        parts.append("One seed each: no bands.")
    if look.untold:
        parts.append(f"Not distinguished: {', '.join(map(word, look.untold))}.")
    return " ".join([*parts, *_left_out(run, history)])


def _left_out(run: Run, history: pd.DataFrame) -> list[str]:
    """Returns the sentences of a caption on members that ended early."""
    said = []
    lengths = history.groupby(["configuration", "member"]).size().groupby("configuration").nunique()
    if (lengths > 1).any():
        said.append("Mean and band end where the first seed stops early; the other seeds continue as thin lines.")
    if run.diverged:
        said.append("Diverged trials are left out.")
    return said
