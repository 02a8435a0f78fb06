"""Simulated studies of the verdicts: cells of the table in docs/methods.md, decided as the report decides them."""

import math

import numpy as np
import pytest

from cnnjax.stats import Scale, rank
from experiments import evidence


def test_a_simulated_study_is_decided_as_the_report_decides_it():
    generator = np.random.default_rng(0)
    for paired in (False, True):
        common = 3 * paired * generator.normal(size=4)
        values = 0.4 * generator.normal(size=(8, 4)) + np.linspace(0, 2, 8)[:, None] + common
        found = rank(dict(enumerate(dict(enumerate(row)) for row in values)))
        assert found[0].against is None and found[1].against.paired == paired
        excluded = evidence.decide(values).excluded
        assert {one.name for one in found if not one.may_be_best} == {*np.flatnonzero(excluded).tolist()}
        assert 0 < excluded.sum() < 8


def test_the_committed_results_decide_more_than_before():
    rows = {row["results"]: row for row in evidence.committed()}
    assert rows["quickstart"]["before"] == 0 and rows["quickstart"]["after"] == 8
    assert all(row["after"] >= row["before"] for row in rows.values() if "after" in row)


@pytest.mark.simulation
@pytest.mark.parametrize(("k", "n", "spread"), [(12, 3, "equal"), (12, 2, "log-sd 1"), (3, 3, "log-sd 1")])
def test_the_best_is_seldom_lost(k, n, spread):
    generator, studies = np.random.default_rng((k, n)), 400
    found = [evidence.decide(evidence.draw(k, n, spread, False, generator)) for _ in range(studies)]
    slack = 4 * math.sqrt(0.05 * 0.95 / studies)
    assert np.mean([one.excluded[0] for one in found]) <= 0.05 + slack
    assert np.mean([one.excluded.sum() == k - 1 for one in found]) <= 0.05 + slack
    assert np.mean([one.pairs > 0 for one in found]) <= 0.05 + slack


@pytest.mark.simulation
@pytest.mark.parametrize(("k", "n"), [(12, 2), (48, 3), (4, 3)])
def test_a_pair_with_borrowed_spreads_is_seldom_told_apart(k, n):
    generator, studies = np.random.default_rng((k, n)), 1000
    told = [evidence.told_apart(evidence.draw(k, n, "log-sd 1", False, generator))[0] for _ in range(studies)]
    assert np.mean(told) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.simulation
def test_three_seeds_decide_three_times_as_much_of_the_quickstart_as_before():
    scale, generator, shares = Scale("logit", 158), np.random.default_rng(1), []
    logits = [scale.apply(of) for of in evidence.read_groups("quickstart")]
    for values in evidence.draw_alike(logits, scale, 3, 200, generator):
        before, after = evidence.decide(values, moderated=False), evidence.decide(values, scale=scale)
        shares.append((before.worse.sum() / 11, after.excluded.sum() / 11))
    before, after = np.mean(shares, axis=0)
    assert after > 0.6 and after > 3 * before


@pytest.mark.simulation
@pytest.mark.parametrize("k", [2, 12])
def test_looking_again_loses_the_best_no_more_often_than_one_look(k):
    generator, studies = np.random.default_rng((k, 20)), 200
    found = [evidence.grow(evidence.draw(k, 20, "log-sd 1", False, generator)) for _ in range(studies)]
    slack = 4 * math.sqrt(0.05 * 0.95 / studies)
    assert np.mean([one.ever[0] for one in found]) <= 0.05 + slack
    assert np.mean([one.excluded.sum() == k - 1 for one in found]) <= 0.05 + slack
