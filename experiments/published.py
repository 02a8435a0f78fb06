"""Published single-run accuracies beside the spread of our seeds.

    python -m experiments.published experiments/cifar10_grid/trials.csv

A published figure is one draw, so it is held against the 95 % prediction interval of one new seed, not against the
narrower interval of our mean. Reads trials.csv alone.
"""

from pathlib import Path

import pandas as pd
from absl import app

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


def main(argv: list[str]) -> None:
    """Prints the comparison for the trials.csv that is named."""
    print("\n".join(compare(pd.read_csv(Path(argv[1])))))


if __name__ == "__main__":
    app.run(main)
