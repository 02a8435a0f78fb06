"""The configurations of a run ranked and compared over their seeds."""

import dataclasses
import math
from collections.abc import Hashable
from typing import Any, NamedTuple, cast

from cnnjax import stats
from cnnjax.analysis.columns import bounds, larger_is_better
from cnnjax.analysis.run import Run, once_per_run


class Evidence(NamedTuple):
    """The configurations of a run compared with each other by the study's measure.

    Attributes:
        configurations: the configurations that lost no seed, the best first.
        ranks: their ranks, in the same order.
        against: the best compared with each other configuration, in the same order, by Holm's correction for all
            pairs.
        paired: whether configurations are compared by seed, see `stats.pairing_helps`.
        selection: what the selected configuration reaches on seeds that did not select it; None with fewer than two
            seeds.
    """

    configurations: list[int]
    ranks: list[stats.Rank]
    against: list[stats.Adjusted]
    paired: bool
    selection: stats.SelectionEstimate | None

    @property
    def runner_up(self) -> stats.Adjusted | None:
        """The best compared with the second; None if there is no second."""
        return self.against[0] if self.against else None

    @property
    def pairs(self) -> int:
        """The number of pairs of configurations."""
        return math.comb(len(self.configurations), 2)


@once_per_run
def weigh(run: Run) -> Evidence | None:
    """Compares the configurations of a run; returns None if no configuration has a value of the study's measure."""
    found = {configuration: run.by_seed(configuration, run.select) for configuration in run.ranked}
    if not found:
        return None
    most = max(map(len, found.values()))
    larger, (least, greatest) = larger_is_better(run.select), bounds(run.select)
    select: dict[Hashable, dict[Hashable, float]] = {
        s: of_seeds for s, of_seeds in found.items() if len(of_seeds) == most
    }
    ranks = stats.rank(select, larger_is_better=larger)
    configurations = [cast(int, rank.name) for rank in ranks]
    best, *others = (select[configuration] for configuration in configurations)
    tests, paired = math.comb(len(configurations), 2), stats.pairing_helps(select)  # as the ranks are
    options: dict[str, Any] = {"larger_is_better": larger, "most": greatest - least, "pair": paired}
    against = [
        stats.Adjusted(dataclasses.replace(stats.compare(best, other, **options), tests=tests), rank.p)
        for other, rank in zip(others, ranks[1:], strict=True)
    ]
    selection = None
    if len(ranks) > 1 and most > 1 and len(set.intersection(*map(set, select.values()))) > 1:
        test: dict[Hashable, dict[Hashable, float]] = {s: run.by_seed(s, "test_accuracy") for s in configurations}
        selection = stats.nested_selection(select, test, larger_is_better=larger, report_larger_is_better=True)
    return Evidence(configurations, ranks, against, paired, selection)
