"""Which setting is best, how sure that is, and what having looked for it costs."""

import functools
import math
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cnnjax.stats.comparison import Values
from cnnjax.stats.correction import holm
from cnnjax.stats.pairing import have_same_seeds, pairing_helps
from cnnjax.stats.spread import LEVEL, RESAMPLES, Sample, as_sample, deviations, interval_around, t_quantile, variance


class Rank(NamedTuple):
    """A setting's place among others.

    Attributes:
        name: the setting.
        n: number of its seeds.
        mean: over them.
        best: probability that it has the best true mean, see `_probability_of_best`; nan where a setting has one seed,
            and where the first two show no spread beside each other.
        low: first place that it may have, of the 95 % interval that holds for all settings at once.
        high: last place that it may have.
        p: adjusted p-value that its mean is that of the first; nan of the first itself.
    """

    name: Hashable
    n: int
    mean: float
    best: float
    low: int
    high: int
    p: float


class Honest(NamedTuple):
    """What selection brings, on values that it has not seen.

    Attributes:
        chosen: the setting that all seeds choose.
        apparent: its mean over the seeds that chose it.
        honest: mean over seeds of the value, on that seed, of the setting that the others choose.
        low: end of the 95 % t interval of `honest`; nan where the values are equal.
        high: the other end.
        optimism: how much better `apparent` is than `honest`: the winner's curse, where it is positive.
        votes: how often each setting is chosen when one seed is left out.
    """

    chosen: Hashable
    apparent: float
    honest: float
    low: float
    high: float
    optimism: float
    votes: dict[Hashable, int]


def rank(groups: Mapping[Any, Values], *, larger_is_better: bool = True) -> list[Rank]:
    """Ranks settings by their means over seeds, the best first.

    They are paired by seed where `pairing_helps`. A place is certain as far as tests of all pairs of settings
    (by t, Holm's correction) say who is above and below: intervals so built hold every setting's true place with 95 %,
    also where some are equal, which those of a bootstrapped rank do not.

    Args:
        groups: the values of each setting by seed.
        larger_is_better: False for losses.

    References:
        Mogstad et al., Inference for ranks with applications to mobility across neighbourhoods (2024), for the
        intervals.

    Raises:
        ValueError: there is no setting, or one has no value, or one that is not finite.
    """
    sign = 1 if larger_is_better else -1
    samples = [sign * sample for sample in _aligned(groups)]
    means = np.array([sample.mean() for sample in samples])
    order = np.argsort(-means, kind="stable")
    p = pairwise_p(groups)
    upper = np.triu_indices(len(p), 1)
    adjusted = np.full(p.shape, math.nan)
    adjusted[upper] = holm(p[upper])
    adjusted[upper[::-1]] = adjusted[upper]
    differs = adjusted < 1 - LEVEL
    above = (differs & (means > means[:, None])).sum(axis=1)
    below = (differs & (means < means[:, None])).sum(axis=1)
    names, first_two = list(groups), tuple(order[:2])
    best = _probability_of_best(samples, pairing_helps(groups))
    if len(samples) > 1 and math.isnan(p[first_two]) and means[order[0]] > means[order[1]]:
        best[:] = math.nan  # no spread: nothing says how sure the first is
    return [
        Rank(
            name=names[i],
            n=len(samples[i]),
            mean=float(sign * means[i]),
            best=float(best[i]),
            low=1 + int(above[i]),
            high=len(samples) - int(below[i]),
            p=float(adjusted[i, order[0]]),
        )
        for i in order
    ]


def pairwise_p(groups: Mapping[Any, Values]) -> np.ndarray:
    """Returns the p-values of the t tests of all pairs of settings, not adjusted for their number.

    Of pairs by seed where `pairing_helps`, else Welch's.

    Returns:
        [settings, settings], symmetric; nan on the diagonal and where the seeds say nothing of the spread.
    """
    from scipy.special import stdtr

    samples = _aligned(groups)
    n = np.array([len(sample) for sample in samples], np.float64)
    means = np.array([sample.mean() for sample in samples])
    with np.errstate(divide="ignore", invalid="ignore"):
        if pairing_helps(groups):
            values = np.array(samples)
            sizes = np.abs(values).max(axis=1)
            centred = values - values.mean(axis=1, keepdims=True)
            gaps_of = (
                deviations(centred - row, np.maximum(sizes, size)) for row, size in zip(centred, sizes, strict=True)
            )
            squares = np.array([(gaps**2).sum(axis=1) for gaps in gaps_of])
            errors, freedom = np.sqrt(squares / (n * (n - 1))), n - 1
        else:
            parts = np.array([variance(sample) for sample in samples]) / n
            errors = np.sqrt(np.add.outer(parts, parts))
            freedom = errors**4 / np.add.outer(parts**2 / (n - 1), parts**2 / (n - 1))
        gaps = np.abs(np.subtract.outer(means, means))
        p = np.where(errors > 0, 2 * stdtr(freedom, -gaps / errors), math.nan)
    np.fill_diagonal(p, math.nan)
    return p


def expected_best(values: Sample, n: int, *, larger_is_better: bool = True) -> float:
    """Returns the expected best of n trainings, without bias: the mean of the best over all choices of n values.

    References:
        Dodge et al., Show your work (2019); Tang et al., Showing your work doesn't always work (2020), equation 5, for
        this estimator.

    Raises:
        ValueError: n is not in 1..len(values), or a value is not finite.
    """
    sample = as_sample(values)
    if not 1 <= n <= len(sample):
        raise ValueError(f"the best of {n} of {len(sample)} values")
    ordered = np.sort(sample if larger_is_better else -sample)
    # The best of n is at a place with probability C(place, n - 1) / C(len, n): n / len at the last, from there down by
    # ratios, for the binomials themselves overflow.
    places = np.arange(len(sample) - 1, 0, -1)
    weights = n / len(sample) * np.cumprod([1.0, *((places - n + 1).clip(0) / places)])
    best = float(ordered[::-1] @ weights)
    return best if larger_is_better else -best


