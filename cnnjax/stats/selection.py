"""Ranking of configurations, and the selection bias of the best one."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from cnnjax.stats.comparison import Comparison, Values, compare, split_stuck
from cnnjax.stats.correction import holm
from cnnjax.stats.moderation import Prior, borrow, pairwise_errors
from cnnjax.stats.pairing import have_same_seeds, pairing_helps
from cnnjax.stats.scales import IDENTITY, Scale
from cnnjax.stats.spread import LEVEL, Sample, as_sample, interval_around, t_quantile, variance


class Rank(NamedTuple):
    """The rank of a configuration among others.

    Attributes:
        name: the configuration.
        n: number of its seeds.
        mean: over its seeds.
        certainty: 1 - p of the comparison of the winner with it: how certain it is that it is not the best. Of the
            winner itself, the least of the others: how certain it is that it is the best. NaN without a spread.
        low: best place that it may have.
        high: worst place that it may have.
        against: the comparison of the winner with it; None for the winner itself.
    """

    name: Hashable
    n: int
    mean: float
    certainty: float
    low: int
    high: int
    against: Comparison | None

    @property
    def may_be_best(self) -> bool:
        """Whether it is in the 95 % confidence set of the best."""
        return self.against is None or self.against.verdict != "better"


class SelectionEstimate(NamedTuple):
    """The value of the selected configuration on seeds that were not used to select it.

    Attributes:
        chosen: the configuration that all seeds together select.
        apparent: its mean over those seeds.
        held_out: the cross-validated mean: the mean over seeds of the value, on that seed, of the configuration that
            the other seeds select.
        low: lower end of the 95 % t interval of `held_out`; NaN if the values are equal.
        high: upper end.
        optimism: how much better `apparent` is than `held_out`. If positive, it is the winner's curse.
        votes: how often each configuration is selected when one seed is left out.
    """

    chosen: Hashable
    apparent: float
    held_out: float
    low: float
    high: float
    optimism: float
    votes: dict[Hashable, int]


def rank(
    groups: Mapping[Any, Values],
    *,
    larger_is_better: bool = True,
    most: float = math.inf,
    scale: Scale = IDENTITY,
    stuck: Mapping[Any, Collection[Hashable]] = MappingProxyType({}),
    share: float = 1.0,
    earlier_shares: Mapping[Any, float] = MappingProxyType({}),
) -> list[Rank]:
    """Ranks configurations by their means over seeds, the best first, and compares the winner with each.

    Configurations of which the winner is not better form the confidence set of the best: it contains the true best with
    probability 95 % at least. Variances are moderated by those of all configurations (`moderation`), and tests are
    paired by seed if `pairing_helps`.

    The places are those that t tests of all pairs, with Holm's correction, do not exclude. They are widened or cut so
    that the first place is open to the confidence set, and to no other. The tests cover all true places at once with
    95 %, also if some means are equal; intervals of bootstrapped ranks do not.

    Args:
        groups: the values of each configuration by seed.
        larger_is_better: False for losses.
        most: the largest possible difference.
        scale: the scale of the tests.
        stuck: seeds that never left chance, by configuration. They count in means, and are left out of the tests; see
            `Comparison.p`. If all seeds of a configuration are stuck, they are its values, and its comparisons are
            decided only if bad luck is improbable enough.
        share: the share of the risk of 5 % that this look at the study may spend, see `stats.looks`.
        earlier_shares: of configurations that an earlier look found worse, the share of that look, which is the share
            of their comparisons from then on: a true best that was lost before cannot be lost again.

    References:
        Hsu, Constrained simultaneous confidence intervals for multiple comparisons with the best (1984); Mogstad et
        al., Inference for ranks with applications to mobility across neighborhoods (2024), for the places.

    Raises:
        ValueError: there is no configuration, one has no value, or a value is not finite.
    """
    if not groups:
        raise ValueError("there is no configuration")
    means = {name: float(as_sample([*of.values()]).mean()) for name, of in groups.items()}
    order = sorted(groups, key=lambda name: -means[name] if larger_is_better else means[name])
    lucks = bad_luck({name: (sum(seed in stuck.get(name, ()) for seed in of), len(of)) for name, of in groups.items()})
    split = {name: split_stuck(groups[name], () if name in lucks else stuck.get(name, ())) for name in order}
    trained = {name: values for name, (values, _) in split.items()}
    left_out = {name: values for name, (_, values) in split.items()}
    scaled = {name: dict(zip(of, scale.apply([*of.values()]), strict=True)) for name, of in trained.items()}
    paired = pairing_helps(scaled)  # not of configurations with different seeds, whose means are shown as they are
    samples = _aligned(scaled)
    prior = borrow(samples, paired, scale)
    options: dict[str, Any] = {"larger_is_better": larger_is_better, "most": most}
    options |= {"scale": scale, "prior": prior, "pair": paired}

    def against(one: Hashable, other: Hashable, tests: int, share: float = share) -> Comparison:
        both, luck = (left_out[one], left_out[other]), max(lucks.get(one, 0.0), lucks.get(other, 0.0))
        return compare(trained[one], trained[other], tests=tests, stuck=both, share=share, luck=luck, **options)

    shares = {other: max(share, earlier_shares.get(other, 0.0)) for other in order[1:]}
    found = {other: against(order[0], other, len(order) - 1, of) for other, of in shares.items()}
    certainty = {other: 1 - comparison.p for other, comparison in found.items()}
    certainty[order[0]] = min(certainty.values(), default=math.nan)
    p = _pairwise_p(samples, paired, prior)
    p /= share
    for i, j in itertools.combinations(range(len(order)), 2):
        if len(order) == 2 or any(left_out[order[place]] or order[place] in lucks for place in (i, j)):
            p[i, j] = p[j, i] = against(order[i], order[j], 1).p
    places = _places(p, np.array([sample.mean() for sample in samples]) * (1 if larger_is_better else -1))
    ranks = [
        Rank(name, len(groups[name]), means[name], certainty[name], *place, found.get(name))
        for name, place in zip(order, places, strict=True)
    ]
    return _open_first_place(ranks)


def bad_luck(counts: Mapping[Any, tuple[int, int]]) -> dict[Any, float]:
    """Returns, for each configuration with only stuck seeds, the probability that all of them are stuck by bad luck.

    A seed is stuck by bad luck with the probability r. The other configurations estimate r: it is their share of stuck
    seeds, after half a seed is added to the stuck ones and half to the trained ones. All n seeds are stuck with r^n.

    Args:
        counts: the number of stuck seeds, and of all seeds, of each configuration.
    """
    some = [pair for pair in counts.values() if pair[0] < pair[1]]
    rate = (sum(stuck for stuck, _ in some) + 0.5) / (sum(n for _, n in some) + 1)
    return {name: rate**n for name, (stuck, n) in counts.items() if stuck == n}


def _open_first_place(ranks: list[Rank]) -> list[Rank]:
    """Returns ranks, the winner first, of which those that may be the best have the first place, and no others."""
    winner, *others = ranks
    is_alone = not any(one.may_be_best for one in others)
    winner = winner._replace(low=1, high=1 if is_alone else max(2, winner.high))
    return [winner, *(one._replace(low=1 if one.may_be_best else max(2, one.low)) for one in others)]


def _pairwise_p(samples: list[np.ndarray], paired: bool, prior: Prior) -> np.ndarray:
    """Returns the p-values of the t tests of all pairs [k, k], not corrected; NaN where there is no spread."""
    from scipy.special import stdtr

    means = np.array([sample.mean() for sample in samples])
    found = pairwise_errors(samples, paired, prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(np.subtract.outer(means, means)) / found.standard_error
        p = np.where(found.standard_error > 0, 2 * stdtr(found.freedom, -t), math.nan)
    np.fill_diagonal(p, math.nan)
    return p


def _places(p: np.ndarray, means: np.ndarray) -> list[tuple[int, int]]:
    """Returns the best and the worst place of each configuration that Holm's correction of all pairs leaves open."""
    upper = np.triu_indices(len(p), 1)
    differs = np.zeros(p.shape, bool)
    differs[upper] = holm(p[upper]) < 1 - LEVEL
    differs |= differs.T
    above = (differs & (means > means[:, None])).sum(axis=1)
    below = (differs & (means < means[:, None])).sum(axis=1)
    return [(1 + int(a), len(p) - int(b)) for a, b in zip(above, below, strict=True)]


