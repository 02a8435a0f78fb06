"""What mattered: the share of the variance of a grid that each axis explains, and means along the axes."""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cnnjax import stats
from cnnjax.analysis.columns import bounds, level, measure_label, measure_name, scale, word
from cnnjax.analysis.run import Run, once_per_run
from cnnjax.report.labels import shortened
from cnnjax.report.tables import Table
from cnnjax.report.theme import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Plot,
    canvas,
    configuration_look,
    draw_bars,
    keep_in_bounds,
    legend,
    line_handle,
    name_rows,
    off_zero,
    render,
    themed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUP = "What mattered"
_BARS = 12  # at most
_PANELS = 8  # at most
_LONGEST = 20  # characters of a value
_LINES = 400  # of parallel coordinates, at most
_BEST = 5  # lines in color


@once_per_run
def explain(run: Run) -> stats.Effects | None:
    """Splits the variance of test accuracy over all trials among the axes; None if fewer than two axes vary.

    A search has none: its configurations do not have all combinations of values.
    """
    if (
        run.config.get("search")
        or run.ok["test_accuracy"].nunique() < 2
        or sum(run.ok[axis].nunique(dropna=False) > 1 for axis in run.varying) < 2
    ):
        return None
    return stats.explain_variance(_columns(run), run.ok["test_accuracy"])


def _columns(run: Run) -> dict[str, pd.Series]:
    return {axis: run.ok[axis] for axis in run.varying}


def tables(run: Run) -> list[Table]:
    """A row per axis and pair of axes."""
    effects = explain(run)
    if effects is None:
        return []
    rows: list[dict[str, Any]] = [
        {"effect": _name(found.axes), "freedom": found.freedom, "share": found.share, "F": found.f, "p": found.p}
        for found in effects.effects
    ]
    if _has_higher(effects):
        rows.append({"effect": "three and more axes together", "share": effects.higher})
    rows.append({"effect": "seeds, within configurations", "share": effects.seeds})
    note = (
        f"Share of the variance of test accuracy over all {effects.trials} trials of {effects.configurations} "
        "configurations that each axis explains alone, and two axes together beyond that (type II sums of squares; "
        "they add up to 100 % in a complete grid). F and p: against the spread of seeds, p not corrected for the "
        "number of effects; none with one seed."
    )
    return [Table("effects", _GROUP, note, pd.DataFrame(rows), foot=len(rows) - len(effects.effects))]


@themed
def figures(run: Run) -> Iterator[Plot]:
    """Shares of the variance, means along each axis, the strongest interactions, and parallel coordinates."""
    effects = explain(run)
    if effects is not None:
        yield _bars(effects)
        main = [found.axes for found in effects.effects if len(found.axes) == 1]
        if main:
            yield _marginal(run, main[:_PANELS])
        pairs = [found.axes for found in effects.effects if len(found.axes) == 2 and found.share > 0.001]
        if pairs:
            yield _interactions(run, pairs[:4])
    if len(run.varying) > 1 and len(run.ranked) > 3:
        yield _parallel(run)


def _has_higher(effects: stats.Effects) -> bool:
    return len({axis for found in effects.effects for axis in found.axes}) > 2


def _name(axes: tuple[str, ...]) -> str:
    return " x ".join(map(word, axes))


def _bars(effects: stats.Effects) -> Plot:
    large = [found for found in effects.effects[:_BARS] if found.share > 0.002]
    rest = effects.effects[len(large) :]
    shown = [(_name(found.axes), found.share) for found in large]
    if rest:
        shown.append((f"{len(rest)} smaller", sum(found.share for found in rest)))
    shown += [("three and more axes", effects.higher)] if _has_higher(effects) else []
    shown.append(("seeds, within configurations", effects.seeds))
    figure, [[axes]] = canvas(8, 0.8 + 0.26 * len(shown))
    for place, (_, share) in enumerate(shown):
        draw_bars(axes, place, 100 * share, 0.75, MUTED if place == len(shown) - 1 else SERIES[0])
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(f"{100 * share:.1f}", (100 * share, place), (4, 0), **beside)
    name_rows(axes, [name for name, _ in shown])
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    keep_in_bounds([axes], "test_accuracy", "x")
    axes.set_xlabel("% of the variance of test accuracy over all trials")
    caption = (
        f"What mattered: share of the variance of test accuracy, over {effects.trials} trials of "
        f"{effects.configurations} configurations, that each axis explains alone, and two axes together (x) beyond "
        "that. No error bars. The shares hold for the values of this grid; other values of an axis may matter more."
    )
    return render(figure, "effects", _GROUP, caption)


