"""Moderated variances against limma's published algorithm, derived again here, and against closed forms."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from cnnjax.stats import Prior, borrow, fit_prior, mean_interval, pairwise_errors
from cnnjax.stats.moderation import trigamma_inverse
from cnnjax.stats.scales import IDENTITY, Scale

LOGIT = Scale("logit", 100)


def limma(variances, d):
    """FitFDist of R's limma for equal degrees of freedom, with a bracketing root instead of Newton's method."""
    z = [math.log(max(v, 1e-5 * float(np.median(variances)))) for v in variances]
    e = [one - scipy.special.psi(d / 2) + math.log(d / 2) for one in z]
    mean = sum(e) / len(e)
    rest = sum((one - mean) ** 2 for one in e) / (len(e) - 1) - scipy.special.polygamma(1, d / 2)
    if rest <= 0:
        return float(np.mean(variances)), math.inf
    d0 = 2 * scipy.optimize.brentq(lambda y: scipy.special.polygamma(1, y) - rest, 1e-4, 1e8)
    return math.exp(mean + scipy.special.psi(d0 / 2) - math.log(d0 / 2)), d0


@pytest.mark.parametrize("d", [1, 2, 4, 9])
@pytest.mark.parametrize("log_sd", [0.0, 0.5, 1.5])
def test_the_prior_is_limmas(d, log_sd):
    generator = np.random.default_rng(d)
    variances = np.exp(generator.normal(0, log_sd, 20)) * generator.chisquare(d, 20) / d
    found = fit_prior(variances, np.full(20, float(d)), caution=0)
    assert found[:2] == pytest.approx(limma(variances, d), rel=1e-6) and found.most == 20 * d
    careful = fit_prior(variances, np.full(20, float(d)))
    assert careful.freedom <= found.freedom


@pytest.mark.parametrize("x", [1e-9, 1e-3, 0.1, 1.0, 5.0, 1e3, 1e9])
def test_the_inverse_of_trigamma(x):
    assert scipy.special.polygamma(1, trigamma_inverse(x)) == pytest.approx(x, rel=1e-6)


def test_a_known_prior_is_found_again():
    """Variances drawn from s0² = 4 and d0 = 6."""
    generator = np.random.default_rng(0)
    true = 4 * 6 / generator.chisquare(6, 20_000)
    found = fit_prior(true * generator.chisquare(3, 20_000) / 3, np.full(20_000, 3.0))
    assert found.variance == pytest.approx(4, rel=0.05) and found.freedom == pytest.approx(6, rel=0.15)


def test_closed_forms_of_the_posterior():
    variances, d = np.array([1.0, 4.0]), np.array([2.0, 2.0])
    pooled, freedom = Prior(3.0, math.inf, 24.0).moderate(variances, d)
    assert pooled.tolist() == [3, 3] and freedom.tolist() == [24, 24]
    half, freedom = Prior(3.0, 2.0, 24.0).moderate(variances, d)
    assert half.tolist() == [2, 3.5] and freedom.tolist() == [4, 4]
    own, freedom = Prior().moderate(variances, d)
    assert own.tolist() == [1, 4] and freedom.tolist() == [2, 2]
    alone, freedom = Prior(3.0, 5.0, 24.0).moderate(np.array([math.nan]), np.array([0.0]))
    assert (alone[0], freedom[0]) == (3, 5)  # one seed, of which only the prior knows
    assert np.isnan(Prior().moderate(np.array([math.nan]), np.array([0.0]))[0]).all()


def test_equal_spreads_are_pooled_as_in_an_analysis_of_variance():
    base = np.array([-1.0, 0.0, 1.0])
    samples = [base + shift for shift in (0.0, 2.0, 5.0, 7.0, 3.0, 1.0, 9.0, 4.0, 6.0, 8.0, 2.5, 3.5)]
    prior = borrow(samples)
    assert math.isinf(prior.freedom) and prior.variance == pytest.approx(1)
    errors = pairwise_errors(samples, paired=False, prior=prior)
    assert errors.standard_error == pytest.approx(math.sqrt(2 / 3)) and (errors.freedom == 24).all()


def test_fewer_than_three_spreads_lend_nothing_and_zeros_do_not_break():
    assert fit_prior(np.array([1.0, 2.0]), np.array([2.0, 2.0])).freedom == 0
    assert fit_prior(np.zeros(5), np.full(5, 2.0)).freedom == 0
    found = fit_prior(np.array([0.0, 1.0, 2.0, 1.5, 0.7]), np.full(5, 2.0))
    assert 0 < found.freedom < 1 and np.isfinite(found.variance)


def test_pairs_and_samples_without_a_prior_are_those_of_scipy():
    generator = np.random.default_rng(1)
    samples = [generator.normal(size=5) for _ in range(3)]
    for paired in (True, False):
        found = pairwise_errors(samples, paired)
        test = scipy.stats.ttest_rel if paired else lambda a, b: scipy.stats.ttest_ind(a, b, equal_var=False)
        t = (samples[0].mean() - samples[2].mean()) / found.standard_error[0, 2]
        assert 2 * scipy.stats.t.sf(abs(t), found.freedom[0, 2]) == pytest.approx(test(samples[0], samples[2]).pvalue)


def test_the_prior_of_pairs_is_that_of_their_differences():
    """A common effect of the seeds does not count, and the prior of many equal spreads is the variance of a gap."""
    generator = np.random.default_rng(2)
    samples = [*(generator.normal(0, 50, 6) + generator.normal(0, 0.5, (200, 6)))]
    assert borrow(samples, paired=True).variance == pytest.approx(2 * 0.25, rel=0.1)


@pytest.mark.parametrize("scale", [LOGIT, Scale("log"), IDENTITY])
def test_scales_are_inverted_and_increase(scale):
    values = np.array([0.0, 0.01, 0.5, 0.99, 1.0])[scale.name == "log" :]
    there = scale.apply(values)
    assert (np.diff(there) > 0).all() and scale.invert(there) == pytest.approx(values, abs=1e-12)
    back = [float(scale.invert_difference(float(scale.apply(0.9)), gap)) for gap in (-9, -1, 0, 1, 9)]
    assert back[2] == 0 and (np.diff(back) > 0).all() and (scale.name != "logit" or max(map(abs, back)) <= 1)


def test_the_logit_of_counts_is_haldanes():
    assert LOGIT.apply(0.97) == pytest.approx(math.log(97.5 / 3.5)) and LOGIT.apply(1.0) == pytest.approx(
        math.log(100.5 / 0.5)
    )


def test_the_interval_of_a_mean_is_the_t_interval_of_the_moderated_variance():
    low, high = mean_interval([0.9, 0.92, 0.94], LOGIT, Prior(0.04, math.inf, 24.0))
    middle = LOGIT.apply([0.9, 0.92, 0.94]).mean()
    half = scipy.stats.t.ppf(0.975, 24) * math.sqrt(0.04 / 3)
    assert (low, high) == pytest.approx(tuple(LOGIT.invert([middle - half, middle + half])))


def test_equal_seeds_of_few_images_spread_by_their_rounding():
    """Twelve configurations, one of whose two seeds are equal by chance: the others still lend their strength."""
    rounding = LOGIT.rounding(float(LOGIT.apply(0.8)))
    uniform = np.random.default_rng(0).uniform(0.795, 0.805, 100_000)
    assert rounding == pytest.approx(LOGIT.apply(uniform).var(), rel=0.05)
    spread = np.random.default_rng(1).normal(0, 0.03, (12, 2))
    values = np.round(100 * (0.8 + spread)) / 100
    values[0] = 0.8
    samples = [LOGIT.apply(of) for of in values]
    assert borrow(samples, scale=LOGIT).freedom > 3 * borrow(samples).freedom
