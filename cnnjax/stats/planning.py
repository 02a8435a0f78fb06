"""Sample sizes: how many seeds decide a comparison with a given power.

statsmodels' power functions take the spread as known; these average over its uncertainty, and know equivalence margins.
"""

import functools
import math

import numpy as np

from cnnjax.stats.spread import LEVEL

POWER = 0.8
MOST = 10_000  # seeds; nobody trains more
_NODES, _STEP = 233, 144  # of averages over what spreads may turn out to be: Fibonacci numbers, for two at once


def decision_power(
    n: int,
    difference: float,
    std: float,
    *,
    freedom: float = math.inf,
    per_seed: float = 1.0,
    borrowed: float = 0.0,
    margin: float | None = None,
    level: float = LEVEL,
) -> float:
    """Returns the probability that a comparison of n seeds per side is decided: better, worse, or equal by the margin.

    Args:
        n: seeds per side, at least 2.
        difference: the true difference.
        std: estimated standard deviation of the difference of one seed's two values.
        freedom: degrees of freedom of that estimate. The power is averaged over its error; infinite: `std` is exact.
        per_seed: degrees of freedom of the future estimate over n - 1, if it finds the true spreads: 1 for pairs, up to
            2 otherwise. Welch's test finds fewer with two or three seeds; the power is averaged over that, too.
        borrowed: degrees of freedom that other configurations add to the future estimate of each spread; the test then
            has borrowed + n - 1 of them.
        margin: a difference below it is too small to matter.
        level: of the interval that must exclude zero.

    References:
        Julious and Owen, Sample size calculations for clinical studies allowing for uncertainty about the variance
        (2006), for the average over the true spread; Sloan and Joe, Lattice methods for multiple integration (1994),
        for that over the two spreads that will be found.
    """
    from scipy.special import ndtr, stdtrit

    # The larger share of A and B in the variance: share**2 + (1 - share)**2 is 1 / per_seed.
    share = (1 + math.sqrt(max(2 / per_seed - 1, 0))) / 2
    found = _mean_square(n - 1 + borrowed)
    parts = share * found, (1 - share) * found[_STEP * np.arange(_NODES) % _NODES]
    found_square = parts[0] + parts[1]
    future = (n - 1) * found_square**2 / (parts[0] ** 2 + parts[1] ** 2)  # by Welch and Satterthwaite
    if borrowed:
        future = np.full_like(future, n - 1 + borrowed)
    true_error = (std / np.sqrt(_mean_square(freedom) * n))[:, None]  # fiducial, of the mean difference
    found_error = true_error * np.sqrt(found_square)

    def within(half: np.ndarray) -> np.ndarray:
        """The probability that the estimated difference lies in -half..half."""
        inside = ndtr((half - difference) / true_error) - ndtr((-half - difference) / true_error)
        return np.where(half > 0, inside, 0.0)

    unequal_from = stdtrit(future, (1 + level) / 2) * found_error
    power = 1 - within(unequal_from)
    if margin is not None:
        equal_to = margin - stdtrit(future, LEVEL) * found_error
        power = np.where(equal_to < unequal_from, power + within(equal_to), 1.0)
    return float(power.mean())


def seeds_to_decide(
    difference: float,
    std: float,
    *,
    freedom: float = math.inf,
    per_seed: float = 1.0,
    borrowed: float = 0.0,
    margin: float | None = None,
    level: float = LEVEL,
    power: float = POWER,
) -> int | None:
    """Returns the least number of seeds per side that decides a comparison with the given power.

    See `decision_power` for the arguments. The number is for one look at the results. Looking after each seed and
    stopping once it is decided has a higher error rate.

    Returns:
        The number, at least 2; None if more than 10,000 are needed.
    """

    def reached(n: int) -> float:
        spread = {"freedom": freedom, "per_seed": per_seed, "borrowed": borrowed}
        return decision_power(n, difference, std, margin=margin, level=level, **spread)

    high = 2
    while reached(high) < power:
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle, high)
    return high


@functools.lru_cache(4096)
def _mean_square(freedom: float) -> np.ndarray:
    """Returns equally likely quantiles of the mean square of `freedom` standard normal draws."""
    if math.isinf(freedom):
        return np.ones(1)
    from scipy.special import gammaincinv

    places = (np.arange(_NODES) + 0.5) / _NODES
    return gammaincinv(freedom / 2, places) * 2 / freedom
