"""Published accuracies beside ours.

    python -m experiments.published experiments/cifar10_grid     # single runs beside the spread of our seeds
    python -m experiments.published experiments/cifar10_seeds    # the spread over five seeds, and the learning curve

A published single run is one draw, so it is held against the 95 % prediction interval of one new seed, not against the
narrower interval of our mean. Reads trials.csv and metrics.jsonl of the folder.
"""

import math
from pathlib import Path

import pandas as pd
from absl import app
from scipy.stats import chi2

from cnnjax.stats import prediction_interval, summarise

SETTING = ["model", "optimizer", "learning_rate", "batch_size", "epochs"]
# Test accuracy in percent of the study of three architectures on CIFAR-10, one seed each.
PUBLISHED = {
    ("baseline", "adam", 0.001, 32, 5): 59.56,
    ("baseline", "adam", 0.001, 64, 5): 59.50,
    ("baseline", "adam", 0.001, 32, 10): 62.49,
    ("baseline", "adam", 0.001, 64, 10): 63.14,
    ("baseline", "adam", 0.01, 32, 5): 39.89,
    ("complex", "sgd", 0.01, 32, 10): 76.16,
    ("complex", "sgd", 0.001, 32, 10): 75.59,
    ("complex", "sgd", 0.01, 64, 10): 74.54,
    ("medium", "adam", 0.001, 64, 10): 73.87,
    ("complex", "sgd", 0.001, 64, 10): 73.25,
}

# Of the base network: test accuracy over seeds 5 to 9 (mean, standard deviation, range, least, most), and train and
# validation accuracy by epoch of one seed.
PUBLISHED_SEEDS = (72.15, 0.48, 1.44, 71.44, 72.88)
PUBLISHED_CURVE = ((54.81, 66.86), (68.57, 66.96), (72.52, 72.44), (75.00, 72.84))


def compare(trials: pd.DataFrame) -> list[str]:
    """Returns a line per published setting that the trials hold: n, mean, std, interval, published, inside or not."""
    accuracy = {key: group["test_accuracy"].dropna() * 100 for key, group in trials.groupby(SETTING)}
    lines = ["model     optimizer  rate   batch  epochs  n  mean   std   one new seed    published"]
    for key, published in PUBLISHED.items():
        if key not in accuracy or len(accuracy[key]) < 2:
            continue
        summary = summarise(accuracy[key].to_numpy())
        low, high = prediction_interval(accuracy[key].to_numpy())
        where = "inside" if low <= published <= high else "outside"
        model, optimizer, rate, batch, epochs = key
        lines.append(
            f"{model:<9} {optimizer:<10} {rate:<6} {batch:<6} {epochs:<7} {summary.n}  {summary.mean:.2f}  "
            f"{summary.std:.2f}  {low:.2f}..{high:.2f}  {published:.2f}  {where}"
        )
    return lines


def compare_seeds(trials: pd.DataFrame, metrics: pd.DataFrame) -> list[str]:
    """Returns lines on the base network: mean, spread and range over its seeds, and its curve, beside the published."""
    accuracy = (100 * trials.loc[trials["model"] == "base", "test_accuracy"].dropna()).to_numpy()
    if len(accuracy) < 2:
        return []
    ours = summarise(accuracy)
    # Of the variance of n normal draws, (n - 1) s^2 / sigma^2 has the chi-squared distribution.
    low, high = (ours.std * math.sqrt((ours.n - 1) / chi2.ppf(p, ours.n - 1)) for p in (0.975, 0.025))
    mean, std, spread, least, most = PUBLISHED_SEEDS
    lines = [
        f"test accuracy of {ours.n} seeds, percent",
        "           mean   95 % interval   std   95 % interval  range  from..to",
        f"ours       {ours.mean:.2f}  {ours.low:.2f}..{ours.high:.2f}    {ours.std:.2f}  {low:.2f}..{high:.2f}     "
        f"{ours.range:.2f}   {ours.min:.2f}..{ours.max:.2f}",
        f"published  {mean:.2f}                  {std:.2f}                 {spread:.2f}   {least:.2f}..{most:.2f}",
        "",
        "epoch  train accuracy, ours  published  validation accuracy, ours  published",
    ]
    means = 100 * metrics.groupby("epoch")[["train_accuracy", "val_accuracy"]].mean()
    for (epoch, row), (train, validation) in zip(means.iterrows(), PUBLISHED_CURVE, strict=False):
        lines.append(
            f"{epoch:<6} {row['train_accuracy']:<21.2f} {train:<10.2f} {row['val_accuracy']:<26.2f} {validation:.2f}"
        )
    return lines


def main(argv: list[str]) -> None:
    """Prints the comparisons for the folder that is named."""
    folder = Path(argv[1])
    trials = pd.read_csv(folder / "trials.csv")
    metrics = pd.read_json(folder / "metrics.jsonl", lines=True)
    single = compare(trials)
    print("\n".join(single if len(single) > 1 else compare_seeds(trials, metrics)))


if __name__ == "__main__":
    app.run(main)
