"""AdaStop beside `--until=decided`: how many trainings each takes until it has told configurations apart.

    python -m experiments.adastop --output=experiments/adastop.csv     # two minutes on one core

AdaStop (Mathieu et al. 2023, *AdaStop: adaptive statistical testing for sound comparisons of deep RL agents*) compares
all pairs by group-sequential permutation tests, with a family-wise error of at most 5 %, and trains a configuration as
long as one of its comparisons is open. It is written here from the paper, and is a reference for the tests. Both start
with equal numbers of seeds of simulated configurations, and have at most 20 of each.

Columns, in shares of studies or of comparisons: `wrong`, a true best is lost, or equal ones are told apart; `decided`,
of the comparisons with the configuration that is the winner at the end; `trainings`, of all configurations.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnjax.stats import Scale
from cnnjax.stats.scales import IDENTITY
from cnnjax.utils import cli
from experiments.evidence import TRUTHS, grow, read_groups

MOST, GROUP, RISK = 20, 5, 0.05
PERMUTATIONS = 1000
DIFFERENCES = (0.0, 1.0, 2.0, 4.0)  # of two configurations, in standard deviations


class Stopped(NamedTuple):
    """What AdaStop decides.

    Attributes:
        order: [k, k], 1 where the row is better than the column, -1 where it is worse, 0 where that is undecided.
        seeds: [k], of each configuration.
    """

    order: np.ndarray
    seeds: np.ndarray


def adastop(
    values: np.ndarray, group: int, generator: np.random.Generator, risk: float = RISK, most: int = PERMUTATIONS
) -> Stopped:
    """Compares all pairs of configurations by AdaStop.

    After each group of seeds, a comparison is decided if its sum of differences exceeds the boundary. The boundary of
    the k-th of K looks spends k/K of the risk on the largest sum of all open comparisons, over permutations within each
    group that have not exceeded the boundaries before. The largest is decided first, then the boundary is that of the
    others (step-down).

    Args:
        values: [k, n], n a multiple of `group`.
        group: seeds of each configuration at a look.
        generator: draws permutations.
        risk: the family-wise error.
        most: the number of permutations; all of them at the first look if they are fewer.
    """
    k, n = values.shape
    looks = n // group
    pairs = list(itertools.combinations(range(k), 2))
    first, second = np.array(pairs).T
    masks = [_signs(group, look, most, generator) for look in range(looks)]
    sums, observed = np.zeros((len(masks[0]), len(pairs))), np.zeros(len(pairs))
    is_alive, is_open = np.ones(len(sums), bool), np.ones(len(pairs), bool)
    order, seeds, spent = np.zeros((k, k), int), np.zeros(k, int), 0.0
    for look in range(looks):
        block = values[:, look * group : (look + 1) * group]
        seeds[np.unique([first[is_open], second[is_open]])] += group
        sums += masks[look] @ np.hstack([block[first], block[second]]).T
        observed += block[first].sum(axis=1) - block[second].sum(axis=1)
        while is_open.any():
            largest = np.abs(sums[:, is_open]).max(axis=1)
            allowed = math.floor((risk * (look + 1) / looks - spent) * len(sums) + 1e-9)
            boundary = np.sort(largest[is_alive])[::-1][allowed] if allowed < is_alive.sum() else 0.0
            which = np.flatnonzero(is_open)[np.abs(observed[is_open]).argmax()]
            if not abs(observed[which]) > boundary * (1 + 1e-9):
                break
            i, j = pairs[which]
            order[i, j] = np.sign(observed[which])
            order[j, i] = -order[i, j]
            is_open[which] = False
        if not is_open.any():
            break
        exceeds = is_alive & (largest > boundary * (1 + 1e-9))
        spent += exceeds.sum() / len(sums)
        is_alive &= ~exceeds
    return Stopped(order, seeds)


def _signs(group: int, look: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Returns permutations of two groups [permutations, 2 * group] as 1 and -1, the first one as they are."""
    is_first = np.arange(2 * group) < group
    drawn = generator.permuted(np.tile(is_first, (most, 1)), axis=1)
    drawn[0] = is_first
    return np.where(drawn, 1.0, -1.0)


def studies(count: int) -> Iterator[dict[str, Any]]:
    """Yields a row per truth and rule."""
    for distance in DIFFERENCES:
        means = np.array([[distance], [0.0]])
        yield from _cell(f"2, {distance:g} sd apart", means, np.ones_like(means), math.inf, count)
    for k in (5, 12):
        means = np.zeros((k, 1))
        yield from _cell(f"{k} equal", means, np.ones_like(means), math.inf, count)
    for truth, (_, examples) in TRUTHS.items():
        logits = [Scale("logit", examples).apply(of) for of in read_groups(truth)]
        means, stds = (np.array([[f(of)] for of in logits]) for f in (np.mean, lambda of: np.std(of, ddof=1)))
        yield from _cell(f"{truth}, {len(logits)}", means, stds, examples, count)


def _cell(truth: str, means: np.ndarray, stds: np.ndarray, examples: float, count: int) -> Iterator[dict[str, Any]]:
    generator, k = np.random.default_rng(len(means)), len(means)
    scale = IDENTITY if math.isinf(examples) else Scale("logit", examples)
    best, is_equal = int(means.argmax()), bool((means == means[0]).all())
    found: dict[str, list[tuple[bool, float, int]]] = {"adastop": [], "until": []}
    for _ in range(count):
        values = means + stds * generator.normal(size=(k, MOST))
        stopped = adastop(values, GROUP, generator)
        winner = int((stopped.order == 1).sum(axis=1).argmax())
        wrong = bool(stopped.order.any()) if is_equal else bool((stopped.order[best] == -1).any())
        found["adastop"].append((wrong, (stopped.order[winner] == 1).sum() / (k - 1), int(stopped.seeds.sum())))
        grown = grow(scale.invert(values), scale=scale)
        wrong = bool(grown.excluded.any() if is_equal and k == 2 else grown.ever[best])
        found["until"].append((wrong, grown.excluded.sum() / (k - 1), int(grown.seeds.sum())))
    for rule, of in found.items():
        wrong, decided, trainings = np.mean(of, axis=0)
        row = {"truth": truth, "rule": rule, "studies": count, "wrong": wrong, "decided": decided}
        yield row | {"trainings": trainings, "most": k * MOST}


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = cli.ArgumentParser(prog="python -m experiments.adastop", description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="studies of each truth")
    parser.add_argument("--output", type=Path, help="where to write the table")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Prints the table, and writes it."""
    table = pd.DataFrame(studies(arguments.studies))
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if arguments.output:
        table.to_csv(arguments.output, index=False, lineterminator="\n", float_format="%.4g")


if __name__ == "__main__":
    cli.run(main, parse)
