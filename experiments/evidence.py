"""How much studies of few seeds decide, and how often they err: by simulation, and in the committed results.

    python -m experiments.evidence --output=experiments/evidence.csv     # all cells, about 20 minutes on one core
    python -m experiments.evidence --looks --output=experiments/looks.csv  # --until=decided, 8 minutes
    python -m experiments.evidence --pairs --output=experiments/pairs.csv  # comparisons of one pair, 3 minutes
    python -m experiments.evidence --committed                           # experiments/*/trials.csv, in seconds

Errors, with equal truths: the share of studies that exclude a given true best configuration from the confidence set of
the best (`lost`, at most 5 %), that name a single best (`named`, at most 5 %), and that tell any two apart by Holm's
correction of all pairs (`places`, at most 5 %). Power, with the truths of committed results: the share of the
comparisons with the winner that are decided, by Welch's tests of all pairs with Holm's correction (`before`), by the
same correction with moderated variances (`holm`), and by comparisons with the best (`after`).

One pair, as `compare` tests it: the share of studies with equal truths that tell two given configurations apart
(`told`, at most 5 %); and with the truths of committed results, the share of the pairs of the winner with each other
configuration that are told apart, by Welch's test (`before`) and with moderated variances (`after`).
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr

from cnnjax.analysis.columns import AXES
from cnnjax.runs.trials_csv import read_table
from cnnjax.stats import (
    LEVEL,
    NO_PRIOR,
    Prior,
    Scale,
    borrow,
    holm,
    hsu_factor,
    next_size,
    pairing_helps,
    pairwise_errors,
    rank,
    share_of_look,
)
from cnnjax.stats.scales import IDENTITY
from cnnjax.utils import cli

FOLDER = Path(__file__).parent
SEEDS, CONFIGURATIONS = (2, 3, 5, 10), (2, 12, 48)
SPREADS = ("equal", "log-sd 0.5", "log-sd 1", "skewed", "collapsing")
TRUTHS = {"quickstart": ("val_accuracy", 158), "cifar10_grid": ("test_accuracy", 10_000)}
COMMITTED = {
    **{name: TRUTHS[name] for name in TRUTHS},
    **dict.fromkeys(("cifar10_grid_complex", "cifar10_grid_medium", "cifar10_lenets"), ("test_accuracy", 10000)),
    **{f"cifar10_lenets/{name}": ("test_accuracy", 10_000) for name in ("decay", "wide")},
}
_RISK = 1 - LEVEL
_COLLAPSE = 0.15  # the probability that a seed never leaves chance
_COMMON = 0.7  # correlation of seeds in paired studies


class Decided(NamedTuple):
    """What one study decides.

    Attributes:
        excluded: [k], whether each configuration is excluded from the set of the best.
        worse: [k], whether each is told apart from the winner by Holm's correction of all pairs.
        pairs: how many pairs that correction tells apart.
    """

    excluded: np.ndarray
    worse: np.ndarray
    pairs: int


def decide(values: np.ndarray, moderated: bool = True, scale: Scale = IDENTITY) -> Decided:
    """Decides a study of values [k, n], to be tested on a scale, as `stats.rank` does."""
    k, values = len(values), scale.apply(values)
    p, winner, upper = _pairwise_p(values, moderated, scale), int(values.mean(axis=1).argmax()), np.triu_indices(k, 1)
    apart = np.zeros((k, k), bool)
    apart[upper] = holm(p[upper]) < _RISK
    excluded = hsu_factor(k - 1) * p[winner] < _RISK
    excluded[winner] = False
    return Decided(excluded, (apart | apart.T)[winner], int(apart.sum()))


def told_apart(values: np.ndarray, moderated: bool = True, scale: Scale = IDENTITY) -> np.ndarray:
    """Returns which configurations [k - 1] of a study [k, n] the test of one pair tells apart from the first."""
    return _pairwise_p(scale.apply(values), moderated, scale, one_pair=True)[0, 1:] < _RISK


def _pairwise_p(values: np.ndarray, moderated: bool, scale: Scale, one_pair: bool = False) -> np.ndarray:
    """Returns the p-values [k, k] of the tests of all pairs, given values [k, n] on a scale."""
    paired = pairing_helps({i: dict(enumerate(row)) for i, row in enumerate(values)})
    samples = list(values)
    prior: Prior = borrow(samples, paired, scale, one_pair) if moderated else NO_PRIOR
    found, means = pairwise_errors(samples, paired, prior), values.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * stdtr(found.freedom, -np.abs(np.subtract.outer(means, means)) / found.standard_error)


def draw(k: int, n: int, spread: str, paired: bool, generator: np.random.Generator) -> np.ndarray:
    """Draws a study [k, n] of configurations with equal means, 0; with collapsing spreads, NaN is a stuck seed."""
    noise = generator.normal(size=(k, n))
    if spread == "skewed":
        noise = 1 - generator.exponential(size=(k, n))
    if paired:
        noise = np.sqrt(1 - _COMMON) * noise + np.sqrt(_COMMON) * generator.normal(size=n)
    if spread.startswith("log-sd"):
        noise *= np.exp(generator.normal(0, float(spread.split()[1]), (k, 1)))
    if spread == "collapsing":
        noise[generator.random((k, n)) < _COLLAPSE] = np.nan
    return noise


def draw_alike(
    samples: Sequence[np.ndarray], scale: Scale, n: int, studies: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields studies [k, n] with the means and spreads of samples on a scale, as shares of whole images."""
    means, stds = (np.array([[f(of)] for of in samples]) for f in (np.mean, lambda of: np.std(of, ddof=1)))
    for _ in range(studies):
        values = scale.invert(means + stds * generator.normal(size=(len(samples), n)))
        yield np.round(values * scale.examples) / scale.examples