def expected_best(values: Sample, n: int, *, larger_is_better: bool = True, report: Sample | None = None) -> float:
    """Returns the unbiased estimate of the best of n trainings: the mean of the best over all choices of n values.

    With `report`, another value of each training, it is the mean of that value of the best.

    References:
        Dodge et al., Show your work (2019); Tang et al., Showing your work doesn't always work (2020), equation 5, for
        this estimator.

    Raises:
        ValueError: n is not in 1..len(values), or a value is not finite.
    """
    sample = as_sample(values)
    if not 1 <= n <= len(sample):
        raise ValueError(f"the best of {n} of {len(sample)} values")
    order = np.argsort(sample if larger_is_better else -sample, kind="stable")
    # The probability that the best of n has index i is C(i, n - 1) / C(len, n). It is n / len for the last index, and
    # follows by ratios for the others, because the binomials overflow.
    places = np.arange(len(sample) - 1, 0, -1)
    weights = n / len(sample) * np.cumprod([1.0, *((places - n + 1).clip(0) / places)])
    return float((sample if report is None else as_sample(report))[order][::-1] @ weights)


def nested_selection(
    select: Mapping[Any, Values],
    report: Mapping[Any, Values] | None = None,
    *,
    larger_is_better: bool = True,
    report_larger_is_better: bool | None = None,
) -> SelectionEstimate:
    """Estimates the value of the best configuration on a seed that was not used to select it.

    The estimate is leave-one-out cross-validation over seeds: for each seed, select the configuration with the best
    mean over the other seeds, and take its value on the seed left out. The mean is unbiased for a selection by one seed
    fewer. In a single study its error can be as large as the optimism that it estimates, and it equals the apparent
    mean if all selections agree. It corrects for the luck of seeds. It corrects for the luck of a test set only if
    `select` is measured on other examples than `report`.

    The values left out are dependent, since each takes part in the other selections. The interval therefore uses the
    jackknife standard error of the whole procedure. Its coverage is 93 to 99 % in simulated studies of three to ten
    seeds and 92 % with two, against 70 % if the values are taken as independent. If all selections agree, it is the t
    interval of the mean.

    Args:
        select: the values to select by, of each configuration by seed. Seeds that a configuration lacks are left out.
        report: the values to report; None stands for `select`.
        larger_is_better: whether the largest value of `select` is the best.
        report_larger_is_better: the same for `report`; None stands for `larger_is_better`.

    References:
        Efron and Stein, The jackknife estimate of variance (1981), for why it is rather too large than too small.

    Raises:
        ValueError: the configurations share fewer than two seeds.
    """
    report = select if report is None else report
    shared = set.intersection(*(set(side[name]) for side in (select, report) for name in select))
    seeds = [seed for seed in next(iter(select.values())) if seed in shared]
    if len(seeds) < 2:
        raise ValueError(f"configurations share {len(seeds)} seeds; at least 2 are needed")
    names = list(select)
    chooses = np.array([as_sample([select[name][seed] for seed in seeds]) for name in names])
    counts = np.array([as_sample([report[name][seed] for seed in seeds]) for name in names])
    scores = chooses if larger_is_better else -chooses
    chosen, values = _leave_each_out(scores, counts)
    winner = int(scores.sum(axis=1).argmax())
    held_out, apparent = float(values.mean()), float(counts[winner].mean())
    error = _jackknife_error(scores, counts) if len(seeds) > 2 else math.sqrt(variance(values) / 2)
    low, high = interval_around(held_out, t_quantile(len(seeds) - 1) * error)
    up = larger_is_better if report_larger_is_better is None else report_larger_is_better
    optimism = apparent - held_out if up else held_out - apparent
    votes = dict(Counter(names[choice] for choice in chosen).most_common())
    return SelectionEstimate(names[winner], apparent, held_out, low, high, optimism, votes)


def _leave_each_out(scores: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for each seed, the configuration with the largest sum over the other seeds, and its reported value."""
    chosen = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)
    return chosen, counts[chosen, np.arange(counts.shape[1])]


def _jackknife_error(scores: np.ndarray, counts: np.ndarray) -> float:
    """Returns the jackknife standard error of the mean of the values that `_leave_each_out` returns."""
    n = counts.shape[1]
    others = (np.delete(np.arange(n), seed) for seed in range(n))
    means = [_leave_each_out(scores[:, rest], counts[:, rest])[1].mean() for rest in others]
    return (n - 1) * math.sqrt(variance(np.array(means)) / n)


def _aligned(groups: Mapping[Any, Values]) -> list[np.ndarray]:
    """Returns the values of each configuration, in the same order of seeds if all have the same."""
    if not groups:
        raise ValueError("there is no configuration")
    seeds = next(iter(groups.values())) if have_same_seeds(groups) else None
    return [as_sample([values[seed] for seed in seeds or values]) for values in groups.values()]
