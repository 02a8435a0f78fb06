"""Comparisons against SciPy, statsmodels and closed forms, and by simulated studies."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from cnnjax.stats import compare, decision_power, holm, seeds_to_decide, verdict_sentence, what_decides

A = [0.741, 0.752, 0.738, 0.749, 0.744, 0.747]
B = [0.732, 0.745, 0.736, 0.739, 0.741, 0.748]
STUDIES = 2000


def by_seed(values, first=0):
    return dict(enumerate(values, first))


def pair(a=A, b=B, **options):
    return compare(by_seed(a), by_seed(b), **options)


def unpaired(a=A, b=B[:5], **options):
    return compare(by_seed(a), by_seed(b, 100), **options)


def test_pairs_agree_with_scipy():
    found, expected = pair(), scipy.stats.ttest_rel(A, B)
    assert found.paired
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert found.tested.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(expected.confidence_interval(0.95))


def test_what_is_not_paired_agrees_with_welch_in_scipy():
    found, expected = unpaired(), scipy.stats.ttest_ind(A, B[:5], equal_var=False)
    assert not found.paired
    assert found.tested.freedom == pytest.approx(expected.df)
    assert found.tested.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(expected.confidence_interval(0.95))


@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "paired"),
    [
        ([0, 1, 2], [2, 1, 0], True),
        ([0, 1, 2, 3], [3, 1, 2], True),
        ([0, 1, 2, 3], [3, 1, 2, 4], True),
        ([0, 1, 2, 3], [3, 1], False),  # half of A's seeds would be wasted
        ([0, 1, 2], [2, 3, 4], False),
        ([0, 1, 2], [7, 8], False),
        ([0], [0], False),  # of one pair nothing follows
    ],
)
def test_pairing_goes_by_seed(seeds_a, seeds_b, paired):
    a, b = ({seed: shift + seed for seed in seeds} for shift, seeds in ((1.0, seeds_a), (0.0, seeds_b)))
    found = compare(a, b)
    assert found.paired == paired
    if paired:
        assert (found.a - found.b == 1).all()
    else:
        assert (len(found.a), len(found.b)) == (len(seeds_a), len(seeds_b))


def test_the_sign_flip_test_is_exact():
    """The sum of six distinct positive differences but one has few rivals: count them by hand."""
    gaps = np.subtract(A, B)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    as_far = np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12
    assert pair().permutation_p == pytest.approx(as_far.mean())
    assert pair([1.0, 2, 3, 4, 5], [0.0] * 5).permutation_p == 2 / 32 == pair([1.0] * 5, [0.0] * 5).least_permutation_p


def test_the_permutation_test_is_exact_and_sees_all_there_are():
    apart = unpaired([5.0, 6.1, 7.3], [1.0, 2.2, 3.1, 4.5])
    assert apart.permutation_p == pytest.approx(2 / 35) == apart.least_permutation_p


def exact_flips(a, b):
    """The p-value of sign flips, of whole numbers."""
    gaps = [x - y for x, y in zip(a, b, strict=True)]
    sums = [
        sum(s * gap for s, gap in zip(signs, gaps, strict=True)) for signs in itertools.product((1, -1), repeat=len(a))
    ]
    return Fraction(sum(abs(one) >= abs(sum(gaps)) for one in sums), len(sums))


def exact_exchanges(a, b):
    """The p-value of exchanges, of whole numbers: Welch's t squared, with its sign, is a fraction."""

    def t(a, b):
        (mean_a, part_a), (mean_b, part_b) = map(moments, (a, b))
        gap = mean_a - mean_b
        return abs(gap) * gap / (part_a + part_b) if part_a + part_b else gap * 10**9

    def moments(values):
        n, total = len(values), sum(values)
        return Fraction(total, n), Fraction(sum(v * v for v in values) * n - total * total, n * n * (n - 1))

    values, places = [*a, *b], range(len(a) + len(b))
    splits = itertools.combinations(places, len(a))
    found = [t([values[i] for i in first], [values[i] for i in places if i not in first]) for first in splits]
    fewer = min(sum(one >= found[0] for one in found), sum(one <= found[0] for one in found))
    return min(Fraction(1), Fraction(2 * fewer, len(found)))


