"""The configurations of a run ranked and compared over their seeds."""

import dataclasses
import math
from collections.abc import Hashable
from typing import NamedTuple, cast

from cnnjax import stats
from cnnjax.analysis.chance import stuck_trials
from cnnjax.analysis.columns import bounds, larger_is_better
from cnnjax.analysis.looks import count_looks
from cnnjax.analysis.run import Run, once_per_run


class Evidence(NamedTuple):
    """The configurations of a run compared with each other by the study's measure.

    Attributes:
        configurations: the configurations that lost no seed, the best first.
        ranks: their ranks, in the same order.
        paired: whether configurations are compared by seed, see `stats.pairing_helps`.
        selection: what the selected configuration reaches on seeds that did not select it; None with fewer than two
            seeds.
    """

    configurations: list[int]
    ranks: list[stats.Rank]
    paired: bool
    selection: stats.SelectionEstimate | None

    @property
    def against(self) -> list[stats.Comparison]:
        """The best compared with each other configuration, in the same order."""
        return [rank.against for rank in self.ranks if rank.against is not None]

    @property
    def undecided(self) -> list[int]:
        """The places in `configurations` of those that may be the best as well, which the data do not decide."""
        return [place for place, found in enumerate(self.against, 1) if found.verdict == "undecided"]


@once_per_run
def weigh(run: Run) -> Evidence | None:
    """Compares the configurations of a run; returns None if no configuration has a value of the study's measure."""
    if not run.ranked:
        return None
    best = run.complete_seeds[run.ranked].max()
    select: dict[Hashable, dict[Hashable, float]] = {
        configuration: run.by_seed(configuration, run.select)
        for configuration in run.ranked
        if run.complete_seeds[configuration] == best
    }
    looks, of_trial = count_looks(run), run.trials.set_index("trial")["configuration"]
    larger, (least, greatest) = larger_is_better(run.select), bounds(run.select)
    ranks = stats.rank(
        select,
        larger_is_better=larger,
        most=greatest - least,
        scale=scale_of(run, run.select),
        stuck={configuration: every_stuck_seed(run, cast(int, configuration)) for configuration in select},
        share=looks.share,
        earlier_shares={of_trial[trial]: share for trial, share in looks.worse.items() if trial in of_trial},
    )
    configurations = [cast(int, rank.name) for rank in ranks]
    selection = None
    if len(ranks) > 1 and len(set.intersection(*map(set, select.values()))) > 1:
        test: dict[Hashable, dict[Hashable, float]] = {s: run.by_seed(s, "test_accuracy") for s in configurations}
        selection = stats.nested_selection(select, test, larger_is_better=larger, report_larger_is_better=True)
    paired = any(rank.against is not None and rank.against.paired for rank in ranks)
    return Evidence(configurations, ranks, paired, selection)


def are_equal(found: Evidence, margin: float | None) -> bool:
    """Returns whether all other configurations that may be the best are equal to the winner, within a margin if given.

    Each is tested at the full risk of the look: the claim is that all are equal, and it needs all tests.
    """
    others = [one for one in found.against if one.verdict != "better"]
    return bool(others) and all(dataclasses.replace(one, margin=margin).verdict == "equal" for one in others)


def scale_of(run: Run, measure: str) -> stats.Scale:
    """Returns the scale on which a measure of a run is compared: logit for shares, log for losses.

    A measure without bounds, of a metric of the user, is compared as it is.
    """
    if math.isinf(bounds(measure)[0]):
        return stats.Scale()
    if not larger_is_better(measure):
        return stats.Scale("log")
    split = {"train": "train", "val": "validation", "test": "test"}[measure.partition("_")[0]]
    counts = run.data.get("counts", {})
    return stats.Scale("logit", counts.get(split) or counts.get("test") or math.inf)


def every_stuck_seed(run: Run, configuration: int) -> set[Hashable]:
    """Returns the seeds and streams of a configuration that never left chance."""
    stuck = stuck_trials(run)
    trials = set(stuck.loc[stuck["configuration"] == configuration, "trial"])
    return {key for key, trial in run.keys(configuration).items() if trial in trials}


def stuck_seeds(run: Run, configuration: int) -> set[Hashable]:
    """Returns the seeds and streams of a configuration that never left chance; none if no other seed did."""
    found = every_stuck_seed(run, configuration)
    return found if len(found) < len(run.keys(configuration)) else set()


@once_per_run
def trained_values(run: Run, measure: str) -> dict[int, dict[Hashable, float]]:
    """Returns the values of each configuration by seed and streams, without seeds that are stuck."""
    stuck = {int(s): stuck_seeds(run, int(s)) for s in run.configurations.index}
    return {s: stats.split_stuck(run.by_seed(s, measure), of)[0] for s, of in stuck.items()}


def summarize(run: Run, configuration: int, measure: str) -> stats.Summary | None:
    """Returns `run.summary` with the interval of the mean from the spreads of all configurations; None without values.

    With fewer than three configurations it is the t interval. A configuration with stuck seeds has no interval: a mean
    of trained networks and of others is far from normal.
    """
    found = run.summary(configuration, measure)
    if found is None:
        return None
    values, prior = trained_values(run, measure), _prior(run, measure)
    if len(values[configuration]) < found.n:
        return dataclasses.replace(found, low=math.nan, high=math.nan)
    if not prior.freedom:
        return found
    interval = stats.mean_interval([*values[configuration].values()], scale_of(run, measure), prior)
    return dataclasses.replace(found, low=interval.low, high=interval.high)


@once_per_run
def _prior(run: Run, measure: str) -> stats.Prior:
    """Returns the prior of a configuration's spread over seeds, from the spreads of all configurations."""
    scale = scale_of(run, measure)
    every = trained_values(run, measure).values()
    return stats.borrow([scale.apply([*of.values()]) for of in every if of], scale=scale)
