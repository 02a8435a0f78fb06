"""Comparison of networks by their predictions on single examples."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cnnjax.stats.spread import LEVEL, Interval, interval_around, t_quantile, variance


class AccuracySpread(NamedTuple):
    """The standard deviation of accuracy over seeds: on this test set, and on its distribution.

    Attributes:
        seeds: number of networks.
        examples: number of test examples.
        test_set_std: standard deviation of the accuracy on this test set, ddof 1.
        distribution_variance: unbiased estimate of the variance of the accuracy on the distribution of the test set; it
            can be negative.
        distribution_std: its square root, zero if it is negative.
        distribution_low: lower end of the 95 % interval of the true standard deviation; NaN for equal accuracies.
        distribution_high: upper end.
        independent_std: the standard deviation if networks erred independently on each example.
    """

    seeds: int
    examples: int
    test_set_std: float
    distribution_variance: float
    distribution_std: float
    distribution_low: float
    distribution_high: float
    independent_std: float


class McNemar(NamedTuple):
    """McNemar's exact test of two classifiers on the same examples, with the counts of who is right.

    `difference` is the accuracy of A minus that of B, `low`..`high` its 95 % interval over examples.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float
    difference: float
    low: float
    high: float


class Churn(NamedTuple):
    """The share of examples for which two networks predict different classes.

    Attributes:
        between: mean over all pairs of a network of A and one of B.
        within_a: mean over pairs of networks of A, which differ in their seed; NaN with one network.
        within_b: mean over pairs of networks of B.
        by_example: `between` for each example [N].
    """

    between: float
    within_a: float
    within_b: float
    by_example: Float[np.ndarray, " N"]


class Disagreement(NamedTuple):
    """Two configurations on the same test examples.

    Attributes:
        mcnemar: of the networks, or of the mean probabilities of several networks.
        churn: how often networks disagree.
        interval: of the difference of mean accuracies, over test examples.
        spreads: the standard deviations of the accuracies of A and of B over seeds; None with one seed or one example.
    """

    mcnemar: McNemar
    churn: Churn
    interval: Interval
    spreads: tuple[AccuracySpread | None, AccuracySpread | None]


def compare_predictions(
    logits_a: Sequence[Float[np.ndarray, "N K"]],
    logits_b: Sequence[Float[np.ndarray, "N K"]],
    labels: Int[np.ndarray, " N"],
) -> Disagreement:
    """Compares two configurations example by example.

    Args:
        logits_a: of each network of A.
        logits_b: of each network of B.
        labels: the true classes.
    """
    from scipy.special import softmax

    sides = logits_a, logits_b
    predicted = [np.stack([logits.argmax(axis=1) for logits in side]) for side in sides]
    right_a, right_b = (classes == labels for classes in predicted)
    together = [sum(softmax(logits.astype(np.float32), axis=1) for logits in side).argmax(axis=1) for side in sides]
    spread_a, spread_b = (spread_accuracy(right) if min(right.shape) > 1 else None for right in (right_a, right_b))
    return Disagreement(
        mcnemar=mcnemar(together[0] == labels, together[1] == labels),
        churn=churn(*predicted),
        interval=example_interval(right_a, right_b),
        spreads=(spread_a, spread_b),
    )


def spread_accuracy(correct: Bool[np.ndarray, "S N"]) -> AccuracySpread:
    """Separates the variance of accuracy over seeds from the part that the finite test set adds.

    For test sets of N examples, the expected variance of the accuracy over seeds is (1 - 1/N) times the variance of the
    accuracy on the distribution, plus 1/N times the mean variance of being right on one example. The interval assumes
    normal accuracies, and takes the latter mean over many examples as known.

    Args:
        correct: whether network s is right on example n; at least two of each.

    References:
        Jordan, On the variance of neural network training with respect to test sets and distributions,
        arXiv 2304.01910, theorem 2.

    Raises:
        ValueError: there are fewer than two networks or examples.
    """
    from scipy.special import gammaincinv

    correct = np.asarray(correct, bool)
    if correct.ndim != 2 or min(correct.shape) < 2:
        raise ValueError(f"not the outcomes of several networks on several examples: shape {correct.shape}")
    seeds, examples = correct.shape
    found = variance(correct.mean(axis=1))
    share = correct.mean(axis=0)
    of_examples = float((share * (1 - share)).mean()) * seeds / (seeds - 1) / examples

    def on_distribution(here: float) -> float:
        return (here - of_examples) * examples / (examples - 1)

    half = (seeds - 1) / 2  # a chi-squared quantile is twice the gamma quantile
    ends = (found * half / float(gammaincinv(half, (1 + sign * LEVEL) / 2)) for sign in (1, -1))
    # A share has at most the standard deviation 1/2. Without a spread there is no interval.
    low, high = (min(0.5, math.sqrt(max(0.0, on_distribution(v)))) if found else math.nan for v in ends)
    everywhere = on_distribution(found)
    std = math.sqrt(max(0.0, everywhere))
    return AccuracySpread(seeds, examples, math.sqrt(found), everywhere, std, low, high, math.sqrt(of_examples))


