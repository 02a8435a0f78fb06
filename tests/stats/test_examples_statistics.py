"""Statistics of single examples against statsmodels, brute force and simulated trainings."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from statsmodels.stats.contingency_tables import mcnemar as reference

from cnnjax.stats import churn, compare_predictions, example_interval, mcnemar, spread_accuracy

STUDIES = 2000


def outcomes(skill_a, skill_b, n, seed=0):
    generator = np.random.default_rng(seed)
    return generator.random(n) < skill_a, generator.random(n) < skill_b


@pytest.mark.parametrize(("skill_a", "skill_b", "n"), [(0.8, 0.7, 50), (0.8, 0.8, 400), (0.99, 0.9, 1000)])
def test_mcnemar_agrees_with_statsmodels(skill_a, skill_b, n):
    a, b = outcomes(skill_a, skill_b, n)
    found = mcnemar(a, b)
    table = [[found.both, found.only_a], [found.only_b, found.neither]]
    assert np.sum(table) == n
    assert found.p == pytest.approx(reference(table, exact=True).pvalue)
    assert found.difference == pytest.approx(accuracy_score(a, np.ones(n)) - accuracy_score(b, np.ones(n)))
    assert found.low < found.difference < found.high


def test_mcnemar_of_what_never_differs():
    found = mcnemar(np.ones(9, bool), np.ones(9, bool))
    assert (found.both, found.only_a, found.only_b, found.neither, found.p, found.difference) == (9, 0, 0, 0, 1, 0)
    assert found.low < 0 < found.high


@pytest.mark.simulation
def test_the_interval_of_mcnemar_and_of_examples_cover():
    held = held_means = 0
    for study in range(STUDIES):
        a, b = outcomes(0.9, 0.85, 200, seed=study)
        found, (low, high) = mcnemar(a, b), example_interval(a[None], b[None])
        held += found.low <= 0.05 <= found.high
        held_means += low <= 0.05 <= high
    assert held / STUDIES == pytest.approx(0.95, abs=0.0195)
    assert held_means / STUDIES == pytest.approx(0.95, abs=0.0195)


@pytest.mark.parametrize("function", [mcnemar, example_interval, churn])
def test_other_examples_are_refused(function):
    shape = (4,) if function is mcnemar else (2, 4)
    with pytest.raises(ValueError, match="same examples"):
        function(np.ones(shape, int), np.ones([*shape[:-1], 5], int))


def test_equal_accuracies_have_no_interval_of_their_spread_and_none_leaves_what_is_possible():
    equal = np.array([[True, False, True, True], [True, True, False, True], [False, True, True, True]])
    found = spread_accuracy(equal)
    assert (found.test_set_std, found.distribution_std) == (0, 0)
    assert math.isnan(found.distribution_low) and math.isnan(found.distribution_high)
    assert spread_accuracy(np.array([[True] * 50, [False] * 50])).distribution_high == 0.5


def test_one_example_has_no_interval_and_none_leaves_what_is_possible():
    one, many = np.ones((2, 1), bool), np.ones((2, 5), bool)
    assert np.isnan(example_interval(one, ~one)).all() and np.isnan(example_interval(many, many)).all()
    found = mcnemar(np.array([True]), np.array([False]))
    assert (found.difference, found.high) == (1, 1)
    low, high = example_interval(np.array([[True, True]]), np.array([[False, True]]))
    assert (low, high) == (-1, 1)
    logits = [np.array([[0.0, 1.0]])] * 2
    assert compare_predictions(logits, logits, np.array([1])).spreads == (None, None)


def test_churn_counts_pairs():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 4, (3, 60)), generator.integers(0, 4, (2, 60))
    found = churn(a, b)
    assert found.between == pytest.approx(np.mean([(x != y).mean() for x, y in itertools.product(a, b)]))
    assert found.within_a == pytest.approx(np.mean([(x != y).mean() for x, y in itertools.combinations(a, 2)]))
    assert found.within_b == pytest.approx((b[0] != b[1]).mean())
    assert found.by_example[7] == pytest.approx(np.mean([x[7] != y[7] for x, y in itertools.product(a, b)]))
    assert math.isnan(churn(a[:1], b).within_a)
    assert churn(a[:1], a[:1]).between == 0


def train(generator, seeds, hardness, std):
    """Networks whose true accuracy differs by `std` or so, each example right or wrong by its own chance."""
    skill = generator.normal(0, std, (seeds, 1))
    return generator.random((seeds, len(hardness))) < np.clip(hardness + skill, 0, 1)


def test_the_spread_of_accuracy_is_split_without_bias():
    """Jordan's theorem: fresh test sets and fresh networks, whose accuracy on all data has a known variance."""
    generator, std, examples = np.random.default_rng(0), 0.01, 400
    found = []
    for _ in range(STUDIES):
        hardness = generator.choice([0.3, 0.9], examples, p=[0.2, 0.8])
        found.append(spread_accuracy(train(generator, 4, hardness, std)))
    variances = np.array([spread.distribution_variance for spread in found])
    assert variances.mean() == pytest.approx(std**2, abs=4 * variances.std() / math.sqrt(STUDIES))
    assert variances.std() / math.sqrt(STUDIES) < 0.1 * std**2  # else the line above says nothing
    on_test_set = np.mean([spread.test_set_std**2 for spread in found])
    assert on_test_set > 2.5 * std**2  # which is what the test set adds
    independent = np.mean([spread.independent_std**2 for spread in found])
    assert independent == pytest.approx((0.2 * 0.21 + 0.8 * 0.09) / examples, rel=0.02)


@pytest.mark.simulation
@pytest.mark.parametrize("std", [0.005, 0.02])
def test_the_interval_of_the_spread_on_all_data_covers(std):
    generator, held = np.random.default_rng(1), 0
    for _ in range(STUDIES):
        hardness = generator.choice([0.3, 0.9], 300, p=[0.2, 0.8])
        found = spread_accuracy(train(generator, 8, hardness, std))
        held += found.distribution_low <= std <= found.distribution_high
    assert held / STUDIES == pytest.approx(0.95, abs=0.0195)


def test_networks_that_err_independently_spread_on_the_test_set_alone():
    generator = np.random.default_rng(2)
    found = spread_accuracy(train(generator, 400, generator.uniform(0.5, 1, 500), 0.0))
    assert found.distribution_low == 0
    assert found.distribution_high < 0.5 * found.test_set_std
    assert found.test_set_std == pytest.approx(found.independent_std, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 10), (3, 1), (4,)])
def test_the_spread_of_one_network_is_refused(shape):
    with pytest.raises(ValueError, match="several networks"):
        spread_accuracy(np.ones(shape, bool))
