"""Published figures beside ours.

    python -m experiments.published experiments/cifar10_grid     # single runs beside the spread of our seeds
    python -m experiments.published experiments/cifar10_seeds    # the spread over five seeds, and the learning curve

A published single run is one draw, so it is held against the 95 % prediction interval of one new seed, not against the
narrower interval of our mean. Reads trials.csv and metrics.jsonl of the folder, and classes.csv where it is there; the
figures are those of `claims`.
"""

import math
from pathlib import Path

import pandas as pd
from scipy.stats import chi2, f, t, ttest_ind_from_stats

from cnnjax.analysis.columns import AXES
from cnnjax.report.tables import Table
from cnnjax.stats import prediction_interval, summarize
from cnnjax.utils import cli
from experiments import claims
from experiments.claims import Claim
from experiments.folder import parse_folder

_PUBLISHED_SEEDS = 5  # that claims.SEEDS is of
_SHOWN = ("optimizer", "learning_rate", "batch_size", "epochs")


def compare(trials: pd.DataFrame, history: pd.DataFrame, classes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Holds every claim against the trials of each configuration that it is about.

    Args:
        trials: as trials.csv.
        history: as metrics.jsonl, a row per member and epoch.
        classes: as classes.csv, a row per trial and class.

    Returns:
        A row per claim and configuration: what was measured (accuracies in percent) over n seeds, mean, standard
        deviation and the interval of one new seed, the published figure, and whether it lies `inside` that interval. A
        figure that was printed with few digits lies inside where any number does that rounds to it.
    """
    rows = []
    for claim in claims.claims():
        about = _about(claim, trials)
        for _, of_configuration in about.groupby([axis for axis in AXES if axis in about], dropna=False, sort=False):
            values = _values(claim.measure, of_configuration, history, classes)
            if len(values):
                first = of_configuration.iloc[0]
                rows.append({"claim": claim.name, **{name: first[name] for name in _SHOWN}, **_row(claim, values)})
    return pd.DataFrame(rows)


def _about(claim: Claim, trials: pd.DataFrame) -> pd.DataFrame:
    for column, value in claim.of.items():
        if len(trials):  # of another study, which may lack the columns that follow
            trials = trials[trials[column] == value]
    return trials


def _values(measure: str, trials: pd.DataFrame, history: pd.DataFrame, classes: pd.DataFrame | None) -> list[float]:
    """The measure of each trial that has it, accuracies in percent."""
    if measure in trials:
        values = trials[measure]
    elif " of class " in measure:
        column, _, name = measure.partition(" of class ")
        if classes is None:
            return []
        values = classes.loc[classes["trial"].isin(trials["trial"]) & (classes["class"] == name), column]
    else:
        epochs = history.merge(trials[["member", "epochs_run"]], on="member")
        epochs = epochs[epochs["epoch"] <= epochs["epochs_run"]]
        if measure.startswith("highest "):
            values = epochs.groupby("member")[measure.partition(" ")[2]].max()
        else:
            column, _, epoch = measure.partition(" of epoch ")
            values = epochs.loc[epochs["epoch"] == int(epoch), column]
    return (values.dropna() * _scale(measure)).tolist()


def _scale(measure: str) -> int:
    return 100 if "accuracy" in measure else 1


def _row(claim: Claim, values: list[float]) -> dict[str, object]:
    ours = summarize(values)
    low, high = prediction_interval(values, (0, _scale(claim.measure)))
    half = 0.5 * 10.0 ** -len(claim.printed.partition(".")[2])  # of the last digit that was printed
    published = float(claim.printed)
    inside = low <= published + half and published - half <= high
    return {
        **{"measure": claim.measure.replace("_", " "), "n": ours.n, "mean": ours.mean, "std": ours.std},
        **{"one new seed, low": low, "high": high, "published": claim.printed},
        "": "-" if math.isnan(low) else "inside" if inside else "outside",
    }


def as_text(rows: pd.DataFrame) -> str:
    """Returns the comparison as a table of aligned columns."""
    kinds = dict.fromkeys(("claim", "measure", "published", ""), "text") | {"batch_size": "whole", "epochs": "whole"}
    return Table("published", "Published and ours", "", rows, kinds=kinds).text()


def compare_seeds(trials: pd.DataFrame, metrics: pd.DataFrame) -> list[str]:
    """Returns lines on the base network: mean, spread and range over its seeds, and its curve, beside the published."""
    accuracy = (100 * trials.loc[trials["model"] == "base", "test_accuracy"].dropna()).to_numpy()
    if len(accuracy) < 2:
        return []
    ours, published = summarize(accuracy), claims.SEEDS
    means = ttest_ind_from_stats(ours.mean, ours.std, ours.n, *published[:2], _PUBLISHED_SEEDS, equal_var=False)
    spreads = _equal_spreads(ours.std, ours.n, published[1], _PUBLISHED_SEEDS)
    lines = [
        f"test accuracy of {ours.n} seeds, percent",
        "           mean   95 % interval   std   95 % interval  range  from..to      one new seed",
        _spread_line("ours", ours.n, ours.mean, ours.std, (ours.min, ours.max)),
        _spread_line("published", _PUBLISHED_SEEDS, *published[:2], published[-2:]),
        f"the means are equal: p = {means.pvalue:.2f} (Welch); the spreads are equal: p = {spreads:.2f} (F test)",
        "",
        "epoch  train accuracy, ours  published  validation accuracy, ours  published",
    ]
    means = 100 * metrics.groupby("epoch")[["train_accuracy", "val_accuracy"]].mean()
    for (epoch, row), (train, validation) in zip(means.iterrows(), claims.SEEDS_CURVE, strict=False):
        lines.append(
            f"{epoch:<6} {row['train_accuracy']:<21.2f} {train:<10.2f} {row['val_accuracy']:<26.2f} {validation:.2f}"
        )
    return lines


def _spread_line(name: str, n: int, mean: float, std: float, ends: tuple[float, float]) -> str:
    """What n seeds say of the mean and standard deviation of all seeds, and of one more, as 95 % intervals."""
    half = t.ppf(0.975, n - 1) * std / math.sqrt(n)
    # Of the variance of n normal draws, (n - 1) s^2 / sigma^2 has the chi-squared distribution.
    low, high = (std * math.sqrt((n - 1) / chi2.ppf(p, n - 1)) for p in (0.975, 0.025))
    new = half * math.sqrt(n + 1)
    return (
        f"{name:<9}  {mean:.2f}  {mean - half:.2f}..{mean + half:.2f}    {std:.2f}  {low:.2f}..{high:.2f}     "
        f"{ends[1] - ends[0]:.2f}   {ends[0]:.2f}..{ends[1]:.2f}  {mean - new:.2f}..{mean + new:.2f}"
    )


def _equal_spreads(one: float, n: int, other: float, m: int) -> float:
    """The two-sided p-value that n and m normal draws, of these standard deviations, have equal variances."""
    below = f.cdf((one / other) ** 2, n - 1, m - 1)
    return float(2 * min(below, 1 - below))


def parse(argv: list[str]) -> Path:
    """Returns the folder that the command line names; see `parse_folder`."""
    return parse_folder(argv, "published", __doc__, "trials.csv", "metrics.jsonl")


def main(folder: Path) -> None:
    """Prints the comparisons of a folder."""
    trials = pd.read_csv(folder / "trials.csv")
    metrics = pd.read_json(folder / "metrics.jsonl", lines=True)
    classes = folder / "classes.csv"
    print(as_text(compare(trials, metrics, pd.read_csv(classes) if classes.exists() else None)))
    if (trials["model"] == "base").any():
        print("\n".join(["", *compare_seeds(trials, metrics)]))


if __name__ == "__main__":
    cli.run(main, parse)
