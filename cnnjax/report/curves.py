"""Learning curves: one line per setting, averaged over its seeds, one panel per model."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cnnjax.report.colors import setting_color
from cnnjax.report.lettering import shortened
from cnnjax.report.names import AXES, bounds, level, scale, word
from cnnjax.report.run import Run
from cnnjax.report.style import LINES, MUTED, SERIES, Plot, canvas, keep_in_bounds, legend, line_handle, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4  # of panels, at most
_LINES = 100  # settings, at most
_TOLD_BY = tuple(axis for axis in AXES if axis != "model")  # a model has a panel


class _Look(NamedTuple):
    """Which axes colour and dash tell apart, and in what order."""

    colours: list[str]
    dashes: list[str]
    colour_of: dict[tuple, str]
    dash_of: dict[tuple, Any]
    untold: list[str]


def draw_curves(run: Run) -> Iterator[Plot]:
    """Loss and accuracy by epoch."""
    if run.history.empty:
        return
    for name in ("loss", "accuracy"):
        yield _curves(run, name)


def _curves(run: Run, name: str) -> Plot:
    trained = set(run.history["setting"])
    shown_settings = [setting for setting in run.ranked if setting in trained][:_LINES] or sorted(trained)
    history = run.history[run.history["setting"].isin(shown_settings)]
    history = history.join(run.settings[["model", *_TOLD_BY]], on="setting")
    splits = [s for s in ("train", "val") if history[f"{s}_{name}"].notna().any()]
    models = list(dict.fromkeys(history["model"]))
    few = history.groupby("model")["setting"].nunique().max() <= 3
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
            for _, of_setting in history[history["model"] == model].groupby("setting"):
                first = of_setting.iloc[0]
                colour = look.colour_of[_key(first, look.colours)]
                dash = look.dash_of[_key(first, look.dashes)]
                for split in shown:
                    ls = LINES[1] if len(shown) > 1 and split == "train" else dash
                    draw_mean(axes, of_setting, f"{split}_{name}", color=colour, ls=ls)
        for row in block:
            row[0].set_ylabel(label(" and ".join(map(_split, shown)), name))
        hide_spare(panels, len(models), columns)
    if name == "loss":
        grid[0][0].set_ylim(bottom=0)
    keep_in_bounds([axes for row in grid for axes in row], f"train_{name}")
    handles = _handles(look, splits if few and len(splits) > 1 else [])
    if handles:
        legend(figure, handles)
    caption = _caption(run, name, history, look)
    return render(figure, f"curves_{name}", "Learning curves", caption)


def draw_mean(axes: "Axes", of_setting: pd.DataFrame, column: str, band: bool = True, **style: Any) -> None:
    """Draws a setting's mean over seeds by epoch while every seed trains, then each that goes on, thin.

    A mean over fewer and fewer seeds would be one of ever other seeds, and jump where one stops.

    Args:
        axes: where to.
        of_setting: the setting's rows of `Run.history`.
        column: of `Run.history`; an accuracy is drawn in %.
        band: whether to show one standard deviation around the mean, cut where the measure ends.
        style: of the line; `color` must be there.
    """
    unit = scale(column)
    by_epoch = of_setting.groupby("epoch")[column]
    whole = by_epoch.count() == of_setting["member"].nunique()
    mean, std = by_epoch.mean()[whole], by_epoch.std()[whole]
    axes.plot(mean.index, unit * mean, lw=1.4, marker="o" if len(mean) == 1 else "", **style)
    if band:
        low, high = (unit * np.clip(edge, *bounds(column)) for edge in (mean - std, mean + std))
        axes.fill_between(mean.index, low, high, color=style["color"], alpha=0.15, lw=0)
    together = mean.index.max() if len(mean) else 0
    for _, of_member in of_setting[of_setting["epoch"] >= together].groupby("member"):
        if len(of_member) > 1:
            axes.plot(of_member["epoch"], unit * of_member[column], lw=0.6, alpha=0.7, **style)


def label(split: str, measure: str) -> str:
    """What an axis shows, with its unit."""
    return f"{split} {measure}" + (", %" if scale(measure) == 100 else "")


def hide_spare(panels: Sequence["Axes"], count: int, columns: int) -> None:
    """Empties the panels after the first `count`; the lowest of each column that is left gets the epochs."""
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes in panels[(count - 1) // columns * columns : count]:
        axes.set_xlabel("epoch")
    for axes in panels[max(0, count - columns) : count]:
        axes.locator_params(axis="x", integer=True)
        axes.tick_params(labelbottom=True)


def _look(run: Run, history: pd.DataFrame, dashes: bool) -> _Look:
    """Gives colours to as many varying axes as eight can tell apart, and dashes to the next."""
    varying = [a for a in _TOLD_BY if history.groupby("optimizer")[a].nunique(dropna=False).max() > 1]
    if history["optimizer"].nunique() > 1:
        varying.insert(0, "optimizer")
    by_colour: list[str] = []
    for axis in varying:
        if dashes and by_colour and axis == "batch_size":
            continue  # dashes show it better
        if len(_combinations(history, [*by_colour, axis])) > len(SERIES):
            break
        by_colour.append(axis)
    rest = [axis for axis in varying if axis not in by_colour]
    by_dash = rest[:1] if dashes and rest and history[rest[0]].nunique() <= len(LINES) else []
    colour_of = dict(zip(_combinations(history, by_colour), SERIES, strict=False))
    settings = {_key(row, by_colour): int(row["setting"]) for _, row in history.drop_duplicates("setting").iterrows()}
    if history["setting"].nunique() == len(settings) <= len(SERIES):  # a color is one setting's
        colour_of = {key: setting_color(run, settings[key]) for key in colour_of}
    dash_of = dict(zip(_combinations(history, by_dash), LINES, strict=False))
    return _Look(by_colour, by_dash, colour_of, dash_of, [a for a in rest if a not in by_dash])


def _combinations(history: pd.DataFrame, axes: Sequence[str]) -> list[tuple]:
    distinct = history.drop_duplicates(list(axes)).sort_values(list(axes)) if axes else history[:1]
    return [_key(row, axes) for _, row in distinct.iterrows()]


def _key(row: pd.Series, axes: Sequence[str]) -> tuple:
    return tuple(level(axis, row[axis]) for axis in axes)


def _handles(look: _Look, overlaid: list[str]) -> list[Any]:
    handles = []
    if look.colours:
        handles += [line_handle(_name(look.colours, values), color=colour) for values, colour in look.colour_of.items()]
    if look.dashes:
        handles += [
            line_handle(_name(look.dashes, values), color=MUTED, ls=dash) for values, dash in look.dash_of.items()
        ]
    for split in overlaid:
        handles.append(line_handle(_split(split), color=MUTED, ls=LINES[1] if split == "train" else "-"))
    return handles


def _name(axes: Sequence[str], values: tuple) -> str:
    return ", ".join(
        value if axis == "optimizer" else f"{word(axis)} {value}" for axis, value in zip(axes, values, strict=True)
    )


def _split(split: str) -> str:
    return {"train": "training", "val": "validation"}[split]


def _caption(run: Run, name: str, history: pd.DataFrame, look: _Look) -> str:
    few, all_of_them = history["setting"].nunique(), run.history["setting"].nunique()
    some = f" ({few} best of {all_of_them:,})" if few < all_of_them else ""
    parts = [f"{name.capitalize()} by epoch, one line per setting{some}, averaged over its seeds."]
    if history.groupby("setting")["member"].nunique().max() > 1:
        parts.append("Band: ± the standard deviation across seeds.")
    else:
        parts.append("One seed each: no bands.")
    if look.untold:
        parts.append(f"Not told apart: {', '.join(map(word, look.untold))}.")
    return " ".join([*parts, *left_out(run, history)])


def left_out(run: Run, history: pd.DataFrame) -> list[str]:
    """What a caption of curves says of members that ended before the others."""
    said = []
    lengths = history.groupby(["setting", "member"]).size().groupby("setting").nunique()
    if (lengths > 1).any():
        said.append("Mean and band end with the first seed that stops early; the others go on as thin lines.")
    if run.diverged:
        said.append("Diverged trials are left out.")
    return said
