"""The configurations of a run ranked and compared over their seeds."""

import dataclasses
import math
from collections.abc import Hashable
from typing import NamedTuple, cast

from cnnjax import stats
from cnnjax.analysis.columns import bounds, larger_is_better
from cnnjax.analysis.run import Run, once_per_run

_RISK = 0.05  # family-wise error rate of calling a configuration better


class Evidence(NamedTuple):
    """The configurations of a run compared with each other by the study's measure.

    Attributes:
        configurations: the configurations that lost no seed, the best first.
        ranks: their ranks, in the same order.
        against: the best compared with each other configuration, in the same order, as one of the tests of all pairs.
        paired: whether configurations are compared by seed, see `stats.pairing_helps`.
        selection: what the selected configuration reaches on seeds that did not select it; None with fewer than two
            seeds.
    """

    configurations: list[int]
    ranks: list[stats.Rank]
    against: list[stats.Comparison]
    paired: bool
    selection: stats.SelectionEstimate | None

    @property
    def runner_up(self) -> stats.Comparison | None:
        """The best compared with the second; None if there is no second."""
        return self.against[0] if self.against else None

    @property
    def decided(self) -> bool:
        """Whether the best is better than the runner-up after the correction for all pairs."""
        return bool(self.against) and self.verdict(1) == "better"

    @property
    def pairs(self) -> int:
        """The number of pairs of configurations."""
        return math.comb(len(self.configurations), 2)

    def verdict(self, place: int) -> stats.Verdict:
        """The verdict on the best against the configuration at index `place`, by Holm's correction for all pairs."""
        found = self.against[place - 1].verdict
        return "undecided" if found in ("better", "worse") and not self.ranks[place].p < _RISK else found


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
    against = [
        dataclasses.replace(
            stats.compare(best, other, larger_is_better=larger, most=greatest - least, pair=paired), tests=tests
        )
        for other in others
    ]
    selection = None
    if len(ranks) > 1 and most > 1 and len(set.intersection(*map(set, select.values()))) > 1:
        test: dict[Hashable, dict[Hashable, float]] = {s: run.by_seed(s, "test_accuracy") for s in configurations}
        selection = stats.nested_selection(select, test, larger_is_better=larger, report_larger_is_better=True)
    return Evidence(configurations, ranks, against, paired, selection)