def select_honestly(
    select: Mapping[Any, Values],
    report: Mapping[Any, Values] | None = None,
    *,
    larger_is_better: bool = True,
    report_larger_is_better: bool | None = None,
) -> Honest:
    """Says what the setting that is best over the seeds reaches on a seed that had no say in the choice.

    Each seed in turn is left out, the setting with the best mean over the others is chosen, and its value on the seed
    left out counts. The mean of these is, without bias, what the choice by one seed fewer brings; in one study it may
    be off by as much as the luck that it estimates, and where all choose alike it is the apparent mean and sees none.
    It corrects the luck of seeds; the luck of a test set, only where `select` is measured on other examples than
    `report`.

    The values left out are not independent, for each has a say in the choices that the others make. So the interval
    takes the standard error from the whole procedure without one seed, and without another (the jackknife): it holds
    in 93 to 99 % of simulated studies of three to ten seeds, of two in 92 %, where one of independent values comes
    down to 70 %. Where one setting is chosen whatever is left out, it is the t interval of its mean.

    Args:
        select: the values that choose, of each setting by seed; seeds that a setting lacks do not count.
        report: the values that count; those that choose if None.
        larger_is_better: whether the best of `select` is the largest.
        report_larger_is_better: of `report`, as `larger_is_better` if None.

    References:
        Efron and Stein, The jackknife estimate of variance (1981), for why it is rather too large than too small.

    Raises:
        ValueError: there are fewer than two seeds that all settings have.
    """
    report = select if report is None else report
    shared = set.intersection(*(set(side[name]) for side in (select, report) for name in select))
    seeds = [seed for seed in next(iter(select.values())) if seed in shared]
    if len(seeds) < 2:
        raise ValueError(f"settings share {len(seeds)} seeds; at least 2 are needed")
    names = list(select)
    chooses = np.array([as_sample([select[name][seed] for seed in seeds]) for name in names])
    counts = np.array([as_sample([report[name][seed] for seed in seeds]) for name in names])
    scores = chooses if larger_is_better else -chooses
    chosen, held_out = _leave_each_out(scores, counts)
    winner = int(scores.sum(axis=1).argmax())
    honest, apparent = float(held_out.mean()), float(counts[winner].mean())
    error = _jackknife_error(scores, counts) if len(seeds) > 2 else math.sqrt(variance(held_out) / 2)
    low, high = interval_around(honest, t_quantile(len(seeds) - 1) * error)
    up = larger_is_better if report_larger_is_better is None else report_larger_is_better
    optimism = apparent - honest if up else honest - apparent
    votes = dict(Counter(names[choice] for choice in chosen).most_common())
    return Honest(names[winner], apparent, honest, low, high, optimism, votes)


def _leave_each_out(scores: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which setting the other seeds choose, by the largest sum, and its value that counts, for each seed."""
    chosen = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)
    return chosen, counts[chosen, np.arange(counts.shape[1])]


def _jackknife_error(scores: np.ndarray, counts: np.ndarray) -> float:
    """The standard error of the mean of what `_leave_each_out` leaves out, from its means without each seed."""
    n = counts.shape[1]
    others = (np.delete(np.arange(n), seed) for seed in range(n))
    means = [_leave_each_out(scores[:, rest], counts[:, rest])[1].mean() for rest in others]
    return (n - 1) * math.sqrt(variance(np.array(means)) / n)


def _aligned(groups: Mapping[Any, Values]) -> list[np.ndarray]:
    """The values of each setting; where all have the same seeds, in their order."""
    if not groups:
        raise ValueError("there is no setting")
    seeds = next(iter(groups.values())) if have_same_seeds(groups) else None
    return [as_sample([values[seed] for seed in seeds or values]) for values in groups.values()]


def _probability_of_best(samples: list[np.ndarray], paired: bool) -> np.ndarray:
    """The share of draws of the true means in which each has the largest; of several that have it, an equal part each.

    The draws are those that the t tests imply (fiducial: the mean less its error, t distributed), with the correlation
    of paired seeds; of two paired settings the first has 1 - p / 2. Resampled seeds would be too sure: of two equal
    settings, one is the better on each of three seeds, and then in each resample, in a quarter of all studies.
    """
    if min(map(len, samples)) < 2:
        return np.full(len(samples), math.nan)
    means = np.empty((RESAMPLES, len(samples)))
    for place, sample in enumerate(samples):
        mean = sample.mean()
        means[:, place] = mean + _draw_weights(len(sample), 0 if paired else place) @ (sample - mean)
    is_best = means >= means.max(axis=1, keepdims=True) - 1e-12  # equal but for rounding
    return (is_best / is_best.sum(axis=1, keepdims=True)).mean(axis=0)


@functools.lru_cache(64)
def _draw_weights(n: int, stream: int) -> np.ndarray:
    """Returns weights [RESAMPLES, n] of n >= 2 values, for sums of sem * t, t with n - 1 degrees of freedom."""
    generator = np.random.default_rng((n, stream))
    normal, chi_squared = generator.normal(size=(RESAMPLES, n)), generator.chisquare(n - 1, (RESAMPLES, 1))
    return normal / np.sqrt(n * chi_squared)
