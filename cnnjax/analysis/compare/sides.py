"""One side of a comparison: a configuration of a run, and how it was selected."""

import dataclasses
import re
from collections.abc import Hashable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cnnjax.analysis.chance import stuck_trials
from cnnjax.analysis.columns import REPEATS, repeats_of
from cnnjax.analysis.read import read_run
from cnnjax.analysis.run import Run
from cnnjax.runs import remote
from cnnjax.study.hparams import STREAM_COLUMNS
from cnnjax.utils.errors import RequestError, one_of
from cnnjax.utils.text import completed, composed


@dataclasses.dataclass(frozen=True)
class Side:
    """A configuration's trials that did not diverge.

    Attributes:
        asked: the argument of the command line.
        place: the run's folder, or its URL.
        run: the run.
        configuration: the number of the configuration in the run.
        trials: its rows of the run's trials.
        diverged: the number of its trials that diverged.
        rivals: the number of configurations of which it is the best by the run's `select`; 1 if it was asked for.
    """

    asked: str
    place: str
    run: Run
    configuration: int
    trials: pd.DataFrame
    diverged: int
    rivals: int

    @property
    def description(self) -> str:
        """The name of the configuration."""
        return self.run.describe(self.configuration)

    @property
    def fixed(self) -> list[str]:
        """The random streams that all of several trials share. The splits are shared by default, and do not count."""
        return [name for name, levels in self._levels.items() if levels == 1 < len(self.trials) and name != "split"]

    @property
    def crossed(self) -> list[str]:
        """The random streams that some trials share, so that they are not independent. Folds share the others."""
        trials = len(self.trials[["seed", *self._streams]].drop_duplicates())
        return [name for name, levels in self._levels.items() if 1 < levels < trials]

    @property
    def _levels(self) -> dict[str, int]:
        return {name.removeprefix("stream_"): self.trials[name].nunique() for name in self._streams}

    @property
    def _streams(self) -> list[str]:
        return [name for name in STREAM_COLUMNS if name in self.trials]

    def values(self, measure: str) -> dict[Hashable, float]:
        """The values of a measure over the trials, by seed, streams and fold.

        Raises:
            RequestError: the measure does not exist, or no trial has it.
        """
        if measure not in self.run.measures:
            raise RequestError("--measure", measure, one_of(measure, self.run.measures))
        measured = self.trials[self.trials[measure].notna()]
        if measured.empty:
            has = [name for name in self.run.measures if self.trials[name].notna().any()]
            raise RequestError("--measure", measure, f"{self.asked} has no such values; use one of {', '.join(has)}")
        return dict(zip(self._keys(measured), measured[measure], strict=True))

    @property
    def stuck(self) -> set[Hashable]:
        """The seeds and streams of trials that never left chance; none if no other trial did."""
        return set() if self.is_stuck else {*self._keys(self._stuck_trials)}

    @property
    def is_stuck(self) -> bool:
        """Whether no trial ever left chance."""
        return len(self._stuck_trials) == len(self.trials)

    @property
    def _stuck_trials(self) -> pd.DataFrame:
        return self.trials[self.trials["trial"].isin(stuck_trials(self.run)["trial"])]

    @staticmethod
    def _keys(trials: pd.DataFrame) -> Iterator[Hashable]:
        return trials[repeats_of(trials)].itertuples(index=False, name=None)

    @cached_property
    def logits(self) -> list[np.ndarray] | None:
        """The test logits [N, K] of each trial that was tested on the images of `Run.labels`; None if one is missing.

        Raises:
            Damaged: the checksum of a file does not match.
        """
        return self.run.logits(self.run.tested_alike(self.trials)["trial"])


def read_side(asked: str) -> Side:
    """Reads the side `RUN` or `RUN:key=value,...` of a comparison.

    It is the best configuration by the run's `select` among the trials with these values in columns of trials.csv.

    Raises:
        RequestError: the run cannot be read, a key or value is wrong, or no such trial has finished.
    """
    path, selector = _split(asked)
    run = read_run(remote.copied(path, without=remote.LARGE))
    if not len(run.ok):
        raise RequestError("workdir", path, "none of its trials has finished without diverging")
    chosen = pd.Series(True, index=run.trials.index)
    for condition in filter(None, selector.split(",")):
        key, equals, value = condition.partition("=")
        keys = ("trial", *run.axes, *REPEATS)
        if not equals or key not in keys or key not in run.trials:
            raise RequestError("selector", condition, f"write key=value; {one_of(key, keys)}")
        chosen &= _matches(run.trials[key], key, value)
    trials = run.trials[chosen]
    ended = trials[trials["status"] != "diverged"]
    if ended.empty:
        how = "all such trials diverged" if len(trials) else "no finished trial has these values together"
        raise RequestError("selector", selector, how)
    candidates = run.configurations.loc[sorted(ended["configuration"].unique())]
    configuration = next((configuration for configuration in run.ranked if configuration in candidates.index), None)
    if configuration is None:
        raise RequestError("selector", selector, f"none of the {len(candidates)} configurations has a {run.select}")
    of_configuration = ended[ended["configuration"] == configuration]
    diverged = int(((trials["configuration"] == configuration) & (trials["status"] == "diverged")).sum())
    place = path if remote.is_url(path) else str(run.workdir)
    return Side(asked, place, run, configuration, of_configuration, diverged, len(candidates))


def _split(asked: str) -> tuple[str, str]:
    """Splits a folder or URL from a selector. Both may contain colons: schedule=warmup:1."""
    colons = [found.start() for found in re.finditer(":(?!//)", asked)]
    if not colons or Path(asked).is_dir():
        return asked, ""
    folders = (colon for colon in reversed(colons) if Path(asked[:colon]).is_dir())
    selects = re.search(r":(?=\w+=)", asked)
    colon = next(folders, selects.start() if selects else colons[-1])
    return asked[:colon], asked[colon + 1 :]


def _matches(column: pd.Series, key: str, value: str) -> pd.Series:
    if value == "None":
        found = column.isna()
    elif pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        try:
            found = column == float(value)
        except ValueError:
            raise RequestError(f"selector {key}", value, "must be a number or None") from None
    else:
        named = completed(value, column) if key == "trial" else composed(value)
        found = column.astype(str).map(composed) == named
    if not found.any():
        there = ["None" if pd.isna(level) else str(level) for level in column.unique()]
        shown = one_of(value, there) if len(there) <= 20 else f"must be one of {there[0]} to {there[-1]}"
        raise RequestError(f"selector {key}", value, shown)
    return found
