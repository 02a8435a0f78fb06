"""What the seeds support: which setting is best, how sure that is, and how far each setting's seeds spread."""

import dataclasses
from collections.abc import Hashable
from typing import Any, NamedTuple

import pandas as pd

from cnnjax import stats
from cnnjax.report.names import bounds, measure_name
from cnnjax.report.read import Run
from cnnjax.report.tables import Table, shown_axes

_RANKED = 25  # rows of the table, at most
_INTERVALS = ("sem", "low", "high", "iqm_low", "iqm_high", "new_low", "new_high")
_RISK = 0.05  # of calling any setting better that is not


class Evidence(NamedTuple):
    """The settings of a run held against each other by the study's measure.

    Attributes:
        settings: those that lost no seed, the best first.
        ranks: of each of them.
        runner_up: the best compared with the second; None without one.
        honest: what the choice brings on seeds that had no say in it; None where there are not two seeds.
    """

    settings: list[int]
    ranks: list[stats.Rank]
    runner_up: stats.Comparison | None
    honest: stats.Honest | None

    @property
    def decided(self) -> bool:
        """Whether the best is better than the runner-up, also after as many tests as there are pairs of settings."""
        return self.runner_up is not None and self.runner_up.verdict == "better" and self.ranks[1].p < _RISK


def weigh(run: Run) -> Evidence | None:
    """Compares a run's settings; None where none has a value to select by."""
    most = run.settings["n"].max()
    names = [setting for setting in run.ranked if run.settings.loc[setting, "n"] == most]
    if not names:
        return None
    larger = not run.select.endswith("loss")
    select: dict[Hashable, dict[Hashable, float]] = {name: run.by_seed(name, run.select) for name in names}
    ranks = stats.rank(select, larger_is_better=larger)
    settings = sorted(names, key=[rank.name for rank in ranks].index)
    runner_up = honest = None
    if len(ranks) > 1:
        best, second = (select[setting] for setting in settings[:2])
        runner_up = stats.compare(best, second, larger_is_better=larger)
        test: dict[Hashable, dict[Hashable, float]] = {name: run.by_seed(name, "test_accuracy") for name in names}
        if most > 1 and len(set.intersection(*(set(values) for values in select.values()))) > 1:
            honest = stats.select_honestly(select, test, larger_is_better=larger, report_larger_is_better=True)
    return Evidence(settings, ranks, runner_up, honest)


def evidence_tables(run: Run, evidence: Evidence) -> list[Table]:
    """The ranking of several settings, and the spread over the seeds of each that has several.

    Trainings that share random streams are not independent: of them there is no ranking, and no interval.
    """
    tables = [_ranking(run, evidence)] if len(evidence.ranks) > 1 and not run.crossed else []
    return [*tables, _spread(run)] if run.settings["n"].max() > 1 else tables


def _ranking(run: Run, evidence: Evidence) -> Table:
    larger = not run.select.endswith("loss")
    best = run.by_seed(evidence.settings[0], run.select)
    rows: list[dict[str, Any]] = []
    for place, (setting, rank) in enumerate(zip(evidence.settings, evidence.ranks, strict=True), 1):
        if place > _RANKED:
            break
        row: dict[str, Any] = {"place": place} | run.settings.loc[setting, shown_axes(run)].to_dict()
        row |= {
            "n": rank.n,
            run.select: rank.mean,
            "p_best": rank.best,
            "first_place": rank.low,
            "last_place": rank.high,
        }
        if place > 1:
            found = stats.compare(best, run.by_seed(setting, run.select), larger_is_better=larger)
            low, high = found.interval
            row |= {"difference": found.difference.value, "difference_low": low, "difference_high": high}
            row |= {
                "p": rank.p,
                "leader is": found.verdict if rank.n > 1 else "undecided",
                "seeds_to_decide": found.seeds,
            }
        rows.append(row)
    count = len(evidence.ranks)
    some = f" The first {_RANKED} of {count} settings." if count > _RANKED else ""
    lost = int((run.settings["n"] < run.settings["n"].max()).sum())
    left_out = f" {lost} setting{'s' if lost > 1 else ''} with fewer seeds left out." if lost else ""
    note = (
        f"By {measure_name(run.select)}, means over n seeds.{some}{left_out} P(best): probability of the best mean, "
        "by bootstrap over seeds. First to last place: what tests of all pairs leave open (95 %, Holm). Difference: "
        "the leader's mean less this one's, with its 95 % t interval (paired by seed where seeds are shared), p "
        "adjusted for all pairs, and what the leader is by that one interval. Seeds to decide: how many each needs in "
        "all to decide this difference with 80 % power."
    )
    unit = "percent" if run.select.endswith("accuracy") else "number"
    kinds = dict.fromkeys(("difference", "difference_low", "difference_high"), unit) | {
        **dict.fromkeys(("place", "first_place", "last_place", "seeds_to_decide"), "whole"),
        **{"leader is": "text", "p": "number"},
    }
    return Table("ranking", "Ranking", note, pd.DataFrame(rows), (0,), kinds)


def _spread(run: Run) -> Table:
    """Every setting's test accuracy over its seeds; of one setting, every measure."""
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
    return Table("over_seeds", "Spread over seeds", note, frame, kinds=kinds)
