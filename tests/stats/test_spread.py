import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from cnnjax.stats import bootstrap_interval, interquartile_mean, pooled_std, prediction_interval, summarize

SAMPLE = [71.44, 72.88, 72.15, 72.01, 72.3]


def test_summary_agrees_with_scipy():
    summary, described = summarize(SAMPLE), scipy.stats.describe(SAMPLE)
    assert summary.n == described.nobs
    assert summary.mean == pytest.approx(described.mean)
    assert summary.std == pytest.approx(math.sqrt(described.variance))
    assert summary.sem == pytest.approx(scipy.stats.sem(SAMPLE))
    assert (summary.min, summary.max) == described.minmax
    assert summary.range == pytest.approx(1.44)
    interval = scipy.stats.ttest_1samp(SAMPLE, 0).confidence_interval(0.95)
    assert (summary.low, summary.high) == pytest.approx((interval.low, interval.high))


def test_two_values_have_the_closed_form():
    # t(1 degree of freedom) is Cauchy: its .975 quantile is tan(.475 pi)
    summary, t = summarize([0.0, 2.0]), math.tan(0.475 * math.pi)
    assert summary.std == pytest.approx(math.sqrt(2))
    assert summary.high == pytest.approx(1 + t)
    assert prediction_interval([0.0, 2.0]) == pytest.approx((1 - t * math.sqrt(3), 1 + t * math.sqrt(3)))


def test_one_value_says_nothing_about_spread():
    summary = summarize([0.7])
    assert (summary.n, summary.mean, summary.min, summary.max, summary.range) == (
        1,
        0.7,
        0.7,
        0.7,
        0,
    )
    assert all(map(math.isnan, (summary.std, summary.sem, summary.low, summary.high)))
    assert all(map(math.isnan, prediction_interval([0.7])))


EQUAL = ([0.1] * 3, [0.7] * 6, [1.0] * 4, [float(np.float32(0.7)), 0.7, 0.7])


@pytest.mark.parametrize("values", EQUAL)
def test_values_that_are_equal_but_for_rounding_have_no_spread_and_no_interval(values):
    summary = summarize(values, (0, 1))
    assert (summary.std, summary.sem) == (0, 0) and pooled_std([values, values]) == 0
    ends = (summary.low, summary.high, *prediction_interval(values), summary.iqm_low, summary.iqm_high)
    assert all(map(math.isnan, ends)) and all(map(math.isnan, bootstrap_interval([values, values])))


def test_one_image_in_a_million_is_no_rounding():
    assert summarize([0.7, 0.7, 0.700001]).std == pytest.approx(1e-6 / math.sqrt(3), rel=1e-3)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]])
def test_what_is_no_sample_is_refused(values):
    for function in (summarize, prediction_interval):
        with pytest.raises(ValueError, match="not a sample"):
            function(values)


STUDIES = 2000
NOMINAL = pytest.approx(0.95, abs=0.0195)  # 4 standard errors of a share of 2000


@pytest.mark.simulation
@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_t_intervals_cover_what_they_claim_to(n):
    draws = np.random.default_rng(n).normal(10, 2, (STUDIES, n + 1))
    mean = prediction = 0
    for *sample, new in draws:
        summary, (low, high) = summarize(sample), prediction_interval(sample)
        mean += summary.low < 10 < summary.high
        prediction += low < new < high
    assert mean / STUDIES == NOMINAL
    assert prediction / STUDIES == NOMINAL


def test_the_interquartile_mean_is_a_trimmed_mean():
    draws = np.random.default_rng(0).normal(size=(7, 23))
    assert interquartile_mean(draws) == pytest.approx(scipy.stats.trim_mean(draws, 0.25, axis=1))
    assert summarize(SAMPLE).iqm == pytest.approx(np.mean([72.01, 72.15, 72.3]))
    assert summarize([1.0, 2.0, 3.0]).iqm == 2  # too few for a quarter to cut