def mcnemar(correct_a: Bool[np.ndarray, " N"], correct_b: Bool[np.ndarray, " N"]) -> McNemar:
    """Compares two classifiers on the same examples.

    The test is about these two networks on other examples, not about networks that are trained again.

    Args:
        correct_a: whether A is right on each example.
        correct_b: whether B is right on each example.

    References:
        McNemar (1947), in its exact form; the interval is Wald's with half an example added to each of the four
        counts: Agresti and Min, Simple improved confidence intervals for comparing matched proportions (2005).

    Raises:
        ValueError: the arrays are empty or differ in length.
    """
    from scipy.special import bdtr

    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"not outcomes on the same examples: shapes {a.shape} and {b.shape}")
    both, only_a, only_b = (int(cell.sum()) for cell in (a & b, a & ~b, ~a & b))
    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    n, more, less = len(a) + 2, only_a + 0.5, only_b + 0.5
    middle, half = (more - less) / n, t_quantile(math.inf) * math.sqrt(more + less - (more - less) ** 2 / n) / n
    counts = (both, only_a, only_b, len(a) - both - only_a - only_b)
    return McNemar(*counts, p, (only_a - only_b) / len(a), *interval_around(middle, half, (-1, 1)))


def example_interval(correct_a: Bool[np.ndarray, "S N"], correct_b: Bool[np.ndarray, "T N"]) -> Interval:
    """Returns the 95 % interval of the difference of mean accuracies over examples, for these networks.

    Args:
        correct_a: whether each network of A is right on each example.
        correct_b: whether each network of B is right on each example.

    Returns:
        The interval; NaN with one example, or if the difference is the same on each.

    Raises:
        ValueError: the arrays are not of the same examples.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"not outcomes on the same examples: shapes {a.shape} and {b.shape}")
    gaps = a.mean(axis=0) - b.mean(axis=0)
    half = t_quantile(len(gaps) - 1) * math.sqrt(variance(gaps) / len(gaps))
    return interval_around(float(gaps.mean()), half, (-1, 1))


def churn(predicted_a: Int[np.ndarray, "S N"], predicted_b: Int[np.ndarray, "T N"]) -> Churn:
    """Returns how often networks of two configurations predict different classes, and how often two seeds of one do.

    Args:
        predicted_a: the predicted class of each network of A for each example.
        predicted_b: the predicted class of each network of B for each example.

    Raises:
        ValueError: the arrays are not of the same examples.
    """
    a, b = np.asarray(predicted_a), np.asarray(predicted_b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.size or not b.size:
        raise ValueError(f"not predictions of the same examples: shapes {a.shape} and {b.shape}")
    classes = np.arange(max(a.max(), b.max()) + 1)
    share_a, share_b = ((x[:, :, None] == classes).mean(axis=0) for x in (a, b))
    by_example = 1 - (share_a * share_b).sum(axis=1)
    within_a, within_b = _churn_within(share_a, len(a)), _churn_within(share_b, len(b))
    return Churn(float(by_example.mean()), within_a, within_b, by_example)


def _churn_within(share: np.ndarray, networks: int) -> float:
    agree = float((share**2).sum(axis=1).mean())  # also with itself
    return (1 - agree) * networks / (networks - 1) if networks > 1 else math.nan
