"""Batches of configurations by Optuna's samplers: they depend on nothing but the results that they are told."""

import pytest

from cnnjax.study.samplers import ask, check_optuna
from cnnjax.study.search import fixed
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError
from tests.support.studies import make_study

pytest.importorskip("optuna")

TRAIN = {"learning_rate": "log_uniform(1e-4, 1)", "momentum": "uniform(0, 0.9)", "batch_size": (10, 20)}


def make_search(sampler="TPESampler", trials=40, batch=10):
    search = {"method": "optuna", "trials": trials, "batch": batch, "sampler": sampler}
    return make_study(train=TRAIN, search=search)


def score(values):
    return -((values["train.momentum"] - 0.5) ** 2)


def test_a_batch_has_its_size_and_fits_the_space():
    study = make_search(trials=13)
    first = ask(study, [], [])
    second = ask(study, first, [score(values) for values in first])
    assert (len(first), len(second)) == (10, 3)
    for values in (*first, *second):
        assert 1e-4 <= values["train.learning_rate"] <= 1 and values["train.batch_size"] in (10, 20)
        assert len(list_trials(fixed(study, values))) == 1
    assert ask(study, [*first, *second], [0.0] * 13) == []


def test_what_was_told_decides_the_next_batch():
    study = make_search()
    first = ask(study, [], [])
    assert first == ask(study, [], [])
    told = [score(values) for values in first]
    assert ask(study, first, told) == ask(study, first, told)
    assert ask(study, first, told) != ask(study, first, [-value for value in told])
    assert len(ask(study, first, [None] * 10)) == 10  # all diverged


def test_it_learns_where_the_good_values_are():
    study, asked = make_search(), []
    while new := ask(study, asked, [score(values) for values in asked]):
        asked += new
    errors = [abs(values["train.momentum"] - 0.5) for values in asked]
    assert sum(errors[20:]) < 0.6 * sum(errors[:20])


@pytest.mark.parametrize(
    ("sampler", "problem"),
    [
        ("TPESample", "did you mean TPESampler"),
        ("QMCSampler", "it does not fit; use search.method='sobol'"),
        ("BaseSampler", "Optuna has no such sampler"),
    ],
)
def test_other_samplers_are_refused(sampler, problem):
    with pytest.raises(RequestError, match=problem):
        check_optuna(make_search(sampler))