def mean(values):
    return values.mean(axis=-1)


def test_a_bootstrapped_mean_has_the_variance_of_a_mean_and_the_tails_of_t():
    """Of many values of one group, whose mean is normal, the interval is the t interval."""
    sample = np.random.default_rng(1).normal(size=60)
    low, high = bootstrap_interval([sample], mean)
    summary = summarize(sample)
    half = (summary.high - summary.low) / 2
    assert (low, high) == (pytest.approx(summary.low, abs=0.1 * half), pytest.approx(summary.high, abs=0.1 * half))


def test_a_bootstrap_is_drawn_within_groups_and_alike_each_time():
    far_apart = [[0.0, 0.1, 0.2, 0.3], [100.0, 100.1, 100.2, 100.3]]
    low, high = bootstrap_interval(far_apart, mean)
    assert 50 < low < 50.15 < high < 50.3  # a bootstrap of the pooled values spans dozens
    assert bootstrap_interval(far_apart, mean) == (low, high)


@pytest.mark.parametrize("groups", [[], [[1.0] * 5], [[1.0, 2.0]] * 5, [[1.0, 2.0, 3.0] * 4, [3.0]]])
def test_what_is_too_little_to_resample_has_no_interval(groups):
    assert all(map(math.isnan, bootstrap_interval(groups)))


@pytest.mark.simulation
@pytest.mark.parametrize(("configurations", "seeds"), [(1, 20), (8, 5), (4, 10)])
def test_bootstrap_intervals_cover_the_interquartile_mean(configurations, seeds):
    generator = np.random.default_rng(seeds)
    middles = np.linspace(-2, 2, configurations)[:, None]
    truth = interquartile_mean((middles + generator.normal(size=(configurations, 100_000))).ravel())
    held = 0
    for _ in range(STUDIES):
        low, high = bootstrap_interval(list(middles + generator.normal(size=(configurations, seeds))))
        held += low < truth < high
    assert held / STUDIES == NOMINAL


def test_pooled_std_is_the_residual_of_an_analysis_of_variance():
    groups = [[1.0, 2.0, 4.0], [10.0, 10.5], [3.0, 3.1, 2.0, 5.0]]
    grand = np.mean(np.concatenate(groups))
    between = sum(len(g) * (np.mean(g) - grand) ** 2 for g in groups) / (len(groups) - 1)
    within = between / scipy.stats.f_oneway(*groups).statistic
    assert pooled_std(groups) == pytest.approx(math.sqrt(within))


def test_pooled_std_ignores_how_far_groups_lie_apart_and_single_values():
    assert pooled_std([[0, 1], [100, 101], [7]]) == pytest.approx(math.sqrt(0.5))
    assert math.isnan(pooled_std([[1], [2]]))
    assert math.isnan(pooled_std([]))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1))
def test_an_interval_cut_at_its_bounds_holds_the_same_possible_means(values, mean):
    assume(summarize(values).std > 0)
    summary, (low, high) = summarize(values, (0, 1)), prediction_interval(values, (0, 1))
    assert 0 <= low <= summary.low and summary.high <= high <= 1
    whole, whole_new = summarize(values), prediction_interval(values)
    assert (summary.low <= mean <= summary.high) == (whole.low <= mean <= whole.high)
    assert (low <= mean <= high) == (whole_new[0] <= mean <= whole_new[1])
    assert (summary.mean, summary.sem) == (whole.mean, whole.sem)


def test_bounds_cut_only_what_leaves_them():
    assert summarize([0.98, 1.0], (0, 1)).high == 1
    assert summarize([0.98, 1.0], (0, 1)).low == summarize([0.98, 1.0]).low > 0
    assert summarize([0.1, 9.0], (0, math.inf)).high == summarize([0.1, 9.0]).high
    assert math.isnan(summarize([0.7], (0, 1)).low)
