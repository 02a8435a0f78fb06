"""The axes and measures of trials: their columns, their words, and how a value is written."""

import math
from typing import Any

import numpy as np
import pandas as pd

AXES = (
    "model",
    "optimizer",
    "learning_rate",
    "batch_size",
    "epochs",
    "initialisation",
    "arithmetic",
    "convolution",
    "schedule",
    "momentum",
    "nesterov",
    "weight_decay",
    "decay",
    "clip_norm",
    "label_smoothing",
    "dropout_rate",
    "early_stopping",
    "stage_start",
    "later_stages",
    "shuffle",
    "drop_last",
)
MEASURES = (
    *(f"{split}_{name}" for split in ("train", "val", "test") for name in ("loss", "accuracy")),
    *("val_precision", "val_recall", "val_f1"),
    *("precision", "recall", "f1"),  # of the test split
)
_NAMES = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "val_precision": "validation macro precision",
    "val_recall": "validation macro recall",
    "val_f1": "validation macro F1",
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
    "precision": "test macro precision",
    "recall": "test macro recall",
    "f1": "test macro F1",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
}


def bounds(measure: str) -> tuple[float, float]:
    """The least and the greatest value that a measure can have."""
    return 0, math.inf if measure.endswith("loss") else 1


def scale(measure: str) -> int:
    """What a measure is multiplied by where it is drawn: 100 where that is percent."""
    return 100 if measure.endswith("accuracy") else 1


def larger_is_better(measure: str) -> bool:
    """Whether of two values of a measure the larger one is better."""
    return not measure.endswith("loss")


def measure_name(measure: str) -> str:
    """A measure in words, with the split it is of."""
    return _NAMES[measure]


def word(axis: str) -> str:
    """An axis in words."""
    return axis.replace("_", " ")


def level(axis: str, value: Any) -> str:
    """A value of an axis in words; a rate of dropout that is not set is the model's own."""
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if pd.isna(value):
        return "as in model" if axis == "dropout_rate" else "off"
    return f"{value:g}"
