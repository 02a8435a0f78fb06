"""The looks at a study that grows: how many there were, and what this one may risk."""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from cnnjax import stats
from cnnjax.analysis.run import Run, once_per_run


class Looks(NamedTuple):
    """The looks at a study, with the present one.

    Attributes:
        seeds: the largest number of seeds of a configuration at each look, the present one last.
        shares: their shares of the risk of 5 %, see `stats.looks`.
        margin: the difference that does not matter, if `--until=decided` was given one.
        worse: the share of the look that found a configuration worse, by its first trial.
    """

    seeds: list[int]
    shares: list[float]
    margin: float | None = None
    worse: Mapping[str, float] = MappingProxyType({})

    @property
    def share(self) -> float:
        """The share of the present look."""
        return self.shares[-1]

    @property
    def total_risk(self) -> float:
        """The largest probability that any of the looks errs."""
        return (1 - stats.LEVEL) * sum(self.shares)


@once_per_run
def count_looks(run: Run) -> Looks:
    """Returns the looks at the study of a run. The present one is one of those in config.json, or a further one."""
    records = run.config.get("looks", [])
    seeds = [max(look["seeds"].values()) for look in records]
    shares: list[float] = []
    worse: dict[str, float] = {}
    for look in records:  # older runs have looks with a share of 0, after the whole risk was spent
        shares.append(look["share"] or stats.share_of_unplanned_look(sum(shares)))
        out = {*look["seeds"]} - {*look.get("in_question", look["seeds"])}
        worse |= {trial: max(shares[-1], worse.get(trial, 0.0)) for trial in out}
    of_trial = run.trials.groupby("configuration")["seed"].nunique().reindex(run.trials["configuration"])
    present = dict(zip(run.trials["trial"], of_trial.astype(int), strict=True))
    if records and all(present.get(trial, count) == count for trial, count in records[-1]["seeds"].items()):
        return Looks(seeds, shares, records[-1].get("margin"), worse)
    share = stats.share_of_unplanned_look(sum(shares))
    return Looks([*seeds, max(present.values(), default=0)], [*shares, share], None, worse)


def seeds_in_words(looks: Looks) -> str:
    """Returns the numbers of seeds at the looks, as in `3, 4 and 6`; equal ones in a row count once."""
    *others, last = (str(count) for count, _ in itertools.groupby(looks.seeds))
    return f"{', '.join(others)} and {last}" if others else last
