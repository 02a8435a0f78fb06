"""The spread of each configuration over its seeds."""

import dataclasses
from collections.abc import Iterator

import pandas as pd

from cnnjax import stats
from cnnjax.analysis.columns import bounds, measure_label, scale
from cnnjax.analysis.evidence import summarize
from cnnjax.analysis.run import Run
from cnnjax.report.tables import Table, shown_axes
from cnnjax.report.theme import (
    Plot,
    canvas,
    configuration_color,
    keep_in_bounds,
    legend,
    line_handle,
    off_zero,
    render,
    themed,
)
from cnnjax.study.metrics import MEASURES

_INTERVALS = ("sem", "low", "high", "iqm_low", "iqm_high", "new_low", "new_high")


def tables(run: Run) -> list[Table]:
    """The test accuracy of several configurations over their seeds, or each measure of a single one.

    Trainings that share random streams have no interval.
    """
    if run.configurations["n"].max() < 2:
        return []
    several = len(run.configurations) > 1
    own = (measure for measure in run.measures if measure not in MEASURES)
    all_measures = ["test_accuracy", "test_loss", "test_f1", "val_accuracy", "val_loss", *own]
    measures = ["test_accuracy"] if several else all_measures
    order = dict.fromkeys([*run.ranked, *run.configurations.index])
    rows = []
    for configuration, measure in ((configuration, measure) for configuration in order for measure in measures):
        values = run.values(configuration, measure)
        if not values:
            continue
        new = stats.prediction_interval(values, bounds(measure))
        head = run.configurations.loc[configuration, shown_axes(run)].to_dict() if several else {"measure": measure}
        row = head | dataclasses.asdict(stats.summarize(values, bounds(measure)))
        row |= {"new_low": new.low, "new_high": new.high}
        rows.append({name: value for name, value in row.items() if not (run.crossed and name in _INTERVALS)})
    intervals = (
        "sem: standard error of the mean. Low to high: 95 % t interval of the mean. iqm: interquartile mean, with its "
        "95 % bootstrap interval. New low to new high: the 95 % prediction interval of one more seed, to compare with "
        "a published single run. All intervals end at the bounds of the measure."
    )
    shared = "iqm: interquartile mean. No intervals: trainings share random streams."
    note = (
        f"{'Test accuracy' if several else 'Each measure'} over the n {run.repeats} of a configuration, "
        f"{'in %' if several else 'as stored (accuracies are shares)'}. std: standard deviation across them. "
        f"{shared if run.crossed else intervals}{run.folds_note}"
    )
    frame = pd.DataFrame(rows)
    kinds = dict.fromkeys(frame.columns[len(shown_axes(run)) + 1 :], "percent") if several else {}
    return [Table("over_seeds", "Spread over seeds", note, frame, kinds=kinds)]


@themed
def figures(run: Run) -> Iterator[Plot]:
    """The trials of up to four configurations by seed."""
    if len(run.ok) and len(run.configurations) <= 4 and run.ok["seed"].nunique() > 1:
        yield _by_seed(run)


def _by_seed(run: Run) -> Plot:
    figure, [row] = canvas(8, 3.4, columns=2)
    seeds = sorted(run.ok["seed"].unique())
    configurations = list(map(int, run.configurations.index))
    for axes, measure in zip(row, ("test_loss", "test_accuracy"), strict=True):
        unit = scale(measure)
        for configuration in configurations:
            trials = run.ok[run.ok["configuration"] == configuration]
            summary, color = summarize(run, configuration, measure), configuration_color(run, configuration)
            if summary is None:
                continue
            axes.axhline(unit * summary.mean, color=color, lw=1.2)
            if summary.low < summary.high:
                axes.axhspan(unit * summary.low, unit * summary.high, color=color, alpha=0.12, lw=0)
            x = [seeds.index(seed) for seed in trials["seed"]]
            axes.plot(x, unit * trials[measure], "o", color=color, ms=6 if len(seeds) <= 12 else 3.5)
        named = range(0, len(seeds), -(-len(seeds) // 12))
        axes.set_xticks(named, [str(seeds[place]) for place in named])
        axes.set_xlim(-0.5, len(seeds) - 0.5)
        axes.set_xlabel("seed")
        axes.set_title(measure_label(measure))
        axes.grid(False, axis="x")
        keep_in_bounds([axes], measure)
    if len(configurations) > 1:
        looks = {configuration: configuration_color(run, configuration) for configuration in configurations}
        handles = [line_handle(run.describe(s), color=color, marker="o", lw=1.2) for s, color in looks.items()]
        legend(figure, handles, columns=1)
    caption = (
        "Test loss and accuracy by seed. Points: trials. Line: mean over seeds; band: 95 % interval of the mean."
        f"{off_zero(row)}"
    )
    return render(figure, "by_seed", "Seeds", caption)