@settings(max_examples=60)
@given(st.data(), st.sampled_from([100, 300]), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_ties_of_counts_are_ties_however_they_are_stored(data, images, stored, paired):
    """Accuracies are counts of images over their number, so many splits are as extreme as the observed one."""
    few = st.lists(st.integers(images - 15, images), min_size=2, max_size=5)
    a = data.draw(few)
    b = data.draw(st.lists(st.integers(images - 15, images), min_size=len(a), max_size=len(a)) if paired else few)
    exact = float(exact_flips(a, b) if paired else exact_exchanges(a, b))
    a, b = ((np.array(counts) / images).astype(stored).astype(float) for counts in (a, b))
    for shift, scale in ((0, 1), (1, 1), (0, 100), (0, 1e-3)):
        found = (pair if paired else unpaired)(a * scale + shift, b * scale + shift)
        assert found.paired == paired
        assert found.permutation_p == pytest.approx(exact, rel=1e-12)


def test_ties_that_rounding_hides():
    a, b = [273, 266, 275, 273, 277, 274, 281, 272], [270, 261, 271, 273, 268, 278, 267, 268]
    found = pair(*((np.array(counts) / 300).astype(np.float32).astype(float) for counts in (a, b)))
    assert found.permutation_p == exact_flips(a, b) == 20 / 256
    a, b = [7218, 7217, 7212, 7219, 7207], [7229, 7244, 7241, 7217]
    found = unpaired(np.array(a) / 10_000, np.array(b) / 10_000)
    assert found.permutation_p == pytest.approx(float(exact_exchanges(a, b))) == pytest.approx(8 / 126)
    assert unpaired([0.7261, 0.7282, 0.7250], [0.7211, 0.7282]).permutation_p == pytest.approx(0.8)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (6, 6), (7, 9), (8, 8)])
def test_the_permutation_test_agrees_with_scipy(n, m):
    generator = np.random.default_rng(n)
    a, b = generator.normal(0.5, 1, n), generator.normal(0, 2, m)

    def welch(a, b, axis):
        return scipy.stats.ttest_ind(a, b, axis=axis, equal_var=False).statistic

    expected = scipy.stats.permutation_test((a, b), welch, vectorized=True, n_resamples=20_000)
    assert unpaired(a, b).permutation_p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("n", range(13, 31))
def test_the_least_p_of_pairs_is_that_of_the_clearest_difference(n):
    clear = pair(np.linspace(1, 2, n), [0.0] * n)
    assert clear.permutation_p == clear.least_permutation_p
    assert clear.least_permutation_p == 2 / 2**n if n < 15 else 1 / 20_001 <= clear.least_permutation_p < 2e-4


def test_many_seeds_are_permuted_at_random():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.4, 1, 40), generator.normal(0, 1, 40)
    assert pair(a, b).permutation_p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, abs=0.01)
    assert unpaired(a, b).permutation_p == pytest.approx(scipy.stats.ttest_ind(a, b).pvalue, abs=0.01)


def test_the_share_of_wins():
    found = pair(A, [*B[:4], A[4], B[5]]).beats  # 4 wins, a tie, a loss
    assert found.value == 4.5 / 6
    assert found[1:] == pytest.approx(proportion_confint(4.5, 6, method="wilson"), abs=2e-4)
    found = unpaired()
    assert found.beats.value == pytest.approx(scipy.stats.mannwhitneyu(A, B[:5]).statistic / 30)
    assert unpaired(larger_is_better=False).beats.value == pytest.approx(1 - found.beats.value)
    certain = unpaired([5.0, 6, 7], [1.0, 2, 3]).beats
    assert certain.value == certain.high == 1 and 0.3 < certain.low < 0.7


@pytest.mark.simulation
@pytest.mark.parametrize(("shift", "n", "m"), [(0.0, 5, 5), (1.0, 5, 8), (1.5, 10, 10)])
def test_the_interval_of_the_share_of_wins_covers(shift, n, m):
    truth, generator, held = scipy.stats.norm.cdf(shift / math.sqrt(2)), np.random.default_rng(n), 0
    for _ in range(STUDIES):
        beats = unpaired(generator.normal(shift, 1, n), generator.normal(0, 1, m)).beats
        held += beats.low <= truth <= beats.high
    assert held / STUDIES >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / STUDIES)


