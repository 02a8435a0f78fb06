"""Figures of whole settings: the foremost with their intervals, and all of them as lines across the axes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from cnnjax.report.colors import setting_look
from cnnjax.report.evidence import Evidence
from cnnjax.report.lettering import shortened
from cnnjax.report.names import level, measure_name, scale, word
from cnnjax.report.run import Run
from cnnjax.report.style import (
    GRID,
    INK,
    MUTED,
    SERIES,
    Plot,
    canvas,
    context,
    keep_in_bounds,
    legend,
    line_handle,
    off_zero,
    render,
    wrapped,
)

_FOREMOST = 12
_WIDTH = 48  # letters of a line
_LINES = 400  # at most
_BEST = 5  # lines in colour


def draw_ranking(run: Run, evidence: Evidence) -> Iterator[Plot]:
    """The foremost settings, where there are several."""
    with context():
        if len(evidence.ranks) > 1:
            yield _foremost(run, evidence)


def draw_settings(run: Run) -> Iterator[Plot]:
    """All settings as lines across the axes, where several vary."""
    with context():
        if len(run.varying) > 1 and len(run.ranked) > 3:
            yield _parallel(run)


def _foremost(run: Run, evidence: Evidence) -> Plot:
    shown = evidence.ranks[:_FOREMOST]
    unit = scale(run.select)
    names = [wrapped(run.tell_apart(setting), _WIDTH) for setting in evidence.settings[:_FOREMOST]]
    figure, [[axes]] = canvas(6, 0.9 + sum(0.3 + 0.15 * len(name.splitlines()) for name in names))
    several = shown[0].n > 1 and not run.crossed
    at = 0.0  # a name stands above its values: beside them, a phone would show names and no values
    for place, (setting, rank, name) in enumerate(zip(evidence.settings, shown, names, strict=False)):
        at += 0.55 + 0.5 * len(name.splitlines())
        values = unit * np.array(run.values(setting, run.select))
        colour = SERIES[0] if place == 0 else MUTED
        axes.plot(values, np.full(len(values), at + 0.24), "o", ms=3.5, color=colour, alpha=0.5, mew=0)
        summary = run.summary(setting, run.select)
        if summary is not None and several:
            axes.plot([unit * summary.low, unit * summary.high], [at, at], color=INK, lw=1.6)
        axes.plot(unit * rank.mean, at, "D", ms=5.5, color=colour)
        chance = f"P(best) {100 * rank.best:.0f} %" if np.isfinite(rank.best) else ""
        places = f"place {rank.low}" if rank.low == rank.high else f"place {rank.low} to {rank.high}"
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "bottom", "fontsize": 8}
        where["in_layout"] = False  # it stands within the axes
        name = "\n".join(shortened(line, _WIDTH) for line in name.splitlines())
        axes.annotate(name, (0, at - 0.22), annotation_clip=False, **where)
        if several:
            said = ", ".join(filter(None, (chance, places)))
            axes.annotate(said, (1, at - 0.22), ha="right", color=MUTED, annotation_clip=False, **where)
    axes.set_yticks([])
    axes.set_ylim(at + 0.5, 0)
    axes.grid(False, axis="y")
    keep_in_bounds([axes], run.select, "x")
    name = measure_name(run.select)
    axes.set_xlabel(f"{name}, %" if unit == 100 else name)
    count = len(evidence.ranks)
    which = f"The {len(shown)} foremost of {count} settings" if count > len(shown) else f"All {count} settings"
    bars = (
        "Lines: 95 % t interval of the mean. P(best): probability of the best true mean; places: "
        "those that tests of all pairs leave open (95 %)."
        if several
        else "No intervals: trainings share random streams."
        if shown[0].n > 1
        else "One seed each: no error bars."
    )
    caption = (
        f"{which} by {name}. Diamonds: mean over n = {shown[0].n} {run.repeats}; points below: each of them. {bars}"
        f"{off_zero([axes], 'x')}"
    )
    return render(figure, "ranking", "Which setting is best", caption)


def _parallel(run: Run) -> Plot:
    """Parallel coordinates; the best settings in colour."""
    shown = run.ranked[:_LINES]
    axes_names = list(run.varying)
    unit = scale(run.select)
    figure, [[axes]] = canvas(max(5.4, min(11, 1.5 * (len(axes_names) + 1))), 4.2)
    columns = []
    for x, axis in enumerate(axes_names):
        names = run.settings[axis].map(partial(level, axis))
        levels = sorted(set(names), key=lambda name: _order(run, axis, name))
        heights = {name: (place + 0.5) / len(levels) for place, name in enumerate(levels)}
        columns.append(names[shown].map(heights).to_numpy(float))
        axes.axvline(x, color=GRID, lw=1)
        if len(levels) <= 12:
            for name, height in heights.items():
                box = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.6}
                axes.annotate(shortened(name, 20), (x, height), (-4, 0), textcoords="offset points", fontsize=7.5,
                              ha="right", va="center", bbox=box, zorder=5)  # fmt: skip
    values = run.settings.loc[shown, run.select].to_numpy(float)
    low, high = values.min(), values.max()
    columns.append((values - low) / (high - low) if high > low else np.full(len(values), 0.5))
    axes.axvline(len(axes_names), color=GRID, lw=1)
    lines = np.stack(columns, axis=1)
    lines[:, :-1] += np.linspace(-0.02, 0.02, len(shown))[:, None]  # through the same value side by side
    for place in reversed(range(len(shown))):
        look: dict[str, Any] = {"color": MUTED, "lw": 0.8, "alpha": max(0.12, 0.6 - len(shown) / 200)}
        if place < _BEST:
            look = {**setting_look(run, shown[place]), "lw": 2.0, "zorder": 4}
        axes.plot(range(len(axes_names) + 1), lines[place], **look)
    for end, value in ((0, low), (1, high)):
        axes.annotate(f"{unit * value:.4g}", (len(axes_names), end), (5, 0), textcoords="offset points", fontsize=8,
                      va="center")  # fmt: skip
    name = measure_name(run.select)
    axes.set_xticks(range(len(axes_names) + 1), [*map(word, axes_names), f"{name}{', %' if unit == 100 else ''}"])
    axes.set_yticks([])
    axes.set_xlim(-0.45, len(axes_names) + 0.25)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    best = [line_handle(run.tell_apart(s), lw=2, **setting_look(run, s)) for s in shown[:_BEST]]
    legend(figure, best, columns=1 if max(len(run.tell_apart(s)) for s in shown[:_BEST]) > 40 else 2)
    some = f" ({len(shown)} best of {len(run.ranked)})" if len(run.ranked) > len(shown) else ""
    caption = (
        f"Every setting{some} as a line through its values, to its mean {name} over seeds on the right; the "
        f"{min(_BEST, len(shown))} best in colour. No error bars."
    )
    return render(figure, "parallel_coordinates", "What mattered", caption)


def _order(run: Run, axis: str, name: str) -> float:
    """Numbers by size, words as they come."""
    for place, value in enumerate(run.settings[axis]):
        if level(axis, value) == name:
            return place if isinstance(value, str) else float(np.nan_to_num(value, nan=-1.0))
    return 0.0
