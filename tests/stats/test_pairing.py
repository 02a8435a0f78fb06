"""When configurations are paired by seed: decided for all at once, and so that the verdicts keep their error rate."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.anova import AnovaRM

from cnnjax.stats import compare, pairing_helps, rank
from cnnjax.stats.pairing import break_even, seed_correlation

STUDIES = 2000
SLACK = 4 * math.sqrt(0.05 * 0.95 / STUDIES)


def groups_of(values):
    return {configuration: dict(enumerate(row)) for configuration, row in enumerate(values)}


def draw(rho, configurations, n, generator, spread=1.0):
    """Values of equal configurations, whose seeds have a correlation; the first one spreads more."""
    values = math.sqrt(rho) * generator.normal(size=n) + math.sqrt(1 - rho) * generator.normal(size=(configurations, n))
    values[0] *= spread
    return values


def _told_apart(study, pair):
    return compare(*(study[name] for name in pair), pair=pairing_helps(study)).verdict != "undecided"


def compared(values, **options):
    groups = groups_of(values)
    return compare(groups[0], groups[1], pair=pairing_helps(groups), **options)


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize(("configurations", "spread"), [(2, 1.0), (2, 3.0), (12, 1.0)])
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_equal_configurations_are_seldom_told_apart(rho, n, configurations, spread):
    """At most 5 % of studies call two equal configurations better or worse, the choice of the test included."""
    generator = np.random.default_rng((n, configurations, int(10 * rho)))
    studies = (groups_of(draw(rho, configurations, n, generator, spread)) for _ in range(STUDIES))
    assert np.mean([_told_apart(study, [0, 1]) for study in studies]) <= 0.05 + SLACK


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize(("rho", "n"), [(0.0, 3), (0.5, 5), (0.9, 10)])
def test_all_pairs_together_seldom_err(rho, n):
    generator, wrong = np.random.default_rng(n), 0
    for _ in range(STUDIES):
        wrong += any(one.low > 2 or one.high < 5 for one in rank(groups_of(draw(rho, 5, n, generator))))
    assert wrong / STUDIES <= 0.05 + SLACK


@pytest.mark.simulation
@pytest.mark.parametrize(("rho", "n", "configurations", "least", "most"), [
    (0.0, 3, 2, 0, 0.02), (0.0, 10, 12, 0, 0.02), (0.9, 10, 2, 0.9, 1), (0.9, 5, 12, 0.95, 1), (0.9, 3, 12, 0.7, 1),
    (0.3, 3, 12, 0, 0.2),
])  # fmt: skip
def test_seeds_that_go_together_are_found_and_others_seldom(rho, n, configurations, least, most):
    generator = np.random.default_rng((n, configurations))
    paired = np.mean([pairing_helps(groups_of(draw(rho, configurations, n, generator))) for _ in range(STUDIES)])
    assert least <= paired <= most


def test_pairing_pays_where_the_intervals_are_shorter():
    """The half width of pairs, and of two samples, of equal spread."""
    for n in (2, 3, 5, 10, 50):
        rho, (pairs, samples) = break_even(n), (scipy.stats.t.ppf(0.975, freedom) for freedom in (n - 1, 2 * n - 2))
        assert pairs * math.sqrt(2 * (1 - rho) / n) == pytest.approx(samples * math.sqrt(2 / n))


def test_the_test_of_the_seeds_agrees_with_statsmodels():
    import pandas as pd

    values = draw(0.6, 4, 6, np.random.default_rng(0))
    cells = [(i, j, values[i, j]) for i, j in itertools.product(range(4), range(6))]
    frame = pd.DataFrame(cells, columns=["configuration", "seed", "value"])
    found = AnovaRM(frame, "value", "configuration", within=["seed"]).fit().anova_table
    rho, p = seed_correlation(values)
    assert p == pytest.approx(found["Pr > F"].iloc[0])
    covariance = np.cov(values)
    assert rho == pytest.approx(covariance[~np.eye(4, dtype=bool)].mean() / np.diag(covariance).mean())


def test_three_seeds_that_are_21_points_apart_are_decided():
    """Every seed of the one is above every seed of the other, and pairs would have -2.5 to 45.1 points."""
    a, b = np.array([0.806, 0.714, 0.760]), np.array([0.4972, 0.5968, 0.547])
    pairs = compare(dict(enumerate(a)), dict(enumerate(b)))
    assert pairs.verdict == "undecided" and a.min() > b.max()
    assert [100 * end for end in pairs.interval] == pytest.approx([-2.5, 45.1], abs=0.3)
    found = compared([a, b])
    assert (found.paired, found.verdict) == (False, "better")
    assert found.tested.p == pytest.approx(scipy.stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_what_cannot_be_paired_or_says_nothing_is_not():
    common = {"a": {0: 0.1, 1: 0.5, 2: 0.9}, "b": {0: 0.11, 1: 0.5, 2: 0.91}}
    assert pairing_helps(common)
    assert not pairing_helps(common | {"c": {0: 0.1, 1: 0.5, 3: 0.9}})
    assert not pairing_helps({"a": common["a"]})
    assert not pairing_helps({"a": {0: 0.1}, "b": {0: 0.1}})
    assert not pairing_helps({"a": {0: 0.1, 1: 0.1}, "b": {0: 0.3, 1: 0.3}})


def test_configurations_with_the_same_values_are_equal_whatever_the_others_do():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(4, 3))
    values[1] = values[0]
    found = compared(values)
    assert found.is_identical and found.verdict == "equal"
