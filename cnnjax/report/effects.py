"""What mattered: how much of the variance of a grid each axis explains, alone and with others, and means along them."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from cnnjax import stats
from cnnjax.report.lettering import shortened
from cnnjax.report.names import bounds, level, word
from cnnjax.report.run import Run
from cnnjax.report.style import (
    INK,
    MUTED,
    PAPER,
    SERIES,
    Plot,
    canvas,
    context,
    keep_in_bounds,
    line_handle,
    off_zero,
    render,
)
from cnnjax.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUP = "What mattered"
_BARS = 12  # at most
_PANELS = 8  # at most
_LONGEST = 20  # letters of a value


def explain(run: Run) -> stats.Effects | None:
    """Splits the variance of all trials' test accuracy among the axes; None without one, or fewer than two axes."""
    if run.ok["test_accuracy"].nunique() < 2 or sum(run.ok[axis].nunique(dropna=False) > 1 for axis in run.varying) < 2:
        return None
    return stats.explain_variance(_columns(run), run.ok["test_accuracy"])


def _columns(run: Run) -> dict[str, pd.Series]:
    return {axis: run.ok[axis] for axis in run.varying}


def effect_tables(effects: stats.Effects | None) -> list[Table]:
    """One row per axis and pair of axes."""
    if effects is None:
        return []
    rows: list[dict[str, Any]] = [
        {"effect": _name(found.axes), "freedom": found.freedom, "share": found.share, "F": found.f, "p": found.p}
        for found in effects.effects
    ]
    if _has_higher(effects):
        rows.append({"effect": "three and more axes together", "share": effects.higher})
    rows.append({"effect": "seeds, within settings", "share": effects.seeds})
    note = (
        f"Share of the variance of test accuracy over all {effects.trials} trials of {effects.settings} settings that "
        "each axis explains, and two axes together beyond what each does alone (type II sums of squares; they add up "
        "to 100 % where the grid is complete). F and p: against the spread of seeds, p not corrected for the number "
        "of effects; without several seeds there is none."
    )
    kinds = {"effect": "text", "freedom": "whole"}
    return [Table("effects", _GROUP, note, pd.DataFrame(rows), kinds=kinds, foot=len(rows) - len(effects.effects))]


def draw_effects(run: Run, effects: stats.Effects | None) -> Iterator[Plot]:
    """Bars of the shares, means along each axis, and the strongest interactions."""
    if effects is None:
        return
    with context():
        yield _bars(effects)
        main = [found.axes for found in effects.effects if len(found.axes) == 1]
        if main:
            yield _marginal(run, main[:_PANELS])
        pairs = [found.axes for found in effects.effects if len(found.axes) == 2 and found.share > 0.001]
        if pairs:
            yield _interactions(run, pairs[:4])


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
    shown.append(("seeds, within settings", effects.seeds))
    figure, [[axes]] = canvas(8, 0.8 + 0.26 * len(shown))
    for place, (_, share) in enumerate(shown):
        colour = MUTED if place == len(shown) - 1 else SERIES[0]
        axes.barh(place, 100 * share, 0.75, color=PAPER)  # hides the grid
        axes.barh(place, 100 * share, 0.75, color=colour, alpha=0.6)
        axes.annotate(
            f"{100 * share:.1f}", (100 * share, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    keep_in_bounds([axes], "test_accuracy", "x")
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("% of the variance of test accuracy over all trials")
    caption = (
        f"What mattered: share of the variance of test accuracy, over {effects.trials} trials of {effects.settings} "
        "settings, that each axis explains alone, and two axes (x) beyond what each does alone. No error bars. It says "
        "what this grid's values did, not what the axis could do."
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
    bars = "Lines: its 95 % t interval over seeds, these settings given." if seeds else _no_bars(run)
    caption = (
        "Mean test accuracy at each value of an axis, over all settings that have it, each counting once. "
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
            colour = SERIES[index % len(SERIES)]
            line.sort(key=lambda point: point[0])
            panel.plot([p for p, _ in line], [100 * mean.mean for _, mean in line], color=colour, marker="o", lw=1.2)
            for place, mean in line:
                seeds |= mean.low < mean.high
                panel.plot([place, place], [100 * mean.low, 100 * mean.high], color=colour, lw=1.2)
        _ticks(panel, list(places))
        panel.set_xlabel(word(along))
        names = [shortened(name, _LONGEST) for name in lines]
        handles = [line_handle(name, color=SERIES[i % len(SERIES)], marker="o") for i, name in enumerate(names)]
        panel.legend(handles=handles[:10], title=word(by), fontsize=7.5, title_fontsize=8, loc="best")
    panels[0].set_ylabel("Test accuracy, %")
    keep_in_bounds(panels, "test_accuracy")
    bars = "Lines up and down: 95 % t intervals over seeds." if seeds else _no_bars(run)
    caption = (
        "The strongest interactions: mean test accuracy along one axis at each value of another. Lines that are not "
        f"parallel: the one axis changes what the other does. {bars}{off_zero(panels)}"
    )
    return render(figure, "interactions", _GROUP, caption)


def _no_bars(run: Run) -> str:
    one = run.settings["n"].max() < 2
    return "One seed each: no error bars." if one else "No error bars: a setting has one seed, or none shows a spread."


def marginal_means(run: Run, axes: tuple[str, ...]) -> tuple[stats.Marginal, ...]:
    """Returns the means of test accuracy at the values of these axes, with intervals that end where it does."""
    least, most = bounds("test_accuracy")
    means = stats.marginal_means(_columns(run), run.ok["test_accuracy"], axes)
    return tuple(mean._replace(low=max(mean.low, least), high=min(mean.high, most)) for mean in means)


def _ordered(means: tuple[stats.Marginal, ...]) -> list[stats.Marginal]:
    """Numbers by size, behind what is not set; words as they come."""
    if not all(mean.levels[0] is None or isinstance(mean.levels[0], int | float) for mean in means):
        return list(means)
    return sorted(means, key=lambda mean: -math.inf if mean.levels[0] is None else mean.levels[0])  # type: ignore[arg-type, return-value]


def _ticks(panel: "Axes", names: list[str]) -> None:
    names = [shortened(name, _LONGEST) for name in names]
    slant: dict[str, Any] = {"rotation": 35, "ha": "right"} if sum(map(len, names)) > 24 else {}
    panel.set_xticks(range(len(names)), names, **slant)
    panel.margins(x=0.15)
    panel.grid(False, axis="x")
