"""Trials and configurations that are no better than always predicting the most frequent class."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from cnnjax.analysis.run import Run, once_per_run

_NEAR = (0.98, 1.05)  # times the entropy of the class shares, and times ln(number of classes)


class Chance(NamedTuple):
    """The test results of a constant prediction.

    Attributes:
        accuracy: share of the most frequent class.
        limit: that accuracy plus 2 standard deviations (binomial, for the number of test images).
        losses: the range of cross-entropies that count as near its loss.
    """

    accuracy: float
    limit: float
    losses: tuple[float, float]


def chance_level(run: Run) -> Chance | None:
    """Returns the level of chance; None for one class. Without stored labels, classes count as equally frequent."""
    classes = len(run.classes)
    tested = int(run.data.get("counts", {}).get("test", 0))
    if classes < 2 or not (tested or run.labels is not None):
        return None
    counts = np.full(classes, tested / classes) if run.labels is None else np.bincount(run.labels, minlength=classes)
    shares = counts / counts.sum()
    accuracy, there = float(shares.max()), shares[shares > 0]
    limit = accuracy + 2 * math.sqrt(accuracy * (1 - accuracy) / counts.sum())
    return Chance(accuracy, limit, (_NEAR[0] * float(-there @ np.log(there)), _NEAR[1] * math.log(classes)))


@once_per_run
def stuck_trials(run: Run) -> pd.DataFrame:
    """Returns the trials that never left chance, without diverged ones.

    A trial is stuck if its test accuracy is within the noise of chance, its test loss is near that of chance, and its
    training accuracy exceeded that noise in no epoch.
    """
    chance = chance_level(run)
    if chance is None or chance.limit >= 1 or run.ok.empty:
        return run.ok[:0]
    low, high = chance.losses
    at_chance = (run.ok["test_accuracy"] <= chance.limit) & run.ok["test_loss"].between(low, high)
    learned = run.epochs[run.epochs["train_accuracy"] > chance.limit].groupby("member")["epoch"].min()
    first = run.ok["member"].map(learned).fillna(math.inf)
    return run.ok[at_chance & (first > run.ok["epochs_run"])]


def stuck_by_configuration(run: Run) -> dict[int, int]:
    """Returns the number of trials that never left chance, of each configuration that has some; the most first."""
    counts = stuck_trials(run)["configuration"].value_counts()
    return dict(zip(counts.index.tolist(), counts.tolist(), strict=True))


def configurations_at_chance(run: Run) -> list[int]:
    """Returns the configurations whose mean test accuracy over seeds does not exceed the noise of chance."""
    chance = chance_level(run)
    if chance is None:
        return []
    return [
        int(configuration)
        for configuration in run.configurations.index[run.configurations["test_accuracy"] <= chance.limit]
    ]
