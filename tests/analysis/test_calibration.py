"""Measures of single examples against scikit-learn, SciPy, closed forms and counting by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
from sklearn.calibration import calibration_curve

from cnnjax.analysis import calibration


def _one_hot(predicted: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


@pytest.fixture(scope="module")
def seeds() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [7, 400, 5] of seeds that share what is hard, and the labels."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 400)
    logits = rng.normal(0, 1, (400, 5)) + rng.normal(0, 1, (7, 400, 5))
    logits[:, np.arange(400), labels] += 1.5
    return calibration.softmax(logits), labels


def test_softmax_of_logits_as_stored():
    logits = np.random.default_rng(0).normal(0, 4, (2, 30, 6)).astype(np.float16)
    found = calibration.softmax(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scipy.special.softmax(logits.astype(np.float64), axis=-1), rtol=1e-5, atol=1e-7)


def test_outcomes_by_hand():
    labels = np.array([0, 1, 2, 0])
    predicted = np.array([[0, 1, 0, 1], [0, 2, 1, 1], [0, 1, 1, 0], [0, 2, 0, 1]])
    found = calibration.outcomes(0.7 * _one_hot(predicted, 3) + 0.1, labels)
    assert found.right.tolist() == [1, 0.5, 0, 0.25]
    assert found.predicted.tolist() == [0, 1, 0, 1]  # of equally many votes the first class
    np.testing.assert_allclose(found.confidence, 0.8, rtol=1e-6)
    assert (found.always_right.tolist(), found.always_wrong.tolist()) == ([0], [2])
    assert found.coin_flips.tolist() == [1, 3]  # nearest to a half first


def test_outcomes_are_ordered_by_confidence():
    confidence = np.array([0.6, 0.9, 0.7, 0.8])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)[None]
    assert calibration.outcomes(probabilities, np.zeros(4, int)).always_right.tolist() == [0, 2, 3, 1]
    assert calibration.outcomes(probabilities, np.ones(4, int)).always_wrong.tolist() == [1, 3, 2, 0]


@pytest.mark.slow
def test_calibration_is_that_of_scikit_learn(seeds):
    probabilities, labels = seeds
    found = calibration.calibration(probabilities, labels)
    right = (probabilities.argmax(axis=2) == labels).ravel()
    confidence = probabilities.max(axis=2).ravel()
    share, mean = calibration_curve(right, confidence, n_bins=calibration.BINS, strategy="uniform")
    there = found.counts > 0
    np.testing.assert_allclose(found.accuracy[there], share)
    np.testing.assert_allclose(found.confidence[there], mean, rtol=1e-6)
    assert found.counts.sum() == right.size
    weights = found.counts[there] / right.size
    assert found.error == pytest.approx(float(weights @ abs(share - mean)))


def test_calibration_error_of_known_cases():
    labels = np.arange(1000) % 10
    sure = _one_hot(labels, 10)[None]
    assert calibration.calibration(sure, labels).error == 0
    assert calibration.calibration(_one_hot((labels + 1) % 10, 10)[None], labels).error == 1
    uniform = np.full((1, 1000, 10), 0.1)
    uniform[..., 3] += 1e-9  # always predicts one class, with a confidence of .1, and is right a tenth of the time
    found = calibration.calibration(uniform, labels)
    assert found.error == pytest.approx(0, abs=1e-8)
    assert np.flatnonzero(found.counts).tolist() == [1]
    assert np.isnan(found.accuracy[0])


def test_a_bin_holds_its_upper_edge():
    edges = np.arange(8, 16) / 15
    found = calibration.calibration(np.stack([edges, 1 - edges], axis=1)[None], np.zeros(8, int))
    assert found.counts.tolist() == [0] * 7 + [1] * 8


def test_ensembles_average_probabilities_of_every_subset(seeds):
    probabilities, labels = seeds
    found = calibration.ensembles(probabilities, labels)
    assert found.size.tolist() == [1, 2, 3, 4, 5, 6, 7]
    for size, mean, std, subsets in zip(*found, strict=True):
        sets = list(itertools.combinations(range(7), size))
        accuracies = [(probabilities[list(s)].mean(axis=0).argmax(axis=1) == labels).mean() for s in sets]
        assert subsets == len(sets)
        assert mean == pytest.approx(np.mean(accuracies))
        assert std == pytest.approx(np.std(accuracies, ddof=1) if len(sets) > 1 else 0)


def test_ensembles_of_independent_voters_follow_condorcet():
    rng, n, p = np.random.default_rng(1), 20000, 0.7
    labels = np.zeros(n, int)
    votes = _one_hot((rng.random((15, n)) > p).astype(int), 2)
    found = calibration.ensembles(votes, labels)
    assert found.size.tolist() == [1, 2, 3, 4, 6, 7, 9, 12, 15]
    assert found.subsets.max() == 100 and found.subsets[-1] == 1
    for size, mean in zip(found.size, found.mean, strict=True):
        if size % 2:  # an even number may be divided
            majority = sum(math.comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(size // 2 + 1, size + 1))
            assert mean == pytest.approx(majority, abs=0.01)
    again = calibration.ensembles(votes, labels)
    assert again.mean.tolist() == found.mean.tolist()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="are not"):
        calibration.outcomes(np.zeros((2, 3, 4)), np.zeros(2, int))
    with pytest.raises(ValueError, match="are not"):
        calibration.ensembles(np.zeros((3, 4)), np.zeros(3, int))
