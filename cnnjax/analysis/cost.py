"""What training took: seconds and images of a study, and of its configurations against their accuracy."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from cnnjax.analysis.run import Run


class Cost(NamedTuple):
    """Seconds of training, and training images."""

    seconds: float
    images: int


def study_cost(run: Run) -> Cost:
    """Returns the cost of all finished training. A member counts once, whatever number of trials is read off it.

    A member's seconds are its share of the time of the members that trained together.
    """
    seconds = run.trials.groupby("member")["seconds"].max().sum()
    # The last epoch may be a part of one.
    missing = (run.trials["epochs_run"] - run.trials["epochs"].astype(float)).clip(lower=0)
    missing = missing.groupby(run.trials["member"]).max().sum()
    return Cost(float(seconds), round((len(run.epochs) - missing) * _training_images(run)))


def _training_images(run: Run) -> int:
    return int(run.data.get("counts", {}).get("train", 0))


def by_configuration(run: Run) -> pd.DataFrame:
    """Returns the cost of a training of each configuration, and what it reaches; without diverged trials.

    Returns:
        A frame with the configurations as index, and the columns `seconds`, `images` and `test_accuracy` (means over
        the seeds) and `is_front`: no other configuration is at least as accurate in less time.
    """
    passes = run.ok[["epochs_run", "epochs"]].astype(float).min(axis=1)
    trials = run.ok.assign(images=passes * _training_images(run))
    frame = trials.groupby("configuration")[["seconds", "images", "test_accuracy"]].mean().dropna()
    return frame.assign(is_front=pareto_front(frame["seconds"].to_numpy(), frame["test_accuracy"].to_numpy()))


def pareto_front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns which points no other point dominates, bool [N].

    A point dominates another if it costs at most as much and is worth at least as much, and differs in one of them.

    Args:
        costs: smaller is better [N].
        values: larger is better [N].
    """
    order = np.lexsort((-values, costs))  # by cost, the best of equal costs first
    best = np.maximum.accumulate(np.concatenate([[-np.inf], values[order]]))[:-1]
    front = np.zeros(len(costs), bool)
    front[order] = values[order] > best
    for point in np.flatnonzero(front):  # equal points are all in front
        front |= (costs == costs[point]) & (values == values[point])
    return front