def test_the_effect_is_hedges_g():
    pooled = math.sqrt((np.var(A, ddof=1) * 5 + np.var(B[:5], ddof=1) * 4) / 9)
    g = (np.mean(A) - np.mean(B[:5])) / pooled * (1 - 3 / (4 * 9 - 1))  # his approximation of the correction
    assert unpaired().effect_size == pytest.approx(g, rel=2e-3)
    assert unpaired(larger_is_better=False).effect_size == -unpaired().effect_size
    assert math.isnan(pair([0.1, 0.1], [0.2, 0.2]).effect_size)


@pytest.mark.parametrize("margin", [0.002, 0.008, 0.012, 0.02])
def test_equal_is_what_two_one_sided_tests_say(margin):
    a, b = A[::-1], [value - 0.001 for value in B]
    assert (pair(a, b, margin=margin).verdict == "equal") == (
        ttost_paired(np.array(a), np.array(b), -margin, margin)[0] < 0.05
    )
    p = ttost_ind(np.array(a), np.array(b), -margin, margin, usevar="unequal")[0]
    assert (unpaired(a, b, margin=margin).verdict == "equal") == (p < 0.05)


def test_verdicts():
    assert pair([2.0, 2.1, 2.2], [1.0, 1.2, 1.1]).verdict == "better"
    assert pair([1.0, 1.2, 1.1], [2.0, 2.1, 2.2]).verdict == "worse"
    assert pair([2.0, 2.1, 2.2], [1.0, 1.2, 1.1], larger_is_better=False).verdict == "worse"
    assert pair([2.0, 0.1, 1.2], [1.0, 1.2, 1.1]).verdict == "undecided"
    assert pair([2.0, 2.1, 2.2], [1.0, 1.2, 1.1], margin=3.0).verdict == "equal"
    assert pair([2.0, 2.1], [2.0, 2.1]).verdict == "equal"


def test_no_spread_is_no_evidence():
    for found in (pair([0.5, 0.6], [0.4, 0.5]), unpaired([0.5, 0.5], [0.4, 0.4]), pair([0.5], [0.4])):
        assert (found.verdict, found.seeds, found.more_seeds) == ("undecided", None, None)
        assert math.isnan(found.tested.p)
    assert math.isnan(pair([0.5], [0.4]).permutation_p)


def test_identical_is_what_has_no_other_seeds():
    same = compare({0: 0.5, 1: 0.6, 2: 0.7}, {2: 0.7, 1: 0.6, 0: 0.5})
    assert (same.verdict, same.dropped) == ("equal", 0)
    some = compare({0: 0.5, 1: 0.6, 2: 0.7}, {1: 0.6, 2: 0.7, 3: 0.9})
    assert (some.verdict, some.dropped, some.is_identical) == ("undecided", 2, False)
    assert verdict_sentence(same, "test_accuracy").startswith("Equal: A and B have the same test accuracy on each of 3")
    assert verdict_sentence(some, "test_accuracy").startswith("Undecided")
    assert unpaired().dropped == 0


def test_the_rounding_of_what_is_stored_is_no_spread():
    """Accuracies are float32 in a run's files: what is five of a hundred images on each seed differs by 1e-8."""
    a, b = (np.float32(values).astype(float) for values in ([0.85, 0.95, 0.9], [0.8, 0.9, 0.85]))
    assert np.ptp(a - b) > 0
    found = pair(a, b)
    assert (found.verdict, found.seeds) == ("undecided", None) and math.isnan(found.tested.p)
    assert all(map(math.isnan, found.interval))
    same = unpaired([0.1] * 3, [0.3] * 3)  # their means are not 0.1 and 0.3
    assert same.verdict == "undecided" and math.isnan(same.effect_size) and math.isnan(same.tested.p)
    assert pair(a + [0, 0, 0.01], b).verdict == "better"  # one image more is a spread


def test_an_interval_ends_where_a_difference_cannot_be():
    wide = ([0.1, 0.9], [0.95, 0.3])
    assert pair(*wide, most=1).interval == (-1, 1) and pair(*wide).interval.high > 1
    assert pair(*wide, most=1).verdict == pair(*wide).verdict
    assert pair(most=1).interval == pair().interval


