"""A search beside simple ones, from its records: random search, and dropping all but the best after one epoch."""

import math
from typing import NamedTuple

import pandas as pd

from cnnjax import stats
from cnnjax.analysis.columns import larger_is_better
from cnnjax.analysis.run import Run, once_per_run
from cnnjax.study.hparams import HPARAMS
from cnnjax.study.optimizers import COLUMN, KEYS
from cnnjax.study.ranges import Range
from cnnjax.study.schema import Study, from_run
from cnnjax.study.search import ARGUMENTS, search_space


class Outcome(NamedTuple):
    """What a search finds.

    Attributes:
        search: its name.
        epochs: that it trains, of all its members together; NaN if unknown.
        score: the study's measure of the configuration that it finds; NaN if the records do not tell.
        test_accuracy: of that configuration.
    """

    search: str
    epochs: float
    score: float
    test_accuracy: float


def search_of(run: Run) -> Study | None:
    """Returns the study of a run if it is a search, else None."""
    study = from_run(run.config)
    return None if study.search.method == "grid" else study


def searched_columns(run: Run) -> dict[str, bool]:
    """Returns the columns of the hyperparameters that a search sets and that vary, and whether each is logarithmic."""
    study = search_of(run)
    if study is None:
        return {}
    arguments = [argument if argument in KEYS else f"{COLUMN}{argument}" for argument in study.train.optimizer_args]
    columns = {"models": ["model"]} | {h.key: [h.column] for h in HPARAMS} | {ARGUMENTS: arguments}
    found = {
        column: isinstance(one.values, Range) and one.values.is_log
        for one in search_space(study)
        for key in one.keys
        for column in columns[key]
    }
    return {column: is_log for column, is_log in found.items() if column in run.varying}


@once_per_run
def compare_searches(run: Run) -> list[Outcome]:
    """Returns what a search found, and what random search and a simple rule would have found; empty for a grid.

    A configuration that the search dropped counts with its last values, which more epochs would probably improve. A
    simple search trains one seed of each configuration if the search starts with one.
    """
    study = search_of(run)
    if study is None or run.best is None:
        return []
    configurations = run.configurations.loc[run.ranked]
    larger, longest = larger_is_better(run.select), max(study.train.epochs)
    seeds = 1 if study.search.method == "halving" else len(study.seeds)
    cost, each = len(run.epochs), longest * seeds
    scores, tests = configurations[run.select], configurations["test_accuracy"]

    def random_search(name: str, count: int, is_drawn: bool) -> Outcome:
        if not is_drawn or not 1 <= count <= len(scores):
            return Outcome(name, count * each, math.nan, math.nan)
        score, test = (stats.expected_best(scores, count, larger_is_better=larger, report=r) for r in (None, tests))
        return Outcome(name, count * each, score, test)

    best = configurations.loc[run.best]
    is_drawn = study.search.method != "optuna"  # its samplers do not draw at random
    count = max(1, round(cost / each))
    found = [
        Outcome(f"this search ({study.search.method})", cost, best[run.select], best["test_accuracy"]),
        random_search("random search of the same cost", count, is_drawn),
        random_search("random search of twice the cost", 2 * count, is_drawn),
    ]
    return [*found, *_one_epoch(run, longest * seeds, seeds)]


def _one_epoch(run: Run, each: int, seeds: int) -> list[Outcome]:
    """Returns what dropping all but the best after one epoch would have found (Egele et al. 2024)."""
    if run.select.startswith("test_"):
        return []
    history = run.history_of(run.ranked)
    first = history[history["epoch"] == 1].groupby("configuration")[run.select].mean()
    if first.empty or first.isna().all():
        return []
    chosen = first.idxmax() if larger_is_better(run.select) else first.idxmin()
    values: pd.Series = run.configurations.loc[chosen]
    epochs = (len(first) - 1) * seeds + each
    name = "all but the best dropped after one epoch"
    return [Outcome(name, epochs, float(values[run.select]), float(values["test_accuracy"]))]
