"""Successive halving and Hyperband: which configurations train for more epochs, and with more seeds. Pure functions.

Jamieson & Talwalkar 2016; Li et al. 2018. Configurations are numbered in the order in which they were drawn. All start
with the first seed. At each rung, the best of each bracket go on to the next one. If a search grows, its new
configurations start at the first rung, and those that went on before stay.

At the end, those that reached the last rung are trained with more seeds of the study, in steps, for as long as they may
still be the best (`cnnjax.stats.rank`), as in SMAC3 (Lindauer et al. 2022). A step adds half as many seeds as a
configuration has, and at least two, which train side by side. The race ends early if more seeds would probably not
decide it: if its power with all seeds of the study is below `LEAST_POWER`. Clinical trials end for futility alike.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnjax.study.search import draw, most_rungs

if TYPE_CHECKING:
    from cnnjax.study.schema import Study

Asked = dict[str, Any]  # a configuration: its values by key, `train.epochs` and `seeds`
Score = Callable[[Asked], float | None]  # larger is better; None without a result
Scores = Mapping[int, Mapping[int, float]]  # by number of the configuration and by seed
Decision = dict[str, Any]  # a line of search.jsonl

LEAST_POWER = 0.3  # a race with less power ends


class Standing(NamedTuple):
    """How a race over seeds stands.

    Attributes:
        may_be_best: the configurations that may be the best.
        power: the probability that a comparison with all seeds of the study excludes a challenger from being the best;
            of all challengers, the largest one.
    """

    may_be_best: set[int]
    power: float


def rung_epochs(study: "Study") -> tuple[int, ...]:
    """Returns the number of epochs at each rung."""
    epochs, factor = study.train.epochs[0], study.search.factor
    count = study.search.rungs or most_rungs(epochs, factor)
    return tuple(round(epochs / factor**left) for left in reversed(range(count)))


def list_brackets(study: "Study", count: int) -> list[int]:
    """Returns the bracket of each configuration: the rung at which it starts.

    Hyperband gives each bracket about the same cost: bracket b of R rungs gets R / (R - b) factor^-b of the
    configurations. Each next configuration goes to the bracket that lacks most of its share.
    """
    rungs, brackets = len(rung_epochs(study)), study.search.brackets
    weights = [rungs / (rungs - b) * study.search.factor**-b for b in range(brackets)]
    shares = [weight / sum(weights) for weight in weights]
    given = [0] * brackets
    found = []
    for number in range(1, count + 1):
        bracket = max(range(brackets), key=lambda b: shares[b] * number - given[b])
        given[bracket] += 1
        found.append(bracket)
    return found


def first_rungs(study: "Study") -> list[Asked]:
    """Returns all configurations at the rungs where they start, with the first seed."""
    epochs, drawn = rung_epochs(study), draw(study)
    brackets = list_brackets(study, len(drawn))
    return [
        {**values, "train.epochs": epochs[bracket], "seeds": [study.seeds[0]]}
        for values, bracket in zip(drawn, brackets, strict=True)
    ]


def promote(study: "Study", asked: list[Asked], score: Score) -> tuple[list[Asked], list[Decision]]:
    """Decides which configurations go on to the next rungs.

    Args:
        study: the study.
        asked: all configurations, each with the most epochs that it was asked to train.
        score: the score of a configuration with some epochs and the first seed.

    Returns:
        The configurations with the epochs that they are asked to train now, and all decisions of the search.
    """
    epochs, brackets = rung_epochs(study), list_brackets(study, len(asked))
    rungs = [epochs.index(one["train.epochs"]) for one in asked]
    reached = list(brackets)
    decisions: list[Decision] = []
    for rung in range(len(epochs) - 1):
        for bracket in range(min(rung + 1, study.search.brackets)):
            there = [n for n, of in enumerate(brackets) if of == bracket and max(reached[n], rungs[n]) >= rung]
            at_rung = {"train.epochs": epochs[rung], "seeds": [study.seeds[0]]}
            scores = {n: score({**asked[n], **at_rung}) for n in there}
            if not there or None in scores.values():
                continue
            order = sorted(there, key=lambda n: (-scores[n], n))  # type: ignore[operator]
            keep = max(1, len(there) // study.search.factor)
            for number in order[:keep]:
                reached[number] = max(reached[number], rung + 1)
            decisions.append(
                {"rule": "halving", "bracket": bracket, "rung": rung, "epochs": epochs[rung]}
                | {"kept": sorted(order[:keep]), "dropped": sorted(order[keep:])}
                | {"scores": {str(n): scores[n] for n in there}}
            )
    new = [max(pair) for pair in zip(rungs, reached, strict=True)]
    return [{**one, "train.epochs": epochs[rung]} for one, rung in zip(asked, new, strict=True)], decisions


def race(
    study: "Study",
    asked: list[Asked],
    score: Score,
    judge: Callable[[Scores], Standing],
) -> tuple[list[Asked], list[Decision]]:
    """Decides which of the configurations at the last rung train with more seeds.

    Args:
        study: the study.
        asked: all configurations, after the last rung.
        score: as of `promote`, with one seed.
        judge: takes the scores of configurations by seed, and returns how the race stands.

    Returns:
        The configurations with the seeds that they are asked to train now, and all decisions about seeds.
    """
    seeds, last = study.seeds, rung_epochs(study)[-1]
    left = {number for number, one in enumerate(asked) if one["train.epochs"] == last}
    counts = {number: len(one["seeds"]) for number, one in enumerate(asked)}
    decisions: list[Decision] = []
    count = 1
    while count < len(seeds):
        found = {n: {seed: score({**asked[n], "seeds": [seed]}) for seed in seeds[:count]} for n in sorted(left)}
        if any(value is None for values in found.values() for value in values.values()):
            break
        scores: dict[int, dict[int, float]] = found  # type: ignore[assignment]
        # One seed tells nothing about the spread.
        kept, power = Standing(left, 1.0) if count == 1 else judge(scores)
        decisions.append(
            {"rule": "seeds", "seeds": list(seeds[:count]), "kept": sorted(kept), "dropped": sorted(left - kept)}
            | {"scores": {str(n): list(values.values()) for n, values in scores.items()}, "power": round(power, 3)}
        )
        left = set(kept)
        if len(left) == 1:
            counts[left.pop()] = len(seeds)
            break
        if power < LEAST_POWER:
            break
        count = min(len(seeds), count + max(2, count // 2))
        counts |= {number: max(counts[number], count) for number in left}
    return [{**one, "seeds": list(seeds[: counts[number]])} for number, one in enumerate(asked)], decisions