def test_pairs_can_be_refused():
    assert pair(pair=False).tested == compare(by_seed(A), by_seed(B, 100)).tested


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_a_margin_is_positive(margin):
    with pytest.raises(ValueError, match="margin"):
        pair(margin=margin)


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 3))
def test_holm_agrees_with_statsmodels(p_values, untested):
    expected = multipletests(p_values, method="holm")[1]
    found = holm([*p_values, *[math.nan] * untested])
    assert found[: len(p_values)] == pytest.approx(expected)
    assert np.isnan(found[len(p_values) :]).all()


def test_verdicts_are_corrected_for_their_number():
    """By one-sided tests, each of them of one of several rivals: two count as in a single two-sided test."""
    found = pair(A, [value - 0.0005 for value in B])
    p = scipy.stats.ttest_rel(A, [value - 0.0005 for value in B], alternative="greater").pvalue
    for tests, factor in ((1, 2), (2, 2), (3, 3), (11, 11)):
        one = dataclasses.replace(found, tests=tests)
        assert one.p == pytest.approx(min(1, factor * p))
        assert (one.verdict == "better") == (one.interval.low > 0) == (one.p < 0.05)
    assert found.verdict == "better" and dataclasses.replace(found, tests=11).verdict == "undecided"


@pytest.mark.simulation
@pytest.mark.parametrize("design", [pair, unpaired])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_interval_of_a_difference_covers_and_the_verdict_seldom_errs(design, n):
    """Of equal configurations, 5 % may be called better or worse; Welch's test is a little stricter with few seeds."""
    generator, held, wrong = np.random.default_rng(n), 0, 0
    for _ in range(STUDIES):
        common = generator.normal(0, 1, n) if design is pair else 0
        found = design(common + generator.normal(0.7, 0.5, n), common + generator.normal(0.7, 0.5, n))
        held += found.interval.low < 0 < found.interval.high
        wrong += found.verdict in ("better", "worse")
    slack = 4 * math.sqrt(0.95 * 0.05 / STUDIES)
    assert wrong / STUDIES <= 0.05 + slack
    assert held / STUDIES >= 0.95 - slack
    if design is pair:
        assert held / STUDIES <= 0.95 + slack


@pytest.mark.simulation
@pytest.mark.parametrize("design", [pair, unpaired])
def test_what_differs_by_the_margin_is_seldom_called_equal(design):
    generator, n = np.random.default_rng(1), 12
    wrong = sum(
        design(generator.normal(0.5, 0.3, n), generator.normal(0, 0.3, n), margin=0.5).verdict == "equal"
        for _ in range(STUDIES)
    )
    assert 0.02 < wrong / STUDIES <= 0.05 + 4 * math.sqrt(0.95 * 0.05 / STUDIES)


@pytest.mark.parametrize("effect", [0.3, 0.8, 2.0])
@pytest.mark.parametrize("n", [3, 10, 40])
def test_power_agrees_with_statsmodels(effect, n):
    assert decision_power(n, effect, 1.0) == pytest.approx(TTestPower().power(effect, n, 0.05), abs=2e-3)
    # Two samples of equal spread: the difference of two seeds has sqrt(2) times it, and each seed two degrees; fewer
    # by Welch's test, which has less power than Student's.
    student = TTestIndPower().power(effect, n, 0.05)
    assert student - 0.3 / n < decision_power(n, effect, math.sqrt(2), per_seed=2) < student + 2e-3
    corrected = decision_power(n, effect, 1.0, level=0.99)
    assert corrected == pytest.approx(TTestPower().power(effect, n, 0.01), abs=2e-3)


