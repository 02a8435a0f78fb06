"""Looking again at a study that grows: the share of the risk of 5 % that each look may spend, and when to look.

A verdict is wrong at some look with at most the sum of the risks of the looks (Bonferroni). Each look therefore tests
at a share of 5 %, and the shares of planned looks have the sum 1.
"""


def share_of_look(spent: float, seeds: int, before: int, most: int) -> float:
    """Returns the share of a planned look: that of its new seeds in all seeds that may still be added.

    The last planned look spends what is left. The shares of a study that looks at 3, 4, 6, ... 20 seeds are 3/20, 1/20,
    2/20, ...: this is alpha spending, linear in the seeds. A look at no more seeds has that of an unplanned one.

    Args:
        spent: the sum of the shares of earlier looks.
        seeds: the largest number of seeds of a configuration at this look.
        before: that number at the look before; 0 without one.
        most: the largest number of seeds that the study may have.

    References:
        Lan and DeMets, Discrete sequential boundaries for clinical trials (1983); Kim and DeMets, Design and analysis
        of group sequential tests based on the type I error spending rate function (1987), for linear spending.
    """
    if seeds <= before:  # only other configurations are new
        return share_of_unplanned_look(spent)
    return left(spent) * min(1.0, (seeds - before) / max(most - before, 1))


def share_of_unplanned_look(spent: float) -> float:
    """Returns the share of a look that nobody planned.

    The first one has all of it, because most studies are looked at once. Each later one has half of what is `left`.
    """
    return left(spent) / 2 if spent else 1.0


def left(spent: float) -> float:
    """Returns the share that the looks to come have together.

    Once 1 is spent, they have 1 more: the risk of all looks together is then larger than 5 %, and the report says so.
    """
    return 1.0 - round(spent, 9) % 1.0


def next_size(seeds: int, most: int) -> int:
    """Returns the number of seeds of the look after one with `seeds`: half as many more, and `most` at the end."""
    following = seeds + max(1, seeds // 2)
    return most if following + max(1, following // 4) > most else following
