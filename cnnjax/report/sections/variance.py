"""The variance between trainings of a study that crosses random streams, split among the streams."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from cnnjax import stats
from cnnjax.analysis.run import Run, once_per_run
from cnnjax.report.tables import Table
from cnnjax.report.theme import (
    INK,
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

_CONFIGURATIONS = 4  # at most
_GROUP = "Where the spread comes from"


class Sources(NamedTuple):
    """The variance components of a configuration's test accuracy over `trials` trainings."""

    configuration: int
    name: str
    trials: int
    found: stats.Components


@once_per_run
def split_variance(run: Run) -> list[Sources]:
    """Splits the variance of each configuration with a complete crossing, the best first."""
    if not run.crossed:
        return []
    split = []
    for configuration, name in run.foremost(_CONFIGURATIONS).items():
        trials = run.ok[run.ok["configuration"] == configuration]
        columns = {stream: trials[f"stream_{stream}"] for stream in run.crossed}
        if trials["seed"].nunique() > 1:
            columns["seed"] = trials["seed"]  # of the streams that are not crossed
        try:
            found = stats.variance_components(columns, trials["test_accuracy"])
        except ValueError:  # a trial is missing
            continue
        split.append(Sources(configuration, name, len(trials), found))
    return split


def tables(run: Run) -> list[Table]:
    """A row per configuration and source of variance."""
    rows: list[dict[str, Any]] = [
        {"configuration": split.name, "source": " x ".join(part.sources), "trials": split.trials}
        | {"freedom": part.freedom, "std": part.std, "share": part.share}
        | {"share_low": part.share_low, "share_high": part.share_high}
        for split in split_variance(run)
        for part in split.found.components
    ]
    if not rows:
        return []
    note = (
        "Components of the variance of test accuracy in a random-effects model: what each stream adds alone, and "
        "together with others beyond that. std: the component's standard deviation, in points. Share: % of the sum of "
        "all components, with its generalized 95 % interval. Trainings with equal streams are equal, so the last "
        "interaction is not noise: it is what only this combination adds."
    )
    kinds = dict.fromkeys(("std", "share", "share_low", "share_high"), "percent")
    return [Table("variance_components", _GROUP, note, pd.DataFrame(rows), kinds=kinds)]


@themed
def figures(run: Run) -> Iterator[Plot]:
    """The share of each source, one bar per configuration that has a spread."""
    sources = [split for split in split_variance(run) if split.found.total]
    if not sources:
        return
    names = [" x ".join(part.sources) for part in sources[0].found.components]
    figure, [[axes]] = canvas(8, 1.1 + (0.1 + 0.11 * len(sources)) * len(names))
    width, handles = 0.8 / len(sources), []
    for index, split in enumerate(sources):
        for place, part in enumerate(split.found.components):
            y = place + (index - (len(sources) - 1) / 2) * width
            draw_bars(axes, y, 100 * part.share, 0.9 * width, SERIES[index])
            axes.plot([100 * part.share_low, 100 * part.share_high], [y, y], color=INK, lw=1.1)
        std = 100 * split.found.total**0.5
        handles.append(line_handle(f"{split.name}: std {std:.2f} points", color=SERIES[index], lw=5, alpha=0.6))
    name_rows(axes, names)
    axes.set_xlim(left=0)
    keep_in_bounds([axes], "test_accuracy", "x")
    axes.set_xlabel("% of the variance of test accuracy")
    legend(figure, handles, columns=2)
    caption = (
        f"Where the spread comes from: {sources[0].trials} trainings cross the random streams. Bars: share of the "
        "variance of test accuracy that each stream adds alone (first) and together with others. Lines: generalized "
        "95 % intervals of the shares, wide where a stream has few levels. std: between trainings with all streams new."
    )
    yield render(figure, "variance_components", _GROUP, caption)
