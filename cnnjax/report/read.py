"""A run's folder, read: its trials, its histories, and what they say about each setting."""

import dataclasses
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnjax import stats
from cnnjax.records import RunFolder
from cnnjax.report.names import AXES, MEASURES, bounds, larger_is_better, level, measure_name, word
from cnnjax.sealed import Damaged, read_array, read_json, read_lines, read_rows
from cnnjax.stopping import METRICS
from cnnjax.study import SELECT, from_run
from cnnjax.trial_rows import read_table
from cnnjax.types import RequestError, counted, one_of

_LATER = ("later_stages", "val_precision", "val_recall", "val_f1")  # columns that older runs lack
_COSTS = ("epochs_run", "best_epoch", "seconds", "images_per_second")
_COLUMNS = (
    *("trial", "member", *AXES, "seed", "status"),
    *MEASURES,
    *_COSTS,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's folder holds.

    A setting is a trial without its seed and streams; `setting` numbers them in `trials`.
    `trials` has one row per finished trial, `epochs` one per trained member and epoch.
    """

    workdir: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    plan: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    planned_select: str | None = None  # what the study selects by, where this reader asked for another measure

    @cached_property
    def ok(self) -> pd.DataFrame:
        """The trials that did not diverge."""
        return self.trials[self.trials["status"] != "diverged"]

    @cached_property
    def history(self) -> pd.DataFrame:
        """The epochs of members that did not diverge; a member belongs to the setting of its longest trial."""
        trained = self.ok[["trial", "setting"]]
        return self.epochs.merge(trained, left_on="member", right_on="trial").drop(columns="trial")

    def history_of(self, settings: Iterable[int]) -> pd.DataFrame:
        """The epochs of each setting's trials, also of those that are read off a longer one."""
        trials = self.ok.loc[self.ok["setting"].isin(list(settings)), ["member", "setting", "epochs_run"]]
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
        """The column of `trials` that the study selects by."""
        return _column(str(self.config["select"]))

    @property
    def selects_on_test(self) -> bool:
        """Whether the test split says which setting is best."""
        return measure_name(self.select).startswith("test")

    @cached_property
    def varying(self) -> list[str]:
        """The axes that take several values; one that only follows the optimizer does not count."""
        return [axis for axis in AXES if self._varies(axis)]

    def _varies(self, axis: str) -> bool:
        if axis in ("momentum", "nesterov"):  # adam has none
            return bool((self.trials.groupby("optimizer")[axis].nunique() > 1).any())
        return self.trials[axis].nunique(dropna=False) > 1

    @cached_property
    def settings(self) -> pd.DataFrame:
        """One row per setting: axes, `n`, `diverged`, and each measure's mean over seeds."""
        by_setting = self.trials.groupby("setting")
        axes = by_setting[list(AXES)].first()
        means = self.ok.groupby("setting")[list(MEASURES)].mean()
        n = self.ok.groupby("setting").size().reindex(axes.index, fill_value=0)
        return axes.assign(n=n, diverged=by_setting.size() - n).join(means)

    @cached_property
    def crossed(self) -> list[str]:
        """The random streams that the study crosses, so that trials of a setting share them."""
        streams = self.config.get("streams", {}).items()
        return [name for name, seeds in streams if isinstance(seeds, list) and len(seeds) > 1]

    @property
    def repeats(self) -> str:
        """What the trials of a setting are called: seeds, where they are independent of each other."""
        return "trainings" if self.crossed else "seeds" if self.settings["n"].max() > 1 else "seed"

    def by_seed(self, setting: int, measure: str) -> dict[Hashable, float]:
        """The measure of each of a setting's trials that has it, by its seed and streams."""
        trials = self._trials_of.get(setting, self.ok[:0])
        names = ["seed", *(column for column in trials if column.startswith("stream_"))]
        keys = zip(*(trials[name].tolist() for name in names), strict=True)
        found = dict(zip(keys, trials[measure].tolist(), strict=True))
        return {key: value for key, value in found.items() if not math.isnan(value)}

    def values(self, setting: int, measure: str) -> list[float]:
        """The measure of each of a setting's trials (those that have it)."""
        trials = self._trials_of.get(setting)
        return [] if trials is None else [value for value in trials[measure].tolist() if not math.isnan(value)]

    @cached_property
    def _trials_of(self) -> dict[int, pd.DataFrame]:
        return {int(setting): trials for setting, trials in self.ok.groupby("setting")}  # type: ignore[call-overload]

    def summary(self, setting: int, measure: str) -> stats.Summary | None:
        """A setting's measure over its seeds, the interval cut where the measure ends; None without a value."""
        values = self.values(setting, measure)
        return stats.summarise(values, bounds(measure)) if values else None

    def seed_std(self, settings: Sequence[int], measure: str) -> float:
        """The standard deviation across seeds within one setting, pooled over `settings`."""
        groups = (self.values(setting, measure) for setting in settings)
        return stats.pooled_std(group for group in groups if group)

    @cached_property
    def ranked(self) -> list[int]:
        """The settings by their mean of the study's measure, the best first; of those with the most seeds left.

        A setting that lost seeds to divergence would be judged by its lucky ones: it comes behind.
        """
        n = self.ok.groupby("setting")[self.select].count()
        scored = self.settings.assign(n=n)[self.settings[self.select].notna()]
        order = scored.sort_values(
            ["n", self.select], ascending=[False, not larger_is_better(self.select)], kind="stable"
        )
        return [int(setting) for setting in order.index]

    @property
    def best(self) -> int | None:
        """The setting that the study selects; None without a value to select by."""
        return self.ranked[0] if self.ranked else None

    @cached_property
    def best_of_models(self) -> dict[str, int]:
        """Each model's best setting, of the models that have one."""
        best = {str(self.settings.loc[setting, "model"]): setting for setting in reversed(self.ranked)}
        return {model: best[model] for model in self.settings["model"].unique() if model in best}

    def foremost(self, count: int) -> dict[int, str]:
        """The settings that are worth a closer look, the best first, and what tells them apart.

        Each model's best setting or, of one model, the best of all settings; by the study's measure, `count` at most.
        """
        several = len(self.best_of_models) > 1
        shown = [s for s in self.ranked if not several or s in self.best_of_models.values()]
        return {setting: self.tell_apart(setting) for setting in shown[:count]}

    def tell_apart(self, setting: int) -> str:
        """Names a setting by what the study varies."""
        row = self.settings.loc[setting]
        named = [str(row[a]) if a in ("model", "optimizer") else f"{word(a)} {level(a, row[a])}" for a in self.varying]
        return ", ".join(named) or str(row["model"])

    def describe(self, setting: int) -> str:
        """Names a setting by its main axes and whatever else the study varies."""
        row = self.settings.loc[setting]
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
        """The first test images, small, uint8 [M, h, w, C]; None where the folder has none."""
        path = self.workdir / "predictions" / "images.npz"
        return read_array(path, "images", (None,) * 4) if path.exists() else None

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The labels of the test images [N]; None where the folder has none."""
        path = self.workdir / "predictions" / "labels.npz"
        if not path.exists():
            return None
        labels = read_array(path, "labels", (None,))
        if labels.dtype.kind not in "ui" or not ((labels >= 0) & (labels < len(self.classes))).all():
            raise Damaged(path, f"a label is none of {len(self.classes)} classes")
        return labels

    def predictions(self, setting: int) -> tuple[list[np.ndarray], np.ndarray] | None:
        """The test logits [N, K] of each of a setting's trials, and the labels [N]; None where a file is missing.

        Raises:
            Damaged: a file is not what was written.
        """
        logits = self.logits(self.ok.loc[self.ok["setting"] == setting, "trial"])
        return None if self.labels is None or not logits else (logits, self.labels)

    def logits(self, trials: Iterable[str]) -> list[np.ndarray] | None:
        """The test logits [N, K] of each trial; None where a file, or that of the labels, is missing.

        Raises:
            Damaged: a file is not what was written.
        """
        paths = [self.workdir / "predictions" / f"{trial}.npz" for trial in trials]
        if self.labels is None or not all(path.exists() for path in paths):
            return None
        shape = len(self.labels), len(self.classes)
        return [read_array(path, "logits", shape) for path in paths]


def read_run(workdir: Path, select: str | None = None) -> Run:
    """Reads a run's folder, finished or not.

    Args:
        workdir: the folder.
        select: the measure to rank by; the default is the study's own.

    Raises:
        RequestError: `select` is no measure of this run, or the folder is not there, is not a run's, or a file of it
            is not what was written.
    """
    RunFolder(workdir).check_links(without=["checkpoints"])
    if not (workdir / "config.json").is_file():
        raise RequestError("workdir", str(workdir), "allowed: a run's folder (with config.json)")
    read = {n: _json(workdir / f"{n}.json") for n in ("config", "environment", "data", "plan")}
    for name, key in (("config", "select"), ("data", "classes"), ("plan", "trials")):
        if key not in read[name]:
            raise RequestError("workdir", str(workdir), f"{name}.json has no {key!r}: not a run's")
    try:
        from_run(read["config"])
    except RequestError as error:
        raise RequestError("workdir", str(workdir), f"its config.json is no study ({error})") from error
    planned = None
    if select is not None:
        planned, read["config"]["select"] = read["config"]["select"], _checked_select(read["config"], select)
    trials, epochs = _trials(workdir / "trials.csv"), _epochs(workdir / "metrics.jsonl")
    _check_complete(workdir / "metrics.jsonl", trials, epochs)
    run = Run(workdir, **read, trials=trials, epochs=epochs, planned_select=planned)
    if select is not None and len(trials) and trials[run.select].isna().all():
        recorded = [name for name in SELECT if not trials[_column(name)].isna().all()]
        raise RequestError("--select", select, f"the run has not recorded it; allowed: {', '.join(recorded)}")
    return run


def _checked_select(config: dict[str, Any], select: str) -> str:
    try:
        return from_run({**config, "select": select}).select
    except RequestError as error:
        what = str(error).partition("; ")[2] if select in SELECT else one_of(select, SELECT)
        raise RequestError("--select", select, what) from error


def _column(select: str) -> str:
    """Returns the column of trials.csv that a study selects by: f1 alone is that of the test split."""
    of_test = select.removeprefix("test_")
    return of_test if of_test in MEASURES else select


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise RequestError("workdir", str(path.parent), f"it has no {path.name}") from None


def _trials(path: Path) -> pd.DataFrame:
    """One row per trial; no file, or an empty one, is a study that has just begun."""
    _refuse_damaged(path, read_rows(path).damaged)
    try:
        trials = read_table(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        trials = pd.DataFrame(columns=list(_COLUMNS))
    for column in _LATER:
        if column not in trials:  # as in runs from before it was written down
            trials = trials.assign(**{column: None})
    missing = [column for column in _COLUMNS if column not in trials]
    if missing:
        raise RequestError("workdir", str(path), f"it has no column {missing[0]!r}")
    for trial in trials["trial"]:
        if not re.fullmatch(r"t\d+", str(trial)):  # it is part of file names
            raise RequestError("workdir", str(path), f"it has a trial {trial!r}; allowed: t0000 and so on")
    measured = _floats(path, trials[[*MEASURES, *_COSTS]])
    setting = trials.groupby(list(AXES), sort=False, dropna=False).ngroup()
    return trials.assign(**dict(measured.items()), setting=setting)


def _epochs(path: Path) -> pd.DataFrame:
    """One row per trained member and epoch; what is not there, or was not finite, is NaN."""
    columns = ["member", "epoch", *METRICS]
    lines = read_lines(path)
    _refuse_damaged(path, lines.damaged)
    epochs = pd.DataFrame([line for line in lines.whole if "member" in line], columns=columns)
    return epochs.assign(**dict(_floats(path, epochs[list(METRICS)]).items()))


def _floats(path: Path, values: pd.DataFrame) -> pd.DataFrame:
    try:
        return values.astype(float)
    except (ValueError, TypeError) as error:
        raise Damaged(path, str(error)) from error


def _refuse_damaged(path: Path, lines: list[int]) -> None:
    if lines:
        raise Damaged(f"{path}, line {lines[0]}", "it is not what was written")


def _check_complete(path: Path, trials: pd.DataFrame, epochs: pd.DataFrame) -> None:
    """Refuses trials without all of their epochs, which would be missing from means over seeds."""
    there = set(zip(epochs["member"], epochs["epoch"], strict=True))
    for row in trials.dropna(subset=["epochs_run"]).itertuples():
        lost = (epoch for epoch in range(1, int(row.epochs_run) + 1) if (row.member, epoch) not in there)
        if (first := next(lost, None)) is not None:
            raise Damaged(path, f"it lacks epoch {first} of {row.member}")