def split_stuck_seeds(rows: Iterable[np.ndarray]) -> tuple[dict[int, dict[int, float]], dict[int, set[int]]]:
    """Returns values by configuration and seed, and the stuck seeds, which are NaN in `rows`: far below the others."""
    groups, stuck = {}, {}
    for i, row in enumerate(rows):
        is_stuck = np.isnan(row)
        groups[i] = dict(enumerate(np.where(is_stuck, -20.0, row).tolist()))
        stuck[i] = {*np.flatnonzero(is_stuck).tolist()}
    return groups, stuck


def decide_collapsing(values: np.ndarray) -> Decided:
    """Decides a study with stuck seeds, which are NaN in `values`."""
    groups, stuck = split_stuck_seeds(values)
    ranks = rank(groups, stuck=stuck)
    out = {one.name for one in ranks if not one.may_be_best}
    excluded = np.array([i in out for i in groups])
    pairs = sum(one.low > 2 or one.high < len(ranks) for one in ranks[1:])
    return Decided(excluded, excluded, pairs)


def errors(studies: int) -> Iterator[dict[str, Any]]:
    """Yields a row per cell of equal truths."""
    for k, spread, paired, n in itertools.product(CONFIGURATIONS, SPREADS, (False, True), SEEDS):
        if spread == "collapsing" and paired:
            continue  # stuck seeds are left out, so the seeds differ and nothing is paired
        generator = np.random.default_rng((k, n, SPREADS.index(spread), paired))
        decides = decide_collapsing if spread == "collapsing" else decide
        count = studies if k < 48 or spread != "collapsing" else studies // 10
        found = [decides(draw(k, n, spread, paired, generator)) for _ in range(count)]
        # Any configuration is a true best; the first may be the one with a collapsed study, so take another at random.
        lost = np.mean([one.excluded[generator.integers(k)] for one in found])
        named = np.mean([one.excluded.sum() == k - 1 for one in found])
        row = {"truth": "equal", "configurations": k, "spread": spread, "paired": paired, "seeds": n, "studies": count}
        yield row | {"lost": lost, "named": named, "places": np.mean([one.pairs > 0 for one in found])}


