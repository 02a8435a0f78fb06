"""Variance components: against statsmodels' analysis of variance, mean squares by hand, and simulated studies."""

import itertools

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from cnnjax.stats import variance_components

STUDIES = 2000


def cross(shape, seed=0, replicates=1, **stds):
    """A crossed study with normal effects of the given standard deviations; keys are letters of the sources."""
    generator = np.random.default_rng(seed)
    names = "abcd"[: len(shape)]
    values = np.zeros((*shape, replicates))
    for term, std in stds.items():
        if term == "residual":
            values = values + generator.normal(0, std, values.shape)
            continue
        kept = [size if name in term else 1 for name, size in zip(names, shape, strict=True)]
        values = values + generator.normal(0, std, [*kept, 1])
    rows = [(*place, value) for place in itertools.product(*map(range, shape)) for value in values[place]]
    return pd.DataFrame(rows, columns=[*names, "value"])


def split(table):
    return variance_components(table.drop(columns="value"), table["value"])


def by_name(found):
    return {"".join(c.sources): c for c in found.components}


@pytest.mark.parametrize(("shape", "replicates"), [((3, 4), 1), ((2, 3, 4), 1), ((3, 2), 3)])
def test_mean_squares_agree_with_statsmodels(shape, replicates):
    table = cross(shape, replicates=replicates, a=1.0, b=0.5, ab=0.3, residual=0.2)
    formula = "value ~ " + "*".join(f"C({name})" for name in "abcd"[: len(shape)])
    expected = anova_lm(ols(formula, table).fit()) if replicates > 1 else _without_residual(table, formula)
    for name, component in by_name(split(table)).items():
        row = "Residual" if name == "residual" else ":".join(f"C({letter})" for letter in name)
        assert component.freedom == expected.loc[row, "df"]
        assert component.mean_square * component.freedom == pytest.approx(expected.loc[row, "sum_sq"])


def _without_residual(table, formula):
    """Statsmodels divides by the residual's degrees of freedom: each trial twice gives it some, and doubles squares."""
    doubled = anova_lm(ols(formula, pd.concat([table, table])).fit())
    return doubled.assign(sum_sq=doubled["sum_sq"] / 2)


def test_two_sources_by_hand():
    table = cross((4, 5), a=1.0, b=2.0, ab=0.5)
    found = by_name(split(table))
    ms = {name: component.mean_square for name, component in found.items()}
    assert found["ab"].estimate == pytest.approx(ms["ab"])
    assert found["a"].estimate == pytest.approx((ms["a"] - ms["ab"]) / 5)
    assert found["b"].estimate == pytest.approx((ms["b"] - ms["ab"]) / 4)
    assert sum(component.share for component in found.values()) == pytest.approx(1)


def test_repetitions_have_a_residual():
    table = cross((3, 4), replicates=2, a=1.0, residual=0.5)
    study = split(table)
    found = by_name(study)
    assert not study.confounded and split(cross((3, 4), a=1.0)).confounded
    groups = table.groupby(["a", "b"])["value"]
    assert found["residual"].estimate == pytest.approx(groups.var().mean())
    assert found["ab"].estimate == pytest.approx((found["ab"].mean_square - found["residual"].mean_square) / 2)


def test_equal_values_have_no_sources():
    found = split(cross((3, 3)).assign(value=0.8))
    assert found.total == 0
    assert all(part.std == 0 and np.isnan([part.share, part.share_low]).all() for part in found.components)


def test_estimates_are_unbiased_also_of_interactions_of_three():
    truth = {"a": 1.0, "b": 0.0, "c": 0.5, "ab": 0.7, "ac": 0.0, "bc": 0.3, "abc": 0.4}
    found = [by_name(split(cross((3, 4, 2), seed, **truth))) for seed in range(400)]
    for name, std in truth.items():
        estimates = np.array([study[name].estimate for study in found])
        assert estimates.mean() == pytest.approx(std**2, abs=4 * estimates.std() / np.sqrt(len(found)))
        assert min(study[name].variance for study in found) >= 0


def test_order_and_names_of_levels_do_not_matter_and_single_levels_are_left_out():
    table = cross((3, 4), a=1.0, b=2.0, ab=0.5)
    other = table.sample(frac=1, random_state=0).assign(c=7, a=lambda t: t["a"] * -10 + 3)
    assert set(by_name(split(other))) == {"a", "b", "ab"}
    assert split(other).levels == {"a": 3, "b": 4}
    for name, component in by_name(split(table)).items():
        assert by_name(split(other))[name].estimate == pytest.approx(component.estimate)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.iloc[1:], "a 0, b 0 is there 0 times"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "another 2 times"),
        (lambda t: t[t["a"] == 0][["a", "value"]], "two levels"),
        (lambda t: t.assign(value=np.nan), "finite"),
    ],
)
def test_what_is_not_crossed_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        split(change(cross((2, 3), a=1.0)))


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize(
    "truth",
    [{"a": 1.0, "b": 0.5, "ab": 0.5}, {"a": 0.3, "b": 0.0, "ab": 1.0}],
)
def test_intervals_cover(truth):
    """Generalized intervals: nominal or a little wider, of what is zero too."""
    held = dict.fromkeys(truth, 0)
    for study in range(STUDIES):
        found = by_name(split(cross((6, 5), study, **truth)))
        for name, std in truth.items():
            held[name] += found[name].low <= std**2 <= found[name].high
    for name in truth:
        assert held[name] / STUDIES >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / STUDIES), (name, held)