def _marginal(run: Run, shown: Sequence[tuple[str, ...]]) -> Plot:
    rows = -(-len(shown) // 4)
    columns = -(-len(shown) // rows)
    figure, grid = canvas(max(4.6, 2.5 * columns), 2.7 * rows, columns, rows, sharey=True)
    panels = list(itertools.chain.from_iterable(grid))
    seeds = False
    for panel, axes in zip(panels, shown, strict=False):
        means = _ordered(marginal_means(run, axes))
        for place, mean in enumerate(means):
            seeds |= mean.low < mean.high
            panel.plot([place, place], [100 * mean.low, 100 * mean.high], color=INK, lw=1.4)
        values = [100 * mean.mean for mean in means]
        panel.plot(range(len(means)), values, color=SERIES[0], marker="o", lw=1)
        _ticks(panel, [level(axes[0], mean.levels[0]) for mean in means])
        panel.set_title(word(axes[0]))
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for row in grid:
        row[0].set_ylabel("Test accuracy, %")
    keep_in_bounds(panels, "test_accuracy")
    bars = "Lines: 95 % t interval of the mean over seeds, with the configurations fixed." if seeds else _no_bars(run)
    caption = (
        "Mean test accuracy at each value of an axis, over all configurations with that value, each counted once. "
        f"{bars}{off_zero(panels[: len(shown)])}"
    )
    return render(figure, "marginal_means", _GROUP, caption)


def _interactions(run: Run, pairs: Sequence[tuple[str, ...]]) -> Plot:
    figure, [panels] = canvas(max(4.6, 3.0 * len(pairs)), 3.6, len(pairs), sharey=True)
    seeds = False
    for panel, axes in zip(panels, pairs, strict=True):
        along, by = sorted(axes, key=lambda axis: -run.ok[axis].nunique(dropna=False))
        means = marginal_means(run, (along, by))
        names = [level(along, mean.levels[0]) for mean in _ordered(marginal_means(run, (along,)))]
        places = {name: place for place, name in enumerate(names)}
        lines: dict[str, list[tuple[int, stats.Marginal]]] = {}
        for mean in means:
            lines.setdefault(level(by, mean.levels[1]), []).append((places[level(along, mean.levels[0])], mean))
        for index, (_, line) in enumerate(lines.items()):
            color = SERIES[index % len(SERIES)]
            line.sort(key=lambda point: point[0])
            panel.plot([p for p, _ in line], [100 * mean.mean for _, mean in line], color=color, marker="o", lw=1.2)
            for place, mean in line:
                seeds |= mean.low < mean.high
                panel.plot([place, place], [100 * mean.low, 100 * mean.high], color=color, lw=1.2)
        _ticks(panel, list(places))
        panel.set_xlabel(word(along))
        names = [shortened(name, _LONGEST) for name in lines]
        handles = [line_handle(name, color=SERIES[i % len(SERIES)], marker="o") for i, name in enumerate(names)]
        panel.legend(handles=handles[:10], title=word(by), fontsize=7.5, title_fontsize=8, loc="best")
    panels[0].set_ylabel("Test accuracy, %")
    keep_in_bounds(panels, "test_accuracy")
    bars = "Vertical lines: 95 % t intervals over seeds." if seeds else _no_bars(run)
    caption = (
        "The strongest interactions: mean test accuracy along one axis at each value of another. Where lines are not "
        f"parallel, one axis changes the effect of the other. {bars}{off_zero(panels)}"
    )
    return render(figure, "interactions", _GROUP, caption)


def _no_bars(run: Run) -> str:
    one = run.configurations["n"].max() < 2
    return "One seed each: no error bars." if one else "No error bars: the seeds show no spread."


def marginal_means(run: Run, axes: tuple[str, ...]) -> tuple[stats.Marginal, ...]:
    """Returns mean test accuracies at the values of these axes, with intervals cut to the bounds of accuracy."""
    least, most = bounds("test_accuracy")
    means = stats.marginal_means(_columns(run), run.ok["test_accuracy"], axes)
    return tuple(mean._replace(low=max(mean.low, least), high=min(mean.high, most)) for mean in means)


def _ordered(means: tuple[stats.Marginal, ...]) -> list[stats.Marginal]:
    """Sorts numbers by size, after None; keeps the order of words."""
    if not all(mean.levels[0] is None or isinstance(mean.levels[0], int | float) for mean in means):
        return list(means)
    return sorted(means, key=lambda mean: -math.inf if mean.levels[0] is None else mean.levels[0])  # type: ignore[arg-type, return-value]


def _ticks(panel: "Axes", names: list[str]) -> None:
    names = [shortened(name, _LONGEST) for name in names]
    slant: dict[str, Any] = {"rotation": 35, "ha": "right"} if sum(map(len, names)) > 24 else {}
    panel.set_xticks(range(len(names)), names, **slant)
    panel.margins(x=0.15)
    panel.grid(False, axis="x")


def _parallel(run: Run) -> Plot:
    """Draws parallel coordinates, the best configurations in color."""
    shown = run.ranked[:_LINES]
    axes_names = list(run.varying)
    unit = scale(run.select)
    figure, [[axes]] = canvas(max(5.4, min(11, 1.5 * (len(axes_names) + 1))), 4.2)
    columns = []
    for x, axis in enumerate(axes_names):
        names = run.configurations[axis].map(partial(level, axis))
        levels = sorted(set(names), key=lambda name: _order(run, axis, name))
        heights = {name: (place + 0.5) / len(levels) for place, name in enumerate(levels)}
        columns.append(names[shown].map(heights).to_numpy(float))
        axes.axvline(x, color=GRID, lw=1)
        if len(levels) <= 12:
            for name, height in heights.items():
                where: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "center", "zorder": 5}
                where |= {"fontsize": 7.5, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}}
                axes.annotate(shortened(name, _LONGEST), (x, height), (-4, 0), **where)
    values = run.configurations.loc[shown, run.select].to_numpy(float)
    low, high = values.min(), values.max()
    columns.append((values - low) / (high - low) if high > low else np.full(len(values), 0.5))
    axes.axvline(len(axes_names), color=GRID, lw=1)
    lines = np.stack(columns, axis=1)
    lines[:, :-1] += np.linspace(-0.02, 0.02, len(shown))[:, None]  # lines through the same value side by side
    for place in reversed(range(len(shown))):
        look: dict[str, Any] = {"color": MUTED, "lw": 0.8, "alpha": max(0.12, 0.6 - len(shown) / 200)}
        if place < _BEST:
            look = {**configuration_look(run, shown[place]), "lw": 2.0, "zorder": 4}
        axes.plot(range(len(axes_names) + 1), lines[place], **look)
    for end, value in ((0, low), (1, high)):
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(f"{unit * value:.4g}", (len(axes_names), end), (5, 0), **beside)
    axes.set_xticks(range(len(axes_names) + 1), [*map(word, axes_names), measure_label(run.select)])
    axes.set_yticks([])
    axes.set_xlim(-0.45, len(axes_names) + 0.25)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    best = [line_handle(run.tell_apart(s), lw=2, **configuration_look(run, s)) for s in shown[:_BEST]]
    legend(figure, best, columns=1 if max(len(run.tell_apart(s)) for s in shown[:_BEST]) > 40 else 2)
    some = f" ({len(shown)} best of {len(run.ranked)})" if len(run.ranked) > len(shown) else ""
    caption = (
        f"Every configuration{some} as a line through its values, to its mean {measure_name(run.select)} over seeds on "
        f"the right; the {min(_BEST, len(shown))} best in color. No error bars."
    )
    return render(figure, "parallel_coordinates", _GROUP, caption)


def _order(run: Run, axis: str, name: str) -> float:
    """Returns the position of a value along its axis: numbers by size, words in order of appearance."""
    for place, value in enumerate(run.configurations[axis]):
        if level(axis, value) == name:
            return place if isinstance(value, str) else float(np.nan_to_num(value, nan=-1.0))
    return 0.0
