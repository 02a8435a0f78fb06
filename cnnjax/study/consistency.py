"""Checks that the values of a study do not contradict each other."""

from typing import TYPE_CHECKING

from cnnjax.study.augmentation import OF_TESTS, parse
from cnnjax.study.early_stopping import read_stopping
from cnnjax.study.metrics import selectable
from cnnjax.study.schedules import read_plateau
from cnnjax.utils.errors import RequestError

if TYPE_CHECKING:
    from cnnjax.study.schema import DataConfig, Study


def check_consistency(study: "Study") -> None:
    """Raises RequestError if the splits, the selection or the early stopping of a study need what it does not have."""
    _check_splits(study.data)
    _check_selection(study)
    _check_stopping(study)


def _check_stopping(study: "Study") -> None:
    for text in study.train.stopping:
        rule = read_stopping(text)
        if rule is not None and rule.metric not in study.measures:
            raise RequestError("train.early_stopping", text, _unrecorded(study))
        if rule is not None and rule.metric.startswith("val_") and not study.data.has_validation:
            problem = "needs a validation split; use data.validation=0.1, or data.validation_from='given'"
            raise RequestError("train.early_stopping", text, problem)
    for stage in study.train.stages or ({},):
        texts = (stage["schedule"],) if "schedule" in stage else study.train.schedule
        rules = (stage["early_stopping"],) if "early_stopping" in stage else study.train.early_stopping
        plateaus = [text for text in texts if read_plateau(text) is not None]
        if plateaus and "off" in rules and not study.data.has_validation:
            problem = (
                "it monitors a metric of a validation split; use data.validation=0.1, or early_stopping by train_loss"
            )
            raise RequestError("train.schedule", plateaus[0], problem)
    if len(study.train.stage_start) > 1 and not (study.data.has_validation or study.train.stops_early):
        problem = "needs a validation split or early stopping; use data.validation=0.1, or stage_start='last'"
        raise RequestError("train.stage_start", "best", problem)


def _check_splits(data: "DataConfig") -> None:
    for key in ("validation", "validation_from", "test"):
        value, default = getattr(data, key), getattr(type(data), key)
        if data.fractions and value not in (default, 0):
            raise RequestError(
                f"data.{key}", value, f"data.fractions sets the sizes of all splits; use the default {default!r}"
            )
    if data.validation and data.validation_from in ("same_as_test", "given"):
        split = "test split" if data.validation_from == "same_as_test" else "validation split of the source"
        problem = f"data.validation_from={data.validation_from!r} uses the whole {split}; use 0.0"
        raise RequestError("data.validation", data.validation, problem)
    for key, value, allowed in (
        ("validation", data.validation, None),
        ("validation_from", data.validation_from, "train"),
        ("fractions", data.fractions, ()),
    ):
        if data.folds and value != allowed:
            problem = f"each fold of data.folds validates on other training images; use the default {allowed!r}"
            raise RequestError(f"data.{key}", value, problem)
    if data.augment_test and not any(data.augment):
        raise RequestError(
            "data.augment_test", True, "data.augment is empty; use False, or name augmentations in data.augment"
        )
    of_training = [text for augment in data.augment for text in augment if parse(text).name not in OF_TESTS]
    if data.augment_test and of_training:
        problem = f"test images do not take {of_training[0]}; use False, or only {', '.join(OF_TESTS)}"
        raise RequestError("data.augment_test", True, problem)


def _unrecorded(study: "Study") -> str:
    """Returns the problem of a measure that a study does not record."""
    return f"the study does not record it; use one of {', '.join(selectable(study.measures))}, or add it to metrics"


def _check_selection(study: "Study") -> None:
    if study.select not in study.measures:
        raise RequestError("select", study.select, _unrecorded(study))
    if study.select.startswith("val_") and not study.data.has_validation:
        raise RequestError(
            "select",
            study.select,
            "needs a validation split; use data.validation=0.1, data.fractions, data.validation_from='given' if the "
            "source has a validation split, or select by "
            + ", ".join(name for name in selectable(study.measures) if not name.startswith("val_")),
        )
