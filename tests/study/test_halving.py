"""Successive halving against a plain one on made-up curves, its brackets and its race over seeds."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.study.halving import LEAST_POWER, Standing, first_rungs, list_brackets, promote, race, rung_epochs
from tests.support.studies import make_study


def make_halving(trials=9, epochs=9, seeds=(0,), **search):
    train = {"learning_rate": "log_uniform(1e-3, 1e-1)", "epochs": epochs}
    return make_study(seeds=seeds, train=train, search={"method": "halving", "trials": trials, **search})


def scorer(study, curves, seen=None):
    """Scores by made-up curves [configurations, epochs], with a little noise for each seed but the first."""
    numbers = {one["train.learning_rate"]: number for number, one in enumerate(first_rungs(study))}

    def score(one):
        number, (seed,) = numbers[one["train.learning_rate"]], one["seeds"]
        if seen is not None:
            seen.add((number, one["train.epochs"], seed))
        return float(curves[number, one["train.epochs"] - 1] + 0.001 * seed)

    return score


def run_halving(study, curves):
    asked = first_rungs(study)
    while (step := promote_trained(study, asked, curves))[0] != asked:
        asked = step[0]
    return step


def promote_trained(study, asked, curves):
    """One decision, given the epochs that the configurations have trained."""
    score = scorer(study, curves)
    epochs = {one["train.learning_rate"]: one["train.epochs"] for one in asked}
    return promote(
        study, asked, lambda one: score(one) if epochs[one["train.learning_rate"]] >= one["train.epochs"] else None
    )


def plain_halving(curves, epochs, factor):
    """Successive halving as in Jamieson & Talwalkar 2016: the epochs that each configuration trains."""
    trained, alive = np.full(len(curves), epochs[0]), np.arange(len(curves))
    for now, then in itertools.pairwise(epochs):
        order = np.argsort(-curves[alive, now - 1], kind="stable")
        alive = np.sort(alive[order[: max(1, len(alive) // factor)]])
        trained[alive] = then
    return trained.tolist()


@given(
    curves=st.integers(0, 1000).map(lambda seed: np.random.default_rng(seed).random((27, 9)).round(1)),
    trials=st.integers(2, 27),
    factor=st.integers(2, 4),
)
def test_halving_trains_what_a_plain_one_trains(curves, trials, factor):
    study = make_halving(trials, factor=factor)
    asked, decisions = run_halving(study, curves[:trials])
    assert [one["train.epochs"] for one in asked] == plain_halving(curves[:trials], rung_epochs(study), factor)
    assert len(decisions) == len(rung_epochs(study)) - 1
    for line in decisions:
        assert sorted(line["kept"] + line["dropped"]) == sorted(map(int, line["scores"]))


@pytest.mark.parametrize(
    ("epochs", "search", "rungs"),
    [
        (9, {}, (1, 3, 9)),
        (10, {}, (1, 3, 10)),
        (10, {"rungs": 2}, (3, 10)),
        (8, {"factor": 2}, (1, 2, 4, 8)),
        (2, {}, (2,)),
    ],
)
def test_rungs(epochs, search, rungs):
    assert rung_epochs(make_halving(epochs=epochs, **search)) == rungs


def test_brackets_have_the_shares_of_hyperband_and_start_at_their_rungs():
    study = make_halving(trials=44, epochs=9, brackets=3)
    brackets = list_brackets(study, 44)
    assert [brackets.count(b) for b in range(3)] == pytest.approx(
        [44 * w / (1 + 1 / 2 + 1 / 3) for w in (1, 1 / 2, 1 / 3)], abs=1
    )
    assert list_brackets(study, 20) == brackets[:20]
    assert [one["train.epochs"] for one in first_rungs(study)] == [(1, 3, 9)[b] for b in brackets]
    asked, decisions = run_halving(study, np.random.default_rng(0).random((44, 9)))
    assert {(line["bracket"], line["rung"]) for line in decisions} == {(0, 0), (0, 1), (1, 1)}
    best = [number for number, one in enumerate(asked) if one["train.epochs"] == 9]
    assert {brackets[number] for number in best} == {0, 1, 2}


def test_more_trials_drop_nothing_that_went_on():
    curves = np.random.default_rng(3).random((27, 9))
    asked, _ = run_halving(make_halving(9), curves[:9])
    study = make_halving(27)
    grown = [*asked, *first_rungs(study)[9:]]
    more, _ = promote_trained(study, grown, curves)
    assert all(new["train.epochs"] >= old["train.epochs"] for new, old in zip(more, grown, strict=True))
    assert sum(one["train.epochs"] > 1 for one in more) >= 9


def test_a_diverged_configuration_goes_last():
    study = make_halving(3)
    scores = dict(zip((one["train.learning_rate"] for one in first_rungs(study)), (-np.inf, 0.1, 0.2), strict=True))
    asked, _ = promote(study, first_rungs(study), lambda one: scores[one["train.learning_rate"]])
    assert [one["train.epochs"] for one in asked] == [1, 1, 9]


def test_a_challenger_gets_seeds_for_as_long_as_it_may_be_the_best():
    study = make_halving(4, epochs=3, seeds=range(7), rungs=1)
    curves = np.array([[0.9] * 3, [0.1] * 3, [0.8] * 3, [0.7] * 3])
    limits = {3: 0.5, 5: 0.85}  # by the number of seeds

    def judge(scores):
        assert all(len(values) == len(scores[0]) for values in scores.values())
        left = {number for number, values in scores.items() if np.mean([*values.values()]) > limits[len(values)]}
        return Standing(left, power=LEAST_POWER)

    asked, seen = run_race(study, curves, judge)
    assert [len(one["seeds"]) for one in asked] == [7, 3, 5, 5]
    assert (1, 3, 3) not in seen


def test_a_race_ends_if_all_seeds_would_hardly_decide_it():
    study = make_halving(3, epochs=3, seeds=range(20), rungs=1)
    curves = np.array([[0.9] * 3, [0.1] * 3, [0.8] * 3])
    power = {3: 0.9, 5: LEAST_POWER - 0.01}  # by the number of seeds
    asked, _ = run_race(study, curves, lambda scores: Standing({0, 2}, power[len(scores[0])]))
    assert [len(one["seeds"]) for one in asked] == [5, 3, 5]


def run_race(study, curves, judge):
    """What a race asks for until it ends, and all trials that it has looked at."""
    asked, seen = first_rungs(study), set()
    while (more := race(study, asked, scorer(study, curves, seen), judge)[0]) != asked:
        asked = more
    return asked, seen
