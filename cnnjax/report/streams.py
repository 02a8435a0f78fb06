"""Where the spread comes from: the variance of a study that crosses random streams, split among them."""

from typing import Any, NamedTuple

import pandas as pd

from cnnjax import stats
from cnnjax.report.run import Run
from cnnjax.report.style import INK, PAPER, SERIES, Plot, canvas, context, keep_in_bounds, legend, line_handle, render
from cnnjax.report.tables import Table

_SETTINGS = 4  # at most


class Sources(NamedTuple):
    """The components of variance of a setting's test accuracy over `trials` trainings."""

    setting: int
    name: str
    trials: int
    found: stats.Components


def split_variance(run: Run) -> list[Sources]:
    """Splits each setting's variance, the best first; those whose crossing is not complete are left out."""
    if not run.crossed:
        return []
    split = []
    for setting, name in run.foremost(_SETTINGS).items():
        trials = run.ok[run.ok["setting"] == setting]
        columns = {stream: trials[f"stream_{stream}"] for stream in run.crossed}
        if trials["seed"].nunique() > 1:
            columns["seed"] = trials["seed"]  # of the streams that are not crossed
        try:
            found = stats.variance_components(columns, trials["test_accuracy"])
        except ValueError:  # a trial is missing
            continue
        split.append(Sources(setting, name, len(trials), found))
    return split


def source_tables(sources: list[Sources]) -> list[Table]:
    """One row per setting and source."""
    rows: list[dict[str, Any]] = []
    for setting in sources:
        for part in setting.found.components:
            rows.append(
                {"setting": setting.name, "source": " x ".join(part.sources), "trials": setting.trials}
                | {"freedom": part.freedom, "std": part.std, "share": part.share}
                | {"share_low": part.share_low, "share_high": part.share_high}
            )
    if not rows:
        return []
    note = (
        "Components of the variance of test accuracy in a random-effects model: what each stream adds by itself, and "
        "together with others beyond that. std: its standard deviation, in points; share % of the sum of all, with "
        "its 95 % interval (generalised). Trainings of equal streams are equal, so the last interaction is no noise: "
        "it is what only that combination does."
    )
    kinds = {"setting": "text", "source": "text", "freedom": "whole"}
    kinds |= dict.fromkeys(("std", "share", "share_low", "share_high"), "percent")
    return [Table("variance_components", "Where the spread comes from", note, pd.DataFrame(rows), kinds=kinds)]


def draw_sources(sources: list[Sources]) -> list[Plot]:
    """The share of each source, one bar per setting that has a spread."""
    sources = [setting for setting in sources if setting.found.total]
    if not sources:
        return []
    names = [" x ".join(part.sources) for part in sources[0].found.components]
    with context():
        figure, [[axes]] = canvas(8, 1.1 + (0.1 + 0.11 * len(sources)) * len(names))
        width = 0.8 / len(sources)
        handles = []
        for index, setting in enumerate(sources):
            colour = SERIES[index]
            for place, part in enumerate(setting.found.components):
                y = place + (index - (len(sources) - 1) / 2) * width
                share, low, high = (100 * value for value in (part.share, part.share_low, part.share_high))
                axes.barh(y, share, 0.9 * width, color=PAPER)  # hides the grid
                axes.barh(y, share, 0.9 * width, color=colour, alpha=0.6)
                axes.plot([low, high], [y, y], color=INK, lw=1.1)
            std = 100 * setting.found.total**0.5
            handles.append(line_handle(f"{setting.name}: std {std:.2f} points", color=colour, lw=5, alpha=0.6))
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(left=0)
        keep_in_bounds([axes], "test_accuracy", "x")
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel("% of the variance of test accuracy")
        legend(figure, handles, columns=2)
        caption = (
            f"Where the spread comes from: {sources[0].trials} trainings cross the random streams. Bars: share of the "
            "variance of test accuracy that each stream adds by itself (first), or only together with others. Lines: "
            "95 % intervals of the shares (generalised), wide where few levels of a stream were drawn. std: of "
            "trainings whose streams are all new."
        )
        return [render(figure, "variance_components", "Where the spread comes from", caption)]
