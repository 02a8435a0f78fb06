"""Rankings and nested selection: against brute force, SciPy and simulated studies."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from cnnjax.stats import expected_best, nested_selection, rank

STUDIES = 2000


def groups_of(values, first_seed=0):
    """Configurations a, b, ... with the rows of `values`; each with seeds of its own where `first_seed` is a list."""
    firsts = first_seed if isinstance(first_seed, list) else [first_seed] * len(values)
    return {chr(97 + i): dict(enumerate(row, firsts[i])) for i, row in enumerate(values)}


@pytest.mark.parametrize("first_seed", [0, [0, 10]])
def test_two_configurations_are_tested_as_in_scipy(first_seed):
    generator = np.random.default_rng(0)
    values = generator.normal(size=6) * 30 + generator.normal(size=(2, 6))
    found = rank(groups_of(values, first_seed))[1].against
    test = scipy.stats.ttest_ind(*values, equal_var=False) if first_seed else scipy.stats.ttest_rel(*values)
    assert found.paired == (first_seed == 0) and found.p == pytest.approx(test.pvalue)


def test_pairs_are_aligned_by_seed():
    a, b = {0: 1.0, 1: 2.0, 2: 3.5}, {2: 3.0, 1: 1.9, 0: 0.8}
    found = rank({"a": a, "b": b})[1].against
    assert found.p == pytest.approx(scipy.stats.ttest_rel([1, 2, 3.5], [0.8, 1.9, 3]).pvalue)


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_the_best_is_first(larger_is_better):
    generator = np.random.default_rng(1)
    values = np.array([[1.0], [5.0], [3.0], [3.0]]) + generator.normal(0, 0.1, (4, 5))
    found = rank(groups_of(values), larger_is_better=larger_is_better)
    assert [r.name for r in found if r.name in "ab"] == (["b", "a"] if larger_is_better else ["a", "b"])
    assert [(r.low, r.high) for r in found] == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert [r.may_be_best for r in found] == [True, False, False, False]
    assert found[0].against is None and all(r.certainty > 0.999 for r in found)
    assert found[1].mean == pytest.approx(values["abcd".index(found[1].name)].mean())


def test_one_seed_ranks_nothing():
    found = rank(groups_of([[1.0], [2.0], [3.0]]))
    assert [r.name for r in found] == ["c", "b", "a"]
    assert all((r.low, r.high) == (1, 3) and math.isnan(r.certainty) for r in found)


def test_equal_configurations_may_all_be_the_best():
    found = rank(groups_of([[1.0, 2.0, 4.0]] * 4))
    assert all(r.may_be_best and (r.low, r.high) == (1, 4) for r in found)


def test_certainty_verdict_interval_and_places_agree():
    """For studies in which some configurations are decided and some are not."""
    generator, decided = np.random.default_rng(8), 0
    for _ in range(100):
        values = generator.normal(0, 1, (6, 1)) + generator.normal(0, 0.4, (6, 3))
        winner, *others = rank(groups_of(values))
        for one in others:
            assert one.may_be_best == (one.certainty < 0.95) == (one.low == 1) == (one.against.interval.low < 0)
            assert one.certainty == 1 - one.against.p
        alone = not any(one.may_be_best for one in others)
        assert alone == (winner.certainty >= 0.95) == (winner.high == 1)
        decided += sum(not one.may_be_best for one in others)
    assert 100 < decided < 400


def test_stuck_seeds_count_in_the_mean_and_not_in_the_test():
    generator = np.random.default_rng(2)
    values = np.array([[0.96], [0.95], [0.8], [0.7]]) + generator.normal(0, 0.004, (4, 3))
    values[1, 1:] = 0.1
    found = {one.name: one for one in rank(groups_of(values), stuck={"b": {1, 2}})}
    assert found["b"].mean == pytest.approx(values[1].mean()) and found["b"].n == 3
    against = found["b"].against
    assert against.b.tolist() == [values[1, 0]] and against.stuck == ((), (0.1, 0.1)) and found["b"].may_be_best
    assert against.difference == pytest.approx(values[0].mean() - values[1, 0])
    assert not found["c"].may_be_best and not found["d"].may_be_best


def test_a_winner_with_stuck_seeds_must_be_better_with_them_too():
    generator = np.random.default_rng(3)
    values = np.array([[0.95], [0.6], [0.55], [0.5]]) + generator.normal(0, 0.004, (4, 5))
    values[0, 0] = 0.1
    found = rank(groups_of(values), stuck={"a": {0}})
    assert found[0].name == "a" and all(one.may_be_best for one in found[:2])
    without = rank(groups_of(np.delete(values, 0, axis=1)))
    assert not any(one.may_be_best for one in without[1:])
    pooled = scipy.stats.ttest_ind(values[0], values[1], equal_var=False).pvalue
    assert found[1].against.p == pytest.approx(min(1, 1.5 * pooled))


def test_two_stuck_seeds_prove_little_where_other_configurations_have_stuck_seeds_too():
    generator = np.random.default_rng(4)
    values = 0.9 + generator.normal(0, 0.004, (8, 2))
    values[7] = 0.1
    bad_rate = {one.name: one for one in rank(groups_of(values), stuck={"h": {0, 1}})}["h"]
    assert not bad_rate.may_be_best and bad_rate.against.luck == pytest.approx((0.5 / 15) ** 2)
    values[1:4, 0] = 0.1
    stuck = {key: {0} for key in "bcd"} | {"h": {0, 1}}
    bad_luck = {one.name: one for one in rank(groups_of(values), stuck=stuck)}["h"]
    assert bad_luck.may_be_best and bad_luck.against.p == pytest.approx((3.5 / 15) ** 2 * 7 / 2)


def test_who_leads_by_as_much_on_each_seed_is_not_surely_the_best():
    flat, shifted = [[0.85] * 3, [0.8] * 3], [[0.85, 0.95, 0.9], [0.8, 0.9, 0.85]]
    for values in (flat, shifted):
        assert np.isnan([r.certainty for r in rank(groups_of(values))]).all()


@pytest.mark.parametrize("n", [2, 3])
def test_equal_configurations_tested_on_few_images_are_not_told_apart(n):
    """Gaps of the same number of images on each seed, which are common, would pass any correction."""
    generator, told = np.random.default_rng(5), 0
    for _ in range(200):
        right = generator.binomial(144, 0.9, (20, n))
        found = rank({name: dict(enumerate(row)) for name, row in enumerate((right / 144).astype(np.float32).tolist())})
        told += any(r.low > 2 or r.high < 20 for r in found)
    assert told / 200 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.slow
@pytest.mark.parametrize("means", [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]])
def test_the_ranges_of_places_hold_all_true_places_at_once(means):
    generator, held = np.random.default_rng(4), 0
    means = np.array(means)
    for _ in range(STUDIES):
        values = means[:, None] + generator.normal(0, 0.8, (4, 5))
        ranges = {r.name: (r.low, r.high) for r in rank(groups_of(values))}
        # Equal configurations may take any of the places they share.
        true = [(1 + (means > m).sum(), (means >= m).sum()) for m in means]
        held += all(
            ranges[name][0] <= max(2, t[0]) and t[1] <= ranges[name][1] for name, t in zip("abcd", true, strict=True)
        )
    assert held / STUDIES >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / STUDIES)


def test_the_expected_best_is_the_mean_over_all_choices():
    values = [0.71, 0.74, 0.69, 0.74, 0.72, 0.8]
    for n in range(1, 7):
        choices = list(itertools.combinations(values, n))
        assert expected_best(values, n) == pytest.approx(np.mean([max(c) for c in choices]))
        assert expected_best(values, n, larger_is_better=False) == pytest.approx(np.mean([min(c) for c in choices]))
    for n in (0, 7):
        with pytest.raises(ValueError, match="best of"):
            expected_best(values, n)


@pytest.mark.parametrize("n", [1, 2, 5000, 9999, 10_000])
def test_the_expected_best_of_many_is_that_of_the_german_tank_problem(n):
    """The largest of n of the numbers 1 to N is n (N + 1) / (n + 1) on average."""
    assert expected_best(range(1, 10_001), n) == pytest.approx(n * 10_001 / (n + 1))


def test_the_expected_best_is_unbiased():
    """The largest of five uniform draws is 5/6 on average."""
    generator = np.random.default_rng(5)
    found = [expected_best(generator.random(8), 5) for _ in range(STUDIES)]
    assert np.mean(found) == pytest.approx(5 / 6, abs=4 * np.std(found) / math.sqrt(STUDIES))


def test_nested_selection_by_hand():
    values = groups_of([[1.0, 2.0, 9.0], [4.0, 3.0, 2.0]])
    found = nested_selection(values)
    # Without seed 0, a is best (5.5 : 2.5) and gives 1; without 1, a (5 : 3) gives 2; without 2, b (1.5 : 3.5) gives 2.
    assert (found.chosen, found.apparent, found.votes) == ("a", 4, {"a": 2, "b": 1})
    assert found.held_out == pytest.approx(5 / 3) and found.optimism == pytest.approx(4 - 5 / 3)
    # Of seeds 1 and 2 alone, a (9) is what 2 chooses and gives 2, b (3) is what 1 chooses and gives 2; of 0 and 2, a
    # and b give 1 and 2; of 0 and 1, b and b give 4 and 3: means of 2, 1.5 and 3.5.
    error = math.sqrt(2 / 3 * sum((mean - 7 / 3) ** 2 for mean in (2, 1.5, 3.5)))
    half = scipy.stats.t.ppf(0.975, 2) * error
    assert (found.low, found.high) == pytest.approx((5 / 3 - half, 5 / 3 + half))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_interval_of_a_configuration_that_is_always_chosen_is_that_of_its_mean(n):
    values = np.random.default_rng(n).normal([[0], [9]], 0.3, (2, n))
    found = nested_selection(groups_of(values))
    interval = scipy.stats.ttest_1samp(values[1], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval))


@pytest.mark.parametrize(
    ("configurations", "n", "spread"), [(2, 2, 0), (2, 5, 0.3), (10, 3, 1), (10, 10, 0), (10, 10, 0.3), (50, 3, 3)]
)
def test_the_interval_of_the_held_out_mean_holds_what_the_choice_brings(configurations, n, spread):
    """An interval that took the values left out as independent would hold it in 74 % of studies of (10, 10, 0)."""
    generator = np.random.default_rng(7)
    truth = generator.normal(0, spread, configurations)
    brought = truth[(truth + generator.normal(0, 1 / math.sqrt(n - 1), (20_000, configurations))).argmax(axis=1)].mean()
    held = 0
    for _ in range(STUDIES):
        found = nested_selection(groups_of(truth[:, None] + generator.normal(0, 1, (configurations, n))))
        held += found.low <= brought <= found.high
    least = 0.93 if n > 2 else 0.92
    assert held / STUDIES >= least - 4 * math.sqrt(least * (1 - least) / STUDIES)


def test_one_measure_selects_and_another_counts():
    losses = groups_of([[0.1, 0.2, 0.3], [1.0, 1.1, 1.2]])
    accuracies = groups_of([[0.7, 0.8, 0.6], [0.9, 0.9, 0.9]])
    found = nested_selection(losses, accuracies, larger_is_better=False, report_larger_is_better=True)
    assert (found.chosen, found.apparent) == ("a", pytest.approx(0.7))
    assert (found.held_out, found.optimism) == (pytest.approx(0.7), pytest.approx(0))


def test_seeds_that_a_configuration_lacks_do_not_count():
    values = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {1: 5.0, 2: 6.0, 7: 9.0}}
    assert nested_selection(values).apparent == 5.5
    with pytest.raises(ValueError, match="share 1 seeds"):
        nested_selection({"a": {0: 1.0, 1: 2.0}, "b": {1: 5.0, 2: 6.0}})


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_held_out_mean_is_unbiased_where_the_apparent_one_is_lucky(spread):
    """Of ten configurations that are (nearly) equal: what the choice by n - 1 seeds truly brings is its expectation."""
    generator, n = np.random.default_rng(6), 4
    truth = generator.normal(0, spread, 10)
    held_out, apparent, brought = [], [], []
    for _ in range(STUDIES):
        values = truth[:, None] + generator.normal(0, 1, (10, n))
        found = nested_selection(groups_of(values))
        held_out.append(found.held_out)
        apparent.append(found.apparent - truth["abcdefghij".index(found.chosen)])
        brought.append(truth[(truth[:, None] + generator.normal(0, 1, (10, n - 1))).mean(axis=1).argmax()])
    error = math.hypot(np.std(held_out), np.std(brought)) / math.sqrt(STUDIES)
    assert np.mean(held_out) == pytest.approx(np.mean(brought), abs=4 * error)
    assert np.mean(apparent) > 0.4  # of a standard deviation of seeds: the winner's curse
