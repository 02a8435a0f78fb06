"""Outcomes of single examples, calibration and ensembles, from the probabilities of several seeds."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

BINS = 15  # of confidence, as in Guo et al. (2017)
_COIN_FLIP = (0.25, 0.75)  # shares of seeds that are right
_SUBSETS = 100  # sets of seeds, at most, over which the accuracy of an ensemble is averaged
_SIZES = 12  # sizes of ensembles, at most


class Outcomes(NamedTuple):
    """The outcomes of N examples over the seeds of a configuration.

    Attributes:
        right: the share of seeds that classify the example correctly.
        confidence: the mean over seeds of the probability of the predicted class.
        predicted: the class that most seeds predict, the first of ties.
    """

    right: Float[np.ndarray, " N"]
    confidence: Float[np.ndarray, " N"]
    predicted: Int[np.ndarray, " N"]

    @property
    def always_right(self) -> Int[np.ndarray, " M"]:
        """The examples that every seed classifies correctly, the least confident first."""
        return self._ordered(self.right == 1, self.confidence)

    @property
    def always_wrong(self) -> Int[np.ndarray, " M"]:
        """The examples that no seed classifies correctly, the most confident first."""
        return self._ordered(self.right == 0, -self.confidence)

    @property
    def coin_flips(self) -> Int[np.ndarray, " M"]:
        """The examples that 25 to 75 % of the seeds classify correctly, those nearest to 50 % first."""
        low, high = _COIN_FLIP
        return self._ordered((self.right >= low) & (self.right <= high), abs(self.right - 0.5))

    def _ordered(self, chosen: np.ndarray, by: np.ndarray) -> np.ndarray:
        found = np.flatnonzero(chosen)
        return found[np.argsort(by[found], kind="stable")]


class Calibration(NamedTuple):
    """Confidence and accuracy of B bins of equal width (NaN in empty bins), and the expected calibration error."""

    confidence: Float[np.ndarray, " B"]
    accuracy: Float[np.ndarray, " B"]
    counts: Int[np.ndarray, " B"]
    error: float


class Ensembles(NamedTuple):
    """Accuracy of ensembles by their number of seeds: mean and standard deviation over `subsets` sets of seeds."""

    size: Int[np.ndarray, " M"]
    mean: Float[np.ndarray, " M"]
    std: Float[np.ndarray, " M"]  # 0 for one subset
    subsets: Int[np.ndarray, " M"]


def outcomes(probabilities: Float[np.ndarray, "S N K"], labels: Int[np.ndarray, " N"]) -> Outcomes:
    """Computes the outcomes of examples.

    Args:
        probabilities: of S seeds, see `softmax`.
        labels: true classes, 0..K-1.

    Raises:
        ValueError: the shapes do not match.
    """
    _check(probabilities, labels)
    predicted = probabilities.argmax(axis=2)
    votes = np.stack([(predicted == label).sum(axis=0) for label in range(probabilities.shape[2])])
    right = (predicted == labels).mean(axis=0)
    return Outcomes(right, probabilities.max(axis=2).mean(axis=0, dtype=np.float64), votes.argmax(axis=0))


def calibration(probabilities: Float[np.ndarray, "S N K"], labels: Int[np.ndarray, " N"]) -> Calibration:
    """Compares confidence (the probability of the predicted class) with accuracy, all seeds pooled.

    The expected calibration error is the mean over all predictions of |accuracy - confidence| of their bin, in bins of
    equal width over 0..1. Few examples bias it upwards.

    Args:
        probabilities: of S seeds, see `softmax`.
        labels: true classes, 0..K-1.

    References:
        Guo et al., On calibration of modern neural networks (2017), equation 3.

    Raises:
        ValueError: the shapes do not match.
    """
    _check(probabilities, labels)
    confidence = probabilities.max(axis=2).ravel().astype(np.float64)
    right = (probabilities.argmax(axis=2) == labels).ravel()
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # a bin holds its upper edge
    counts, sums, rights = (np.bincount(place, weights, BINS) for weights in (None, confidence, right))
    with np.errstate(invalid="ignore"):
        means, accuracy = sums / counts, rights / counts
    error = float(abs(rights - sums).sum() / len(right))
    return Calibration(means, accuracy, counts, error)


def ensembles(probabilities: Float[np.ndarray, "S N K"], labels: Int[np.ndarray, " N"]) -> Ensembles:
    """Computes the accuracy of ensembles of 1, 2, ... all seeds, which predict by their mean probabilities.

    The accuracy of a size is the mean over all sets of that many seeds, or over 100 random sets (always the same ones)
    if there are more. With more than twelve seeds, at most twelve sizes are computed, at nearly equal ratios.

    Args:
        probabilities: of S seeds, see `softmax`.
        labels: true classes, 0..K-1.

    Raises:
        ValueError: the shapes do not match.
    """
    _check(probabilities, labels)
    seeds, examples, classes = probabilities.shape
    flat = np.asarray(probabilities, np.float32).reshape(seeds, examples * classes)
    some = np.unique(np.geomspace(1, seeds, _SIZES).round().astype(int)).tolist()
    rows = []
    for size in range(1, seeds + 1) if seeds <= _SIZES else some:
        chosen = _subsets(seeds, size)
        summed = (chosen.astype(np.float32) @ flat).reshape(len(chosen), examples, classes)
        accuracies = (summed.argmax(axis=2) == labels).mean(axis=1)
        rows.append((size, accuracies.mean(), accuracies.std(ddof=1) if len(chosen) > 1 else 0, len(chosen)))
    return Ensembles(*(np.array(column) for column in zip(*rows, strict=True)))


def softmax(logits: Float[np.ndarray, "*S N K"]) -> Float[np.ndarray, "*S N K"]:
    """Returns the class probabilities of logits, in float32."""
    return scipy.special.softmax(np.asarray(logits, np.float32), axis=-1)


def _subsets(seeds: int, size: int) -> Bool[np.ndarray, "M S"]:
    """Returns all sets of `size` seeds, or `_SUBSETS` random ones, as masks."""
    if math.comb(seeds, size) <= _SUBSETS:
        members = np.array(list(itertools.combinations(range(seeds), size)))
    else:
        rng = np.random.default_rng(size)
        members = np.array([rng.choice(seeds, size, replace=False) for _ in range(_SUBSETS)])
    chosen = np.zeros((len(members), seeds), bool)
    np.put_along_axis(chosen, members, True, axis=1)
    return chosen


def _check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    if probabilities.ndim != 3 or not probabilities.size or labels.shape != probabilities.shape[1:2]:
        raise ValueError(f"probabilities {probabilities.shape} and labels {labels.shape} are not [S, N, K] and [N]")