@pytest.mark.simulation
@pytest.mark.parametrize("other", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("effect", [1.5, 2.5, 4.0, 6.0])
@pytest.mark.parametrize("n", [2, 3, 4, 10])
def test_power_is_that_of_simulated_studies_of_two_samples(n, effect, other):
    generator = np.random.default_rng(n)
    a, b = generator.normal(effect, 1, (STUDIES * 10, n)), generator.normal(0, other, (STUDIES * 10, n))
    share = (scipy.stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05).mean()
    per_seed = (1 + other**2) ** 2 / (1 + other**4)
    assert decision_power(n, effect, math.hypot(1, other), per_seed=per_seed) == pytest.approx(share, abs=0.02)


def test_two_or_three_seeds_of_each_are_not_promised_more_than_they_do():
    """With as many degrees of freedom as Student's test has, it would be 2 and 3."""
    assert seeds_to_decide(6, math.sqrt(2), per_seed=2) == 3
    assert seeds_to_decide(3.5, math.sqrt(2), per_seed=2) == 4


def decided(n, difference, std, margin, studies=20_000):
    """The share of simulated pairs of n seeds that end with a verdict."""
    gaps = np.random.default_rng(n).normal(difference, std, (studies, n))
    error = gaps.std(axis=1, ddof=1) / math.sqrt(n)
    apart = np.abs(gaps.mean(axis=1)) > scipy.stats.t.ppf(0.975, n - 1) * error
    equal = np.abs(gaps.mean(axis=1)) + scipy.stats.t.ppf(0.95, n - 1) * error < (margin or 0)
    return (apart | equal).mean()


@pytest.mark.parametrize(("difference", "margin"), [(1.0, None), (0.4, None), (0.0, 0.8), (0.3, 0.6), (-0.9, 0.5)])
def test_the_recommended_number_of_seeds_reaches_its_power_and_fewer_do_not(difference, margin):
    n = seeds_to_decide(difference, 1.0, margin=margin)
    error = math.sqrt(0.8 * 0.2 / 20_000)
    assert decided(n, difference, 1.0, margin) >= 0.8 - 4 * error
    assert decided(n - 1, difference, 1.0, margin) <= 0.8 + 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("pilot", [4, 10])
def test_the_recommendation_allows_for_a_spread_that_is_itself_estimated(pilot):
    """A first study estimates the spread of pairs; its recommendation, followed, decides in 80 % of the studies."""
    places = (np.arange(100) + 0.5) / 100
    stds = np.sqrt(scipy.stats.chi2.ppf(places, pilot - 1) / (pilot - 1))  # equally likely, of a true one of 1

    def power(freedom):
        """The share of studies decided, each by what a first study recommends that knows its spread so well."""
        recommended = [seeds_to_decide(0.8, std, freedom=freedom) for std in stds]
        return np.mean([decided(n, 0.8, 1.0, None, studies=1000) for n in recommended])

    assert 0.795 < power(pilot - 1) < 0.83  # numbers of seeds are whole, and at least 2
    assert power(math.inf) < 0.78


def test_more_seeds():
    close = pair([0.71, 0.73, 0.70, 0.74], [0.70, 0.725, 0.705, 0.72])
    assert close.verdict == "undecided"
    tested = close.tested
    assert close.seeds == seeds_to_decide(tested.value, tested.std, freedom=3)
    assert close.power(close.seeds - 1) < 0.8 <= close.power(close.seeds)
    assert close.more_seeds == (close.seeds - 4, close.seeds - 4)
    of_ten = dataclasses.replace(close, tests=10)
    assert of_ten.seeds == seeds_to_decide(tested.value, tested.std, freedom=3, level=0.99) > close.seeds
    apart = unpaired([0.71, 0.73, 0.70, 0.74], [0.70, 0.725])
    assert apart.more_seeds == (max(0, apart.seeds - 4), apart.seeds - 2)
    assert pair([0.7, 0.8, 0.7, 0.8], [0.8, 0.7, 0.7, 0.8000001]).seeds is None  # thousands would not tell


def with_moments(n, mean, std):
    """Values of that mean and standard deviation."""
    values = np.linspace(-1, 1, n)
    return mean + std * values / values.std(ddof=1)


@settings(max_examples=60)
@given(st.integers(3, 20), st.floats(-0.004, 0.004), st.floats(1e-3, 5e-3), st.floats(1e-3, 0.02))
def test_what_is_undecided_needs_a_seed_more(n, difference, std, margin):
    found = pair(with_moments(n, difference, std), np.zeros(n), margin=margin)
    if found.verdict == "undecided" and found.more_seeds is not None:
        more, _ = found.more_seeds
        assert more >= 1
        assert more == 1 or more == found.seeds - n


def test_seeds_that_had_the_power_but_not_the_luck():
    """Twenty seeds decide a difference of 2, of a standard error of 1 and a margin of 3.6, in 80 %; not these."""
    found = pair(with_moments(20, 0.002, 0.001 * math.sqrt(20)), [0.0] * 20, margin=0.0036)
    assert found.verdict == "undecided" and found.seeds <= 20
    assert found.more_seeds == (1, 1)
    assert what_decides(found) == "If the true difference is that, 1 more seed of each would decide it with 80 % power."
