"""Which configuration is best: the ranking, and the winner against each other configuration."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cnnjax import stats
from cnnjax.analysis.columns import kind_of, measure_label, measure_name, scale
from cnnjax.analysis.evidence import Evidence, stuck_seeds, summarize, weigh
from cnnjax.analysis.run import Run
from cnnjax.report.labels import shortened
from cnnjax.report.sections.headline import percent
from cnnjax.report.tables import Table, shown_axes
from cnnjax.report.theme import INK, MUTED, SERIES, Plot, canvas, keep_in_bounds, off_zero, render, themed
from cnnjax.utils.text import counted

_RANKED = 100  # rows of the ranking, at most
_OTHERS = 99  # rows of the winner against others over seeds, at most
_RUNNERS_UP = 5  # rows of the winner against others on single images, at most
_FOREMOST = 12  # configurations in the figure, at most
_WIDTH = 48  # characters of a line in the figure
_CERTAINTY = "Certainty: that this configuration is not the best; of the winner, that it is the best."
_SMALL = 0.005  # a p-value that a permutation test of few seeds cannot reach


def tables(run: Run) -> list[Table]:
    """The ranking, and the winner against the others over seeds and on single images.

    Studies of one configuration have none, nor have those whose trainings share random streams: these are not
    independent.
    """
    evidence = weigh(run)
    if evidence is None or not evidence.against or run.crossed:
        return []
    return [ranking(run, evidence), _over_seeds(run, evidence), *_on_images(run, evidence)]


def ranking(run: Run, evidence: Evidence) -> Table:
    """The configurations, the best first."""
    rows = [
        {"place": place}
        | run.configurations.loc[configuration, shown_axes(run)].to_dict()
        | {"n": rank.n, "stuck": len(stuck_seeds(run, configuration)), run.select: rank.mean}
        | {"certainty": rank.certainty, "may be best": "yes" if rank.may_be_best else "no"}
        | {"first_place": rank.low, "last_place": rank.high}
        for place, configuration, rank in zip(
            range(1, _RANKED + 1), evidence.configurations, evidence.ranks, strict=False
        )
    ]
    count = len(evidence.ranks)
    some = f" The first {_RANKED} of {count} configurations." if count > _RANKED else ""
    lost = len(run.configurations) - count
    left_out = f" {counted(lost, 'configuration')} with fewer seeds left out." if lost else ""
    frame = pd.DataFrame(rows)
    stuck = " Stuck: seeds that never left chance, which count in the mean only." if frame["stuck"].any() else ""
    note = (
        f"By {measure_name(run.select)}, means over n seeds.{some}{left_out}{stuck} {_CERTAINTY} From 95 % on it "
        "is decided: the others contain the best with 95 % certainty. First to last place: the places that tests of "
        f"all pairs do not exclude (95 %, Holm).{run.folds_note}"
    )
    return Table("ranking", "Ranking", note, frame if stuck else frame.drop(columns="stuck"), (0,))


def _over_seeds(run: Run, evidence: Evidence) -> Table:
    rows: list[dict[str, Any]] = []
    for place, found in enumerate(evidence.against[:_OTHERS], 1):
        row: dict[str, Any] = {"place": place + 1, "instead of": run.tell_apart(evidence.configurations[place])}
        row |= {"the winner is": found.verdict}
        row |= {"more_seeds": max(found.more_seeds) if found.verdict == "undecided" and found.more_seeds else None}
        row |= {"difference": found.difference} | _ends("difference", found.interval)
        if found.has_spread:
            row |= {"p_beats": found.beats.value} | _ends("p_beats", found.beats[1:])
            row |= {"effect size": found.effect_size, "p": found.p}
            row |= {"p_permutation": found.permutation_p}
        rows.append(row)
    count = len(evidence.against)
    some = f" The first {_OTHERS} of {count}." if count > _OTHERS else ""
    paired = (
        f"paired by {'fold' if run.folds else 'seed'}"
        if evidence.paired
        else "not paired: the seeds differ, or their effects are not common to the configurations"
    )
    note = (
        f"{run.tell_apart(evidence.configurations[0])} compared with each other configuration by "
        f"{measure_name(run.select)} over {evidence.ranks[0].n} {run.repeats} ({paired}).{some} More seeds: how many "
        "more each of the two needs to be told apart with 80 % power, with the correction for all tests, if this is "
        "the true difference. Difference: the winner's mean less the other's, with its 95 % interval, which the "
        "number of comparisons widens. P(beats): "
        "probability that one training of the winner beats one of the other, with its 95 % interval. Effect size: the "
        f"difference in standard deviations across seeds (Hedges' g), positive if the winner is better. p: of the t "
        "test with spreads moderated by those of all configurations, corrected for comparisons with the best (Hsu): "
        "100 % less the certainty; the verdict follows it. p permutation: of this pair alone, without the "
        "assumption of normality"
        f"{_least(evidence)}.{run.folds_note}"
    )
    names = ("difference", "difference_low", "difference_high")
    kinds = dict.fromkeys(names, kind_of(run.select)) | dict.fromkeys(("p_beats_low", "p_beats_high"), "percent")
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    return Table("winner_against_others", "The winner against each other configuration", note, frame, kinds=kinds)


def _ends(name: str, interval: tuple[float, ...]) -> dict[str, float]:
    low, high = interval
    return {} if math.isnan(low) else {f"{name}_low": low, f"{name}_high": high}


def _least(evidence: Evidence) -> str:
    """Returns the smallest possible p-value of the permutation test, if few seeds make it large."""
    least = evidence.against[0].least_permutation_p
    if not least > _SMALL:
        return ""
    no_verdict = ", and decides nothing" if least > 1 - stats.LEVEL else ""
    return f" (with so few seeds it cannot be smaller than {least:.2g}{no_verdict})"


def _on_images(run: Run, evidence: Evidence) -> list[Table]:
    best, *others = evidence.configurations[: _RUNNERS_UP + 1]
    of_best, rows = run.predictions(best), []
    if of_best is None:
        return []
    winner, labels = of_best
    for place, configuration in enumerate(others, 2):
        of_other = run.predictions(configuration)
        if of_other is None:
            continue
        found = stats.compare_predictions(winner, of_other[0], labels)
        low, high = found.interval
        accuracy, other = (run.configurations.loc[s, "test_accuracy"] for s in (best, configuration))
        rows.append(
            {"place": place, "instead of": run.tell_apart(configuration), "disagree": found.churn.between}
            | {"two of the winner": found.churn.within_a, "two of the other": found.churn.within_b}
            | {"only the winner right": found.mcnemar.only_a, "only the other right": found.mcnemar.only_b}
            | {"p, McNemar": found.mcnemar.p, "accuracy_difference": accuracy - other, "low": low, "high": high}
        )
    if not rows:
        return []
    frame = pd.DataFrame(rows)
    frame["p, McNemar"] = stats.holm(frame["p, McNemar"])
    note = (
        f"{run.tell_apart(best)} and its runners-up on the {counted(len(labels), 'test image')}. Disagree: % of images "
        "that one network of each predicts differently. Two of the winner, two of the other: % of images that two "
        "seeds of the same configuration predict differently. Only the winner right, only the other right: number of "
        "images, by the mean probabilities of all seeds of a configuration. p: McNemar's exact test of these two "
        f"counts, by Holm's correction for {len(rows)}: whether these networks would differ on other images. Accuracy "
        "difference: of the means over seeds, with its 95 % interval over test images with these seeds fixed."
    )
    percent = ("disagree", "two of the winner", "two of the other", "accuracy_difference", "low", "high")
    kinds = dict.fromkeys(percent, "percent") | dict.fromkeys(
        ("only the winner right", "only the other right"), "count"
    )
    return [Table("winner_on_images", "The winner against runners-up, on single test images", note, frame, kinds=kinds)]


@themed
def figures(run: Run) -> Iterator[Plot]:
    """The foremost configurations with their intervals, if there are several."""
    evidence = weigh(run)
    if evidence is not None and len(evidence.ranks) > 1:
        yield _foremost(run, evidence)


def _standing(rank: stats.Rank, evidence: Evidence) -> str:
    """Says whether a configuration may be the best, with its certainty in brackets."""
    if not rank.may_be_best:
        return f"not the best ({percent(rank.certainty)})"
    if not evidence.against or not rank.certainty >= 0.01:  # NaN without a spread
        return "may be the best"
    if rank.against is None:
        return f"{'the best' if rank.high == 1 else 'may be the best'} ({percent(rank.certainty)})"
    return f"may be the best ({percent(rank.certainty)} not)"


def _foremost(run: Run, evidence: Evidence) -> Plot:
    shown = evidence.ranks[:_FOREMOST]
    unit = scale(run.select)
    names = [
        textwrap.fill(run.tell_apart(configuration), _WIDTH, break_long_words=False)
        for configuration in evidence.configurations[:_FOREMOST]
    ]
    figure, [[axes]] = canvas(6, 0.9 + sum(0.3 + 0.15 * len(name.splitlines()) for name in names))
    several = shown[0].n > 1 and not run.crossed
    at = 0.0  # names stand above their values: beside them, a phone would show names only
    for place, (configuration, rank, name) in enumerate(zip(evidence.configurations, shown, names, strict=False)):
        at += 0.55 + 0.5 * len(name.splitlines())
        values = unit * np.array(run.values(configuration, run.select))
        color = SERIES[0] if place == 0 else MUTED
        axes.plot(values, np.full(len(values), at + 0.24), "o", ms=3.5, color=color, alpha=0.5, mew=0)
        summary = summarize(run, configuration, run.select)
        if summary is not None and several:
            axes.plot([unit * summary.low, unit * summary.high], [at, at], color=INK, lw=1.6)
        axes.plot(unit * rank.mean, at, "D", ms=5.5, color=color)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "bottom", "fontsize": 8}
        where |= {"in_layout": False, "annotation_clip": False}
        name = "\n".join(shortened(line, _WIDTH) for line in name.splitlines())
        axes.annotate(name, (0, at - 0.22), **where)
        if several:
            axes.annotate(_standing(rank, evidence), (1, at - 0.22), ha="right", color=MUTED, **where)
    axes.set_yticks([])
    axes.set_ylim(at + 0.5, 0)
    axes.grid(False, axis="y")
    keep_in_bounds([axes], run.select, "x")
    axes.set_xlabel(measure_label(run.select))
    count = len(evidence.ranks)
    which = f"The {len(shown)} best of {count} configurations" if count > len(shown) else f"All {count} configurations"
    numbers = " to ".join(map(str, sorted({min(rank.n for rank in shown), max(rank.n for rank in shown)})))
    bars = (
        "Lines: 95 % interval of the mean. In brackets: how certain it is that a configuration is not the best; of the "
        "winner, that it is the best."
        if several
        else "No intervals: trainings share random streams."
        if shown[0].n > 1
        else "One seed each: no error bars."
    )
    caption = (
        f"{which} by {measure_name(run.select)}. Diamonds: mean over n = {numbers} {run.repeats}; points below: the "
        f"single {run.repeats}. {bars}{off_zero([axes], 'x')}"
    )
    return render(figure, "ranking", "Which configuration is best", caption)
