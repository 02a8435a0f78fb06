"""The shares of the risk that looks at a growing study spend."""

import itertools

import pytest

from cnnjax.stats import compare, left, next_size, share_of_look, share_of_unplanned_look


@pytest.mark.parametrize(("start", "most"), [(2, 20), (3, 20), (3, 3), (5, 6), (3, 1000)])
def test_planned_looks_spend_the_whole_risk_and_no_more(start, most):
    seeds, before, spent = start, 0, 0.0
    for _ in itertools.count():
        spent += share_of_look(spent, seeds, before, most)
        assert 0 < spent <= 1 + 1e-6
        if seeds == most:
            break
        seeds, before = next_size(seeds, most), seeds
        assert before < seeds <= most
    assert spent == pytest.approx(1)


def test_the_shares_are_those_of_the_new_seeds():
    assert share_of_look(0.0, 3, 0, 20) == pytest.approx(3 / 20)
    assert share_of_look(3 / 20, 4, 3, 20) == pytest.approx(1 / 20)
    assert share_of_look(0.5, 20, 10, 20) == pytest.approx(0.5)


def test_unplanned_looks_after_the_first_share_one_more_risk():
    shares = []
    for _ in range(5):
        shares.append(share_of_unplanned_look(sum(shares)))
    assert shares == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16] and left(1.75) == 0.25


def test_a_share_of_the_risk_divides_p_and_widens_the_interval():
    a, b = (dict(enumerate(of)) for of in ((0.9, 0.91, 0.92), (0.8, 0.83, 0.81)))
    one, look = compare(a, b, pair=False), compare(a, b, pair=False, share=0.1)
    assert look.p == pytest.approx(10 * one.p) and look.level == pytest.approx(0.995)
    low, high = one.interval_at(0.995)
    assert look.interval == pytest.approx((low, high)) and one.verdict == "better"


def test_a_look_at_no_more_seeds_spends_a_share_too():
    for most in (4, 20):
        assert share_of_look(0.4, 4, 4, most) == share_of_look(0.4, 3, 4, most) == pytest.approx(0.3)
