"""What mattered: against statsmodels' analysis of variance, and by simulated grids."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from cnnjax.stats import explain_variance, marginal_means

STUDIES = 2000
AXES = ("model", "rate", "size")


def make_grid(seeds=3, seed=0, std=0.1):
    generator = np.random.default_rng(seed)
    rows = [
        (model, rate, size, i, skill + 3 * rate * (model == "x") - size / 100 + generator.normal(0, std))
        for (model, skill), rate, size in itertools.product([("x", 1.0), ("y", 1.4)], [0.1, 0.2, 0.4], [8, 16])
        for i in range(seeds)
    ]
    return pd.DataFrame(rows, columns=[*AXES, "seed", "value"])


def explain(grid):
    return explain_variance(grid[list(AXES)], grid["value"])


def reference(grid):
    """Statsmodels' type II sums of squares of all main effects and interactions of two, and total."""
    fit = ols("value ~ (C(model) + C(rate) + C(size))**2", grid).fit()
    return anova_lm(fit, typ=2), fit.ssr, fit.centered_tss


@pytest.mark.parametrize("drop", [0, 5])
def test_effects_agree_with_statsmodels(drop):
    """Also where trials are missing, which unbalances the grid."""
    grid = make_grid().drop(index=list(range(2, 2 + 2 * drop, 2)))
    found, (expected, left, total) = explain(grid), reference(grid)
    assert len(found.effects) == 6
    within = sum(((g - g.mean()) ** 2).sum() for _, g in grid.groupby(list(AXES))["value"])
    freedom = len(grid) - found.configurations
    for effect in found.effects:
        row = expected.loc[":".join(f"C({axis})" for axis in effect.axes)]
        assert effect.freedom == row["df"]
        assert effect.share == pytest.approx(row["sum_sq"] / total)
        assert effect.f == pytest.approx(row["sum_sq"] / row["df"] / (within / freedom))
        assert effect.p == pytest.approx(scipy.stats.f.sf(effect.f, row["df"], freedom), rel=1e-6, abs=1e-300)
    assert found.seeds == pytest.approx(within / total)
    assert found.higher == pytest.approx((left - within) / total)


def test_shares_of_a_complete_grid_add_up():
    found = explain(make_grid())
    assert sum(effect.share for effect in found.effects) + found.higher + found.seeds == pytest.approx(1)
    assert found.effects[0].share == max(effect.share for effect in found.effects)
    assert (found.trials, found.configurations) == (36, 12)


def test_an_axis_that_follows_another_explains_nothing_beyond_it():
    columns = {"optimizer": ["adam", "adam", "sgd", "sgd"], "momentum": [0.0, 0.0, 0.9, 0.9], "one": [1] * 4}
    found = explain_variance(columns, [1.0, 1.1, 2.0, 2.2])
    assert found.effects == ()  # neither can be told from the other
    assert found.seeds == pytest.approx((0.005 + 0.02) / np.var([1, 1.1, 2, 2.2]) / 4)


def test_momentum_of_one_optimizer_is_told_from_the_optimizer():
    columns = {"optimizer": ["adam", "adam", *["sgd"] * 4], "momentum": [0.0, 0.0, 0.0, 0.0, 0.9, 0.9]}
    values = [1.0, 1.2, 2.0, 2.2, 2.8, 3.0]
    shares = {effect.axes: effect.share for effect in explain_variance(columns, values).effects}
    total = np.var(values) * 6
    assert shares == {("optimizer",): pytest.approx(1.0 / total), ("momentum",): pytest.approx(0.64 / total)}


def test_one_seed_leaves_nothing_to_test_against():
    grid = make_grid(seeds=1)
    assert all(math.isnan(effect.f) and math.isnan(effect.p) for effect in explain(grid).effects)
    assert all(math.isnan(m.low) for m in marginal_means(grid[list(AXES)], grid["value"], ["model"]))


@pytest.mark.parametrize(("columns", "values"), [({"a": [1, 1]}, [1.0, 2.0]), ({"a": [1, 2]}, [1.0, math.nan])])
def test_what_is_no_grid_is_refused(columns, values):
    with pytest.raises(ValueError, match="finite values, and two levels"):
        explain_variance(columns, values)


def test_seeds_without_a_spread_leave_nothing_to_test_against_either():
    grid = make_grid(std=0)
    for value in (grid["value"], grid["value"] * 0 + 0.7):
        found = explain(grid.assign(value=value))
        assert all(math.isnan(effect.f) and math.isnan(effect.p) for effect in found.effects)
        assert all(math.isnan(mean.low) for mean in marginal_means(grid[list(AXES)], value, ["rate"]))
    assert all(math.isnan(effect.share) for effect in found.effects) and math.isnan(found.seeds)


@pytest.mark.simulation
def test_an_effect_that_is_not_there_is_seldom_found():
    p_values = []
    for study in range(500):
        grid = make_grid(seeds=2, seed=study)
        effect = next(e for e in explain(grid).effects if e.axes == ("model", "size"))
        p_values.append(effect.p)
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.001


def test_marginal_means_count_each_configuration_once():
    grid = make_grid().drop(index=[0])  # a configuration with two seeds counts as much as one with three
    found = marginal_means(grid[list(AXES)], grid["value"], ["model"])
    expected = grid.groupby(list(AXES))["value"].mean().groupby("model").mean()
    assert [m.levels for m in found] == [("x",), ("y",)]
    assert [m.mean for m in found] == pytest.approx(expected.tolist())
    assert [(m.configurations, m.trials) for m in found] == [(6, 17), (6, 18)]
    both = marginal_means(grid[list(AXES)], grid["value"], ["model", "rate"])
    assert len(both) == 6 and both[0].levels == ("x", 0.1)


def test_what_is_not_set_is_one_level():
    """It is nan in a table of trials, and a nan read from a file is an object of its own."""
    columns = {"clip": [float("nan"), 0.5, float("nan"), 0.5], "rate": [1, 1, 2, 2]}
    found = marginal_means(columns, [0.2, 0.3, 0.4, 0.7], ["clip"])
    assert [(m.levels, m.mean, m.configurations) for m in found] == [((None,), pytest.approx(0.3), 2), ((0.5,), 0.5, 2)]


def test_a_margin_of_two_configurations_has_welch_s_interval():
    values = [1.0, 1.2, 1.1, 5.0, 6.0, 7.5]
    columns = {"a": [0] * 6, "b": [0, 0, 0, 1, 1, 1]}
    (found,) = marginal_means(columns, values, ["a"])
    # The half sum of two means has the interval of their half difference, one of them with its sign turned.
    expected = scipy.stats.ttest_ind(values[:3], -np.array(values[3:]), equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low / 2), pytest.approx(expected.high / 2))


@pytest.mark.simulation
@pytest.mark.parametrize(("seeds", "most"), [(2, 0.99), (5, 0.9695)])
def test_intervals_of_marginal_means_cover(seeds, most):
    generator, held = np.random.default_rng(seeds), 0
    configuration = np.repeat(range(6), seeds)
    columns = {"axis": [0] * len(configuration), "configuration": configuration}
    for _ in range(STUDIES):
        (found,) = marginal_means(columns, configuration + generator.normal(0, 1, len(configuration)), ["axis"])
        held += found.low <= 2.5 <= found.high
    assert 0.9305 <= held / STUDIES <= most