def pairs(studies: int) -> Iterator[dict[str, Any]]:
    """Yields a row per cell of the test of one pair, whose spreads those of the other configurations moderate."""
    for k, spread, paired, n in itertools.product((3, 12, 48), SPREADS[:-1], (False, True), SEEDS):
        generator = np.random.default_rng((k, n, SPREADS.index(spread), paired, 1))
        told = np.mean([told_apart(draw(k, n, spread, paired, generator))[0] for _ in range(studies)])
        row = {"truth": "equal", "configurations": k, "spread": spread, "paired": paired, "seeds": n}
        yield row | {"studies": studies, "told": told}
    for truth, (_, examples) in TRUTHS.items():
        scale = Scale("logit", examples)
        logits = sorted((scale.apply(of) for of in read_groups(truth)), key=lambda of: -of.mean())
        for n in SEEDS:
            counts = [*draw_alike(logits, scale, n, studies, np.random.default_rng(n))]
            row = {"truth": truth, "configurations": len(logits), "seeds": n, "studies": studies}
            row |= {"before": np.mean([told_apart(of, moderated=False) for of in counts])}
            yield row | {"after": np.mean([told_apart(of, scale=scale) for of in counts])}


def read_groups(name: str) -> list[np.ndarray]:
    """Returns the values of each configuration of a committed folder over its seeds."""
    measure, _ = COMMITTED[name]
    trials = read_table(FOLDER / name)
    trials = trials[trials["status"] != "diverged"]
    axes = [axis for axis in (*AXES, "augment", "run") if axis in trials]
    groups = [of[measure].to_numpy() for _, of in trials.groupby(axes, sort=False, dropna=False)]
    most = max(map(len, groups))
    return [of for of in groups if len(of) == most]


def power(studies: int) -> Iterator[dict[str, Any]]:
    """Yields a row per number of seeds of the truths of committed results, whose counts of images are rounded."""
    for truth, (_, examples) in TRUTHS.items():
        scale = Scale("logit", examples)
        logits = [scale.apply(of) for of in read_groups(truth)]
        best = int(np.argmax([of.mean() for of in logits]))
        for n in SEEDS:
            counts = [*draw_alike(logits, scale, n, studies, np.random.default_rng(n))]
            before = [decide(of, moderated=False) for of in counts]
            after = [decide(of, scale=scale) for of in counts]
            row = {"truth": truth, "configurations": len(logits), "seeds": n, "studies": studies}
            row |= {"before": np.mean([one.worse.sum() for one in before]) / (len(logits) - 1)}
            row |= {"holm": np.mean([one.worse.sum() for one in after]) / (len(logits) - 1)}
            row |= {"after": np.mean([one.excluded.sum() for one in after]) / (len(logits) - 1)}
            yield row | {"lost": np.mean([one.excluded[best] for one in after])}


def committed() -> Iterator[dict[str, Any]]:
    """Yields a row per committed folder: how many of the comparisons with the winner are decided."""
    for name, (_, examples) in COMMITTED.items():
        groups = read_groups(name)
        if len(groups) < 2 or len(groups[0]) < 2:
            yield {"results": name, "configurations": len(groups), "seeds": len(groups[0])}
            continue
        values = np.array(groups)
        before, after = decide(values, moderated=False), decide(values, scale=Scale("logit", examples))
        row = {"results": name, "configurations": len(groups), "seeds": len(groups[0]), "comparisons": len(groups) - 1}
        yield row | {"before": before.worse.sum(), "holm": after.worse.sum(), "after": after.excluded.sum()}


class Grown(NamedTuple):
    """A simulated study to which `--until=decided` has added seeds.

    Attributes:
        seeds: [k], of each configuration.
        excluded: [k], whether each is excluded from the set of the best at the end.
        ever: [k], whether each was excluded at any look.
        looks: their number.
    """

    seeds: np.ndarray
    excluded: np.ndarray
    ever: np.ndarray
    looks: int


