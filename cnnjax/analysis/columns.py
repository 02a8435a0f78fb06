"""Axes and measures of trials: their columns, names, bounds and units, and how values are written."""

from typing import Any

import numpy as np
import pandas as pd

from cnnjax.study.hparams import BY_COLUMN, HPARAMS, STREAM_COLUMNS
from cnnjax.study.metrics import SPLITS, metric_of

MAIN_AXES = ("model", *(h.column for h in HPARAMS if h.is_main))
AXES = (*MAIN_AXES, *(h.column for h in HPARAMS if not (h.is_main or h.is_repeat)), "later_stages")
# What tells the trials of a configuration apart.
REPEATS = ("seed", *STREAM_COLUMNS, *(h.column for h in HPARAMS if h.is_repeat))


def repeats_of(trials: pd.DataFrame) -> list[str]:
    """The columns of `REPEATS` that trials have values in."""
    return [column for column in REPEATS if column in trials and trials[column].notna().any()]


def bounds(measure: str) -> tuple[float, float]:
    """The least and the greatest possible value of a measure."""
    metric = metric_of(measure)
    return metric.least, metric.most


def scale(measure: str) -> int:
    """The factor from a measure as stored to a measure as shown: 100 where it is shown in percent."""
    return 100 if metric_of(measure).is_percent else 1


def larger_is_better(measure: str) -> bool:
    """Whether larger values of a measure are better."""
    return metric_of(measure).larger_is_better


def measure_name(measure: str) -> str:
    """The name of a measure in words, with its split: `val_f1` is `validation macro F1`."""
    return f"{SPLITS[measure.partition('_')[0]]} {metric_of(measure).label}"


def measure_label(measure: str) -> str:
    """The label of an axis that shows a measure: its name with a capital letter, and its unit."""
    name = measure_name(measure)
    return name[0].upper() + name[1:] + (", %" if scale(measure) == 100 else "")


def kind_of(measure: str) -> str:
    """How tables show a measure, see `report.tables`: an accuracy in percent, another as a number."""
    return "percent" if scale(measure) == 100 else "number"


def word(axis: str) -> str:
    """The name of an axis in words."""
    return BY_COLUMN[axis].label if axis in BY_COLUMN else axis.replace("_", " ")


def level(axis: str, value: Any) -> str:
    """A value of an axis in words."""
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if pd.isna(value):
        return BY_COLUMN[axis].none_label if axis in BY_COLUMN else "off"
    return f"{value:g}"
