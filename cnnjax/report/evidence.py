"""What the seeds support: which setting is best, how sure that is, and how far each setting's seeds spread."""

import dataclasses
import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import pandas as pd

from cnnjax import stats
from cnnjax.report.names import bounds, larger_is_better, measure_name
from cnnjax.report.run import Run
from cnnjax.report.tables import Table, shown_axes
from cnnjax.types import counted

_RANKED = 100  # rows of a table, at most
_INTERVALS = ("sem", "low", "high", "iqm_low", "iqm_high", "new_low", "new_high")
_RISK = 0.05  # of calling any setting better that is not


class Evidence(NamedTuple):
    """The settings of a run held against each other by the study's measure.

    Attributes:
        settings: those that lost no seed, the best first.
        ranks: of each of them.
        against: the best compared with each of the others, in their order, as one of the tests of all pairs.
        paired: whether they are compared by seed, see `stats.pairing_helps`.
        honest: what the choice brings on seeds that had no say in it; None where there are not two seeds.
    """

    settings: list[int]
    ranks: list[stats.Rank]
    against: list[stats.Comparison]
    paired: bool
    honest: stats.Honest | None

    @property
    def runner_up(self) -> stats.Comparison | None:
        """The best compared with the second; None without one."""
        return self.against[0] if self.against else None

    @property
    def decided(self) -> bool:
        """Whether the best is better than the runner-up, also after as many tests as there are pairs of settings."""
        return bool(self.against) and self.verdict(1) == "better"

    @property
    def pairs(self) -> int:
        """The number of pairs of settings."""
        return math.comb(len(self.settings), 2)

    def verdict(self, place: int) -> stats.Verdict:
        """What the best is, beside the setting in a place (the second is 1), by Holm's correction for all pairs."""
        found = self.against[place - 1].verdict
        return "undecided" if found in ("better", "worse") and not self.ranks[place].p < _RISK else found


def weigh(run: Run) -> Evidence | None:
    """Compares a run's settings; None where none has a value to select by."""
    found = {setting: run.by_seed(setting, run.select) for setting in run.ranked}
    if not found:
        return None
    most = max(map(len, found.values()))
    names = [setting for setting, values in found.items() if len(values) == most]
    larger, (least, greatest) = larger_is_better(run.select), bounds(run.select)
    select: dict[Hashable, dict[Hashable, float]] = {name: found[name] for name in names}
    ranks = stats.rank(select, larger_is_better=larger)
    settings = sorted(names, key=[rank.name for rank in ranks].index)
    best, *others = (select[setting] for setting in settings)
    tests, paired = math.comb(len(settings), 2), stats.pairing_helps(select)  # as the ranks are
    compared = (
        stats.compare(best, other, larger_is_better=larger, most=greatest - least, pair=paired) for other in others
    )
    against = [dataclasses.replace(comparison, tests=tests) for comparison in compared]
    honest = None
    if len(ranks) > 1:
        test: dict[Hashable, dict[Hashable, float]] = {name: run.by_seed(name, "test_accuracy") for name in names}
        if most > 1 and len(set.intersection(*(set(values) for values in select.values()))) > 1:
            honest = stats.select_honestly(select, test, larger_is_better=larger, report_larger_is_better=True)
    return Evidence(settings, ranks, against, paired, honest)


def ranking_tables(run: Run, evidence: Evidence) -> list[Table]:
    """The ranking of several settings; none of trainings that share random streams, which are not independent."""
    if len(evidence.ranks) < 2 or run.crossed:
        return []
    rows: list[dict[str, Any]] = []
    for place, (setting, rank) in enumerate(zip(evidence.settings, evidence.ranks, strict=True), 1):
        if place > _RANKED:
            break
        row: dict[str, Any] = {"place": place} | run.settings.loc[setting, shown_axes(run)].to_dict()
        row |= {"n": rank.n, run.select: rank.mean, "p_best": rank.best}
        rows.append(row | {"first_place": rank.low, "last_place": rank.high})
    count = len(evidence.ranks)
    some = f" The first {_RANKED} of {count} settings." if count > _RANKED else ""
    lost = len(run.settings) - count
    left_out = f" {counted(lost, 'setting')} with fewer seeds left out." if lost else ""
    note = (
        f"By {measure_name(run.select)}, means over n seeds.{some}{left_out} P(best): probability of "
        "the best true mean, as far as the seeds tell (by t; none where they show no spread). First to last place: "
        "what tests of all pairs leave open (95 %, Holm)."
    )
    kinds = dict.fromkeys(("place", "first_place", "last_place"), "whole")
    return [Table("ranking", "Ranking", note, pd.DataFrame(rows), (0,), kinds)]


def spread_tables(run: Run) -> list[Table]:
    """Every setting's test accuracy over its seeds, where it has several; of one setting, every measure.

    Trainings that share random streams have no interval.
    """
    if run.settings["n"].max() < 2:
        return []
    several = len(run.settings) > 1
    measures = ["test_accuracy"] if several else ["test_accuracy", "test_loss", "f1", "val_accuracy", "val_loss"]
    order = [*run.ranked, *(setting for setting in run.settings.index if setting not in run.ranked)]
    rows = []
    for setting in order:
        for measure in measures:
            values = run.values(setting, measure)
            if not values:
                continue
            found = dataclasses.asdict(stats.summarise(values, bounds(measure)))
            new = stats.prediction_interval(values, bounds(measure))
            head = run.settings.loc[setting, shown_axes(run)].to_dict() if several else {"measure": measure}
            row = head | found | {"new_low": new.low, "new_high": new.high}
            rows.append({name: value for name, value in row.items() if not (run.crossed and name in _INTERVALS)})
    what = f"{'Test accuracy' if several else 'Each measure'} over the n {run.repeats} of a setting"
    intervals = (
        "sem: of the mean. Low to high: 95 % t interval of the mean; iqm: mean of the middle half, with its 95 % "
        "bootstrap interval. New low to new high: the 95 % prediction interval of one more seed, the one to hold a "
        "published single run against. All end where the measure does."
    )
    shared = "iqm: mean of the middle half. No intervals: trainings share random streams."
    note = (
        f"{what}, as {'%' if several else 'stored (accuracies are shares)'}. std: standard deviation across them; "
        f"{shared if run.crossed else intervals}"
    )
    frame = pd.DataFrame(rows)
    kinds = {"measure": "text"}
    if several:
        kinds = dict.fromkeys(frame.columns[len(shown_axes(run)) + 1 :], "percent")
    return [Table("over_seeds", "Spread over seeds", note, frame, kinds=kinds)]