def grow(values: np.ndarray, start: int = 3, scale: Scale = IDENTITY) -> Grown:
    """Adds seeds of values [k, n] to the configurations in question, from `start` seeds to n, as `--until` does.

    Stuck seeds are NaN.
    """
    k, most = values.shape
    seeds, shares, worse, ever = np.full(k, start), list[float](), dict[Any, float](), np.zeros(k, bool)
    before = 0
    while True:
        now = int(seeds.max())
        shares.append(share_of_look(sum(shares), now, before, most))
        groups, stuck = split_stuck_seeds(row[:n] for row, n in zip(values, seeds, strict=True))
        ranks = rank(groups, scale=scale, stuck=stuck, share=shares[-1], earlier_shares=worse)
        out = {one.name for one in ranks if not one.may_be_best}
        excluded = np.array([i in out for i in range(k)])
        worse |= {int(i): max(shares[-1], worse.get(int(i), 0.0)) for i in np.flatnonzero(excluded)}
        ever, before = ever | excluded, now
        if excluded.sum() == k - 1 or now == most:
            return Grown(seeds, excluded, ever, len(shares))
        seeds = np.where(excluded, seeds, next_size(now, most))


def looks(studies: int, most: int = 20) -> Iterator[dict[str, Any]]:
    """Yields a row per cell of studies that grow from 3 to `most` seeds, beside a fixed design of `most` seeds each."""
    cells = (("equal", False), ("log-sd 1", False), ("equal", True), ("collapsing", False))
    for k, (spread, paired) in itertools.product(CONFIGURATIONS, cells):
        generator = np.random.default_rng((k, most, SPREADS.index(spread), *(paired,) * paired))
        count = studies if k < 48 else studies // (20 if spread == "collapsing" else 2)
        found = [grow(draw(k, most, spread, paired, generator)) for _ in range(count)]
        row = {"truth": "equal", "configurations": k, "spread": spread, "paired": paired, "studies": count}
        row |= {"lost": np.mean([one.ever[0] for one in found])}
        row |= {"named": np.mean([one.excluded.sum() == k - 1 for one in found])}
        yield row | {"trainings": np.mean([one.seeds.sum() for one in found]), "fixed": k * most}
    for truth, (_, examples) in TRUTHS.items():
        scale, generator = Scale("logit", examples), np.random.default_rng(most)
        logits = [scale.apply(of) for of in read_groups(truth)]
        best = int(np.argmax([of.mean() for of in logits]))
        k, found, fixed = len(logits), [], []
        for values in draw_alike(logits, scale, most, studies, generator):
            found.append(grow(values, scale=scale))
            fixed.append(decide(values, scale=scale).excluded.sum() / (k - 1))
        row = {"truth": truth, "configurations": k, "spread": "", "paired": False, "studies": studies}
        row |= {"lost": np.mean([one.ever[best] for one in found])}
        row |= {"named": np.mean([one.excluded.sum() == k - 1 for one in found])}
        row |= {"trainings": np.mean([one.seeds.sum() for one in found]), "fixed": k * most}
        yield row | {"after": np.mean([one.excluded.sum() for one in found]) / (k - 1), "after_fixed": np.mean(fixed)}


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = cli.ArgumentParser(prog="python -m experiments.evidence", description=__doc__)
    parser.add_argument("--committed", action="store_true", help="the committed results instead of simulated studies")
    parser.add_argument("--looks", action="store_true", help="studies that grow by --until=decided")
    parser.add_argument("--pairs", action="store_true", help="comparisons of one pair")
    parser.add_argument("--studies", type=int, default=2000, help="studies of each cell")
    parser.add_argument("--output", type=Path, help="where to write the table")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Prints the table, and writes it."""
    count = arguments.studies
    asked = [rows for name, rows in {"looks": looks, "pairs": pairs}.items() if getattr(arguments, name)]
    cells = asked[0](count) if asked else itertools.chain(power(count), errors(count))
    table = pd.DataFrame(committed() if arguments.committed else cells)
    print(table.to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    if arguments.output:
        table.to_csv(arguments.output, index=False, lineterminator="\n", float_format="%.4g")


if __name__ == "__main__":
    cli.run(main, parse)
