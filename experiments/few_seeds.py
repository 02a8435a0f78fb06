"""What a study of fewer seeds would have said: subsets of the seeds of a run with many.

    python -m experiments.few_seeds experiments/cifar10_many_seeds

For each number of seeds, 10,000 subsets are drawn: the range (95 %) of the mean and of the standard deviation that they
show for the best configuration, and how often they put another configuration before the one that is best over all
seeds. Reads trials.csv of the folder.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cnnjax.analysis.columns import AXES, level, word
from cnnjax.utils import cli
from experiments.folder import parse_folder

_SIZES = (1, 2, 3, 5, 10, 20)
_DRAWS = 10_000


def draw_subsets(accuracy: np.ndarray) -> pd.DataFrame:
    """Draws subsets of seeds.

    Args:
        accuracy: [configurations, seeds], in percent.

    Returns:
        A row per size: 2.5 % and 97.5 % quantiles of the best configuration's mean and standard deviation, and the
        share of subsets, in percent, whose best mean is another's.
    """
    rng = np.random.default_rng(0)
    best = int(accuracy.mean(axis=1).argmax())
    rows = []
    for size in (size for size in _SIZES if size < accuracy.shape[1]):
        places = np.argsort(rng.random((_DRAWS, accuracy.shape[1])), axis=1)[:, :size]
        chosen = accuracy[:, places]  # [configurations, draws, size]
        means = chosen.mean(axis=2)
        row = {"seeds": size, "mean, low": np.quantile(means[best], 0.025), "high": np.quantile(means[best], 0.975)}
        if size > 1:
            std = chosen[best].std(axis=1, ddof=1)
            row |= {"std, low": np.quantile(std, 0.025), "std, high": np.quantile(std, 0.975)}
        rows.append(row | {"another first, %": 100 * (means.argmax(axis=0) != best).mean()})
    return pd.DataFrame(rows)


def parse(argv: list[str]) -> Path:
    """Returns the folder that the command line names; see `parse_folder`."""
    return parse_folder(argv, "few_seeds", __doc__, "trials.csv")


def main(folder: Path) -> None:
    """Prints the table of a folder."""
    trials = pd.read_csv(folder / "trials.csv")
    axes = [axis for axis in AXES if axis in trials and trials[axis].nunique(dropna=False) > 1]
    table = 100 * trials.groupby([*axes, "seed"])["test_accuracy"].first().unstack("seed")
    best = table.loc[[table.mean(axis=1).idxmax()]]
    levels = best.reset_index()[axes].iloc[0]
    named = ", ".join(f"{word(axis)} {level(axis, value)}" for axis, value in levels.items())
    mean, std = best.iloc[0].mean(), best.iloc[0].std()
    print(f"best of {len(table)} configurations over {table.shape[1]} seeds: {named}")
    print(f"test accuracy {mean:.2f} %, standard deviation {std:.2f} points\n")
    print(draw_subsets(table.to_numpy()).to_string(index=False, float_format="{:.2f}".format, na_rep="-"))


if __name__ == "__main__":
    cli.run(main, parse)
