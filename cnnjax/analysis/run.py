"""A run's trials and epochs as data frames, and numbers computed from them."""

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from cnnjax import stats
from cnnjax.analysis.columns import axes_of, bounds, is_argument, larger_is_better, level, repeats_of, word
from cnnjax.runs.integrity import Damaged, read_array
from cnnjax.study.hparams import BY_COLUMN
from cnnjax.study.metrics import NAMES, columns_of, of_epochs
from cnnjax.utils.text import counted

_Result = TypeVar("_Result")
_Others = ParamSpec("_Others")


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of a run's folder.

    A configuration is a point of the grid: a trial without its seed and streams. The column `configuration` of `trials`
    numbers the configurations.

    Attributes:
        workdir: the folder.
        config: config.json.
        environment: environment.json.
        data: data.json.
        plan: plan.json.
        trials: one row per finished trial.
        epochs: one row per trained member and epoch.
        planned_select: the measure that the study selects by, if the reader asked for another one; else None.
        results: results of functions decorated by `once_per_run`.
    """

    workdir: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    plan: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    planned_select: str | None = None
    results: dict[tuple, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def ok(self) -> pd.DataFrame:
        """The trials that did not diverge."""
        return self.trials[self.trials["status"] != "diverged"]

    @cached_property
    def history(self) -> pd.DataFrame:
        """The epochs of members that did not diverge. A member has the configuration of its longest trial."""
        trained = self.ok.sort_values("epochs", kind="stable").drop_duplicates("member", keep="last")
        return self.epochs.merge(trained[["member", "configuration"]].sort_index(), on="member")

    def history_of(self, configurations: Iterable[int]) -> pd.DataFrame:
        """The epochs of the trials of some configurations, with those of trials that are read off longer ones."""
        trials = self.ok.loc[
            self.ok["configuration"].isin(list(configurations)), ["member", "configuration", "epochs_run"]
        ]
        history = self.epochs.merge(trials, on="member")
        return history[history["epoch"] <= history["epochs_run"]]

    @property
    def diverged(self) -> int:
        """The number of diverged trials."""
        return len(self.trials) - len(self.ok)

    @property
    def planned(self) -> int:
        """The number of trials of the study, finished or not."""
        return max(int(self.plan.get("trials", 0)), len(self.trials))

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return [str(name) for name in self.data["classes"]]

    @property
    def select(self) -> str:
        """The column of `trials` by which the study selects."""
        return str(self.config["select"])

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """The built-in measures and those of the study's own metrics. Columns that were not recorded are NaN."""
        return columns_of(self.config.get("metrics", NAMES))

    @property
    def epoch_measures(self) -> tuple[str, ...]:
        """Those of them that are recorded for each epoch."""
        return of_epochs(self.measures)

    @property
    def selects_on_test(self) -> bool:
        """Whether the study selects by a measure of the test split."""
        return self.select.startswith("test_")

    @cached_property
    def axes(self) -> list[str]:
        """The axes of the grid, and the arguments of optimizers."""
        return axes_of(self.trials)

    @cached_property
    def varying(self) -> list[str]:
        """The axes with several values. An axis whose value follows from the optimizer does not count."""
        return [axis for axis in self.axes if self._varies(axis)]

    def _varies(self, axis: str) -> bool:
        if is_argument(axis) or (axis in BY_COLUMN and BY_COLUMN[axis].optimizers):
            return bool((self.trials.groupby("optimizer")[axis].nunique() > 1).any())
        return self.trials[axis].nunique(dropna=False) > 1

    @cached_property
    def configurations(self) -> pd.DataFrame:
        """One row per configuration: axes, `n`, `diverged`, and each measure's mean over seeds."""
        by_configuration = self.trials.groupby("configuration")
        axes = by_configuration[self.axes].first()
        means = self.ok.groupby("configuration")[list(self.measures)].mean()
        n = self.ok.groupby("configuration").size().reindex(axes.index, fill_value=0)
        return axes.assign(n=n, diverged=by_configuration.size() - n).join(means)

    @cached_property
    def crossed(self) -> list[str]:
        """The random streams that the study crosses: trials of a configuration share them."""
        streams = self.config.get("streams", {}).items()
        return [name for name, seeds in streams if isinstance(seeds, list) and len(seeds) > 1]

    @cached_property
    def folds(self) -> int:
        """The number of folds of cross-validation; 0 without."""
        return int(self.trials["fold"].nunique())

    @property
    def folds_note(self) -> str:
        """What the spread over folds says, one sentence that begins with a space; empty without folds."""
        if not self.folds:
            return ""
        return (
            f" Trials are of {self.folds} folds, which share training images: their spread is not that of seeds, and "
            "intervals and tests take them for independent, which is too optimistic (Bengio and Grandvalet 2004)."
        )

    @property
    def repeats(self) -> str:
        """What the trials of a configuration are called: seeds if they are independent of each other."""
        if self.crossed:
            return "trainings"
        if self.folds:
            return "folds" if self.trials["seed"].nunique() == 1 else "folds and seeds"
        return "seeds" if self.configurations["n"].max() > 1 else "seed"

    def by_seed(self, configuration: int, measure: str) -> dict[Hashable, float]:
        """The values of a measure over the trials of a configuration, by seed, streams and fold, if it has one."""
        trials = self._of(configuration)
        values = dict(zip(trials["trial"].tolist(), trials[measure].tolist(), strict=True))
        found = {key: values[trial] for key, trial in self.keys(configuration).items()}
        return {key: value for key, value in found.items() if not math.isnan(value)}

    def keys(self, configuration: int) -> dict[Hashable, str]:
        """The trials of a configuration that did not diverge, by seed, streams and fold."""
        trials = self._of(configuration)
        keys = zip(*(trials[name].tolist() for name in self._repeats), strict=True)
        return dict(zip(keys, trials["trial"].tolist(), strict=True))

    @cached_property
    def _repeats(self) -> list[str]:
        return repeats_of(self.trials)

    def values(self, configuration: int, measure: str) -> list[float]:
        """The values of a measure over the trials of a configuration; missing ones are left out."""
        return [value for value in self._of(configuration)[measure].tolist() if not math.isnan(value)]

    def _of(self, configuration: int) -> pd.DataFrame:
        return self._trials_of.get(configuration, self.ok[:0])

    @cached_property
    def _trials_of(self) -> dict[int, pd.DataFrame]:
        return {int(configuration): trials for configuration, trials in self.ok.groupby("configuration")}  # type: ignore[call-overload]

    def summary(self, configuration: int, measure: str) -> stats.Summary | None:
        """Summarizes a measure over the seeds of a configuration, with bounds on the interval; None without values."""
        values = self.values(configuration, measure)
        return stats.summarize(values, bounds(measure)) if values else None

    def seed_std(self, configurations: Sequence[int], measure: str) -> float:
        """The standard deviation across seeds within one configuration, pooled over `configurations`."""
        groups = (self.values(configuration, measure) for configuration in configurations)
        return stats.pooled_std(group for group in groups if group)

    @cached_property
    def complete_seeds(self) -> pd.Series:
        """The number of seeds of the study with which each configuration has a value of the study's measure.

        Seeds that were added to single configurations do not count, and are subtracted if they have no value. So the
        configurations that lost no seed have the largest number.
        """
        has_value = (self.trials["status"] != "diverged") & self.trials[self.select].notna()
        is_added = ~self.trials["seed"].isin(self.config["seeds"]) if self.config.get("added") else False
        counts = has_value & ~is_added
        lost = ~has_value & is_added
        return (counts.astype(int) - lost.astype(int)).groupby(self.trials["configuration"]).sum()

    @cached_property
    def ranked(self) -> list[int]:
        """The configurations by their mean of the study's measure, the best first.

        Configurations that lost seeds to divergence come last: their mean is over the lucky seeds only.
        """
        scored = self.configurations.assign(n=self.complete_seeds)[self.configurations[self.select].notna()]
        order = scored.sort_values(
            ["n", self.select], ascending=[False, not larger_is_better(self.select)], kind="stable"
        )
        return [int(configuration) for configuration in order.index]

    @property
    def best(self) -> int | None:
        """The configuration that the study selects; None if no configuration has a value."""
        return self.ranked[0] if self.ranked else None

    @cached_property
    def best_of_models(self) -> dict[str, int]:
        """The best configuration of each model that has one."""
        best = {
            str(self.configurations.loc[configuration, "model"]): configuration
            for configuration in reversed(self.ranked)
        }
        return {model: best[model] for model in self.configurations["model"].unique() if model in best}

    def foremost(self, count: int) -> dict[int, str]:
        """Up to `count` configurations that figures show, the best first, each with its short name.

        With several models these are the best configurations of each, with one model the best of all.
        """
        several = len(self.best_of_models) > 1
        shown = [s for s in self.ranked if not several or s in self.best_of_models.values()]
        return {configuration: self.tell_apart(configuration) for configuration in shown[:count]}

    def tell_apart(self, configuration: int) -> str:
        """The short name of a configuration: its values of the axes that vary."""
        row = self.configurations.loc[configuration]
        named = [str(row[a]) if a in ("model", "optimizer") else f"{word(a)} {level(a, row[a])}" for a in self.varying]
        return ", ".join(named) or str(row["model"])

    def describe(self, configuration: int) -> str:
        """The full name of a configuration: its main axes, and all others that vary."""
        row = self.configurations.loc[configuration]
        main = {
            "model": row["model"],
            "optimizer": f"{row['optimizer']}",
            "learning_rate": f"learning rate {row['learning_rate']:g}",
            "batch_size": f"batch size {row['batch_size']}",
            "epochs": counted(row["epochs"], "epoch"),
        }
        rest = [f"{word(a)} {level(a, row[a])}" for a in self.varying if a not in main]
        return ", ".join([*main.values(), *rest])

    @cached_property
    def images(self) -> np.ndarray | None:
        """Thumbnails of the first test images, uint8 [M, h, w, C]; None if the folder has none."""
        path = self.workdir / "predictions" / "images.npz"
        return read_array(path, "images", (None,) * 4) if path.exists() else None

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The labels of the test images [N], of the first split if trials differ in it; None if the folder has none."""
        return self._read_labels("labels")

    def _read_labels(self, name: str) -> np.ndarray | None:
        path = self.workdir / "predictions" / f"{name}.npz"
        if not path.exists():
            return None
        labels = read_array(path, "labels", (None,))
        if labels.dtype.kind not in "ui" or not ((labels >= 0) & (labels < len(self.classes))).all():
            raise Damaged(path, f"a label is none of {len(self.classes)} classes")
        return labels

    def predictions(self, configuration: int) -> tuple[list[np.ndarray], np.ndarray] | None:
        """The test logits [N, K] of each trial of a configuration, and the labels [N]; None if a file is missing.

        If trials differ in their test split, only those that were tested on the first one count.

        Raises:
            Damaged: the checksum of a file does not match.
        """
        logits = self.logits(self.tested_alike(self._of(configuration))["trial"])
        return None if self.labels is None or not logits else (logits, self.labels)

    def tested_alike(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Returns the trials that were tested on the images of `labels`."""
        return trials[trials["stream_split"] == self._test_splits[0]] if self._test_splits else trials

    @property
    def _test_splits(self) -> list[int]:
        """The seeds of the split stream, the first one first, if trials differ in their test split."""
        return list(self.data.get("test_splits", ()))

    def tested(self, configuration: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The test logits [N, K] of each trial of a configuration and its labels [N]; empty if a file is missing.

        Raises:
            Damaged: the checksum of a file does not match.
        """
        trials = self._of(configuration)
        logits = self.logits(trials["trial"])
        splits = trials["stream_split"].astype(int) if self._test_splits else None
        names = ["labels"] * len(trials) if splits is None else [f"labels_split{split}" for split in splits]
        labels = {name: self._read_labels(name) for name in dict.fromkeys(names)}
        if not logits or any(of_split is None for of_split in labels.values()):
            return []
        return [(of_trial, labels[name]) for of_trial, name in zip(logits, names, strict=True)]  # type: ignore[misc]

    def logits(self, trials: Iterable[str]) -> list[np.ndarray] | None:
        """The test logits [N, K] of each trial; None if one of these files, or that of the labels, is missing.

        Raises:
            Damaged: the checksum of a file does not match.
        """
        paths = [self.workdir / "predictions" / f"{trial}.npz" for trial in trials]
        if self.labels is None or not all(path.exists() for path in paths):
            return None
        shape = len(self.labels), len(self.classes)
        return [read_array(path, "logits", shape) for path in paths]


def once_per_run(
    function: Callable[Concatenate[Run, _Others], _Result],
) -> Callable[Concatenate[Run, _Others], _Result]:
    """Makes a function of a run compute its result once per run and other arguments: tables and figures share it."""

    @functools.wraps(function)
    def shared(run: Run, *args: _Others.args, **kwargs: _Others.kwargs) -> _Result:
        key = function, args, (*kwargs.items(),)
        if key not in run.results:
            run.results[key] = function(run, *args, **kwargs)
        return run.results[key]

    return shared
