"""The winner beside every other setting: over seeds, and on single test images."""

import math
from typing import Any

import pandas as pd

from cnnjax import stats
from cnnjax.report.evidence import Evidence
from cnnjax.report.names import measure_name
from cnnjax.report.run import Run
from cnnjax.report.tables import Table
from cnnjax.types import counted

_OTHERS = 99  # over seeds, at most
_RUNNERS_UP = 5  # on single test images, at most
_SMALL = 0.005  # a p-value that few seeds cannot give


def against_tables(run: Run, evidence: Evidence) -> list[Table]:
    """The winner beside the others, of several settings; none of trainings that share random streams."""
    if not evidence.against or run.crossed:
        return []
    return [_over_seeds(run, evidence), *_on_images(run, evidence)]


def _over_seeds(run: Run, evidence: Evidence) -> Table:
    rows: list[dict[str, Any]] = []
    for place, found in enumerate(evidence.against[:_OTHERS], 1):
        row: dict[str, Any] = {"place": place + 1, "instead of": run.tell_apart(evidence.settings[place])}
        verdict = evidence.verdict(place)
        row |= {"the winner is": verdict}  # and what would decide it: in front, for all the columns are wide
        row |= {"more_seeds": max(found.more_seeds) if verdict == "undecided" and found.more_seeds else None}
        row |= {"difference": found.difference.value} | _ends("difference", found.interval)
        if found.difference.standard_error > 0:
            row |= {"p_beats": found.beats.value} | _ends("p_beats", found.beats[1:])
            row |= {
                "effect size": found.effect_size,
                "p": evidence.ranks[place].p,
                "p_permutation": found.permutation_p,
            }
        rows.append(row)
    count = len(evidence.against)
    some = f" The first {_OTHERS} of {count}." if count > _OTHERS else ""
    paired = "paired by seed" if evidence.paired else "not paired, for their seeds do not go together"
    tests = f" of all {evidence.pairs:,} pairs of settings" if evidence.pairs > 1 else ""
    note = (
        f"What {run.tell_apart(evidence.settings[0])} brings instead of each other setting, by "
        f"{measure_name(run.select)} over {evidence.ranks[0].n} {run.repeats} ({paired}).{some} Difference: the "
        "winner's mean less the other's, with its 95 % t interval. P(beats): probability that one training of the "
        "winner beats one of the other, with its 95 % interval. Effect size: the difference in standard deviations "
        f"across seeds (Hedges' g), positive where the winner is better. p: of the t tests{tests}, by Holm's "
        "correction, which the verdict goes by; p permutation: of this pair alone, without an assumption of "
        f"normality{_least(evidence)}. More seeds: what each of the two needs to be told apart with 80 % power, also "
        "after as many tests, if this is the true difference."
    )
    unit = "percent" if run.select.endswith("accuracy") else "number"
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    kinds = dict.fromkeys(("difference", "difference_low", "difference_high"), unit)
    kinds |= dict.fromkeys(("p_beats", "p_beats_low", "p_beats_high"), "percent")
    kinds |= {"place": "whole", "more_seeds": "whole"} | dict.fromkeys(("instead of", "the winner is"), "text")
    return Table("winner_against_others", "The winner against each other setting", note, frame, kinds=kinds)


def _least(evidence: Evidence) -> str:
    """Says how small a p-value by permutation can be at all, which with few seeds is large."""
    least = evidence.against[0].least_permutation_p
    if math.isnan(least):
        return ""
    no_verdict = ", so that it decides nothing" if least > 1 - stats.LEVEL else ""
    return f" (with so few seeds it cannot be smaller than {least:.2g}{no_verdict})" if least > _SMALL else ""


def _on_images(run: Run, evidence: Evidence) -> list[Table]:
    """Nothing where predictions are missing."""
    best, *others = evidence.settings[: _RUNNERS_UP + 1]
    of_best, rows = run.predictions(best), []
    if of_best is None:
        return []
    winner, labels = of_best
    for place, setting in enumerate(others, 2):
        of_other = run.predictions(setting)
        if of_other is None:
            continue
        found = stats.compare_predictions(winner, of_other[0], labels)
        low, high = found.interval
        accuracy, other = (run.settings.loc[s, "test_accuracy"] for s in (best, setting))
        rows.append(
            {"place": place, "instead of": run.tell_apart(setting), "disagree": found.churn.between}
            | {"two of the winner": found.churn.within_a, "two of the other": found.churn.within_b}
            | {"only the winner right": found.mcnemar.only_a, "only the other right": found.mcnemar.only_b}
            | {"p, McNemar": found.mcnemar.p, "accuracy_difference": accuracy - other, "low": low, "high": high}
        )
    if not rows:
        return []
    frame = pd.DataFrame(rows)
    frame["p, McNemar"] = stats.holm(frame["p, McNemar"])
    note = (
        f"Where {run.tell_apart(best)} and its runners-up differ on the {counted(len(labels), 'test image')}. "
        "Disagree: % of images for which one network of each predicts different classes; two of the winner, two of the "
        "other: for which two seeds of the same setting do. Only the winner right, only the other right: number of "
        "images, by the mean probabilities of all seeds of a setting; p: McNemar's exact test of these two counts, by "
        f"Holm's correction for {len(rows)}: whether these very networks would differ on other images. Accuracy "
        "difference: of the means over seeds, with its 95 % interval over test images, these seeds held fixed."
    )
    percent = ("disagree", "two of the winner", "two of the other", "accuracy_difference", "low", "high")
    kinds = {"place": "whole", "instead of": "text"} | dict.fromkeys(percent, "percent")
    kinds |= dict.fromkeys(("only the winner right", "only the other right"), "count")
    return [Table("winner_on_images", "The winner against runners-up, on single test images", note, frame, kinds=kinds)]


def _ends(name: str, interval: tuple[float, ...]) -> dict[str, float]:
    low, high = interval
    return {} if math.isnan(low) else {f"{name}_low": low, f"{name}_high": high}
