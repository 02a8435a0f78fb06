"""A study's config: the validated, frozen form of what `configs/*.py` builds.

`from_config` is the border: behind it there are no ConfigDicts and no unchecked values. Each field says in its
metadata what it takes; a tuple in an axis field is an axis of the grid.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cnnjax.study import early_stopping as stopping
from cnnjax.study import schedules
from cnnjax.study.validation import (
    Rule,
    axis,
    build,
    check,
    choice,
    custom,
    fields_of,
    integer,
    is_int,
    is_number,
    none_or,
    number,
    plain,
    setting,
    several,
    together,
)
from cnnjax.utils.errors import RequestError, one_of

_SEED = integer(0, 2**32 - 1)
_NAME = Rule(lambda v: isinstance(v, str) and bool(v), "allowed: a name")
_CLASS = Rule(lambda v: (isinstance(v, str) and bool(v)) or (is_int(v) and v >= 0), "allowed: a class's name or number")
_FLAG = Rule(lambda v: isinstance(v, bool), "allowed: True or False")
_VALIDATION = Rule(
    lambda v: is_number(v) and (0 <= v < 1 or (is_int(v) and v >= 0)),
    "allowed: a share >= 0 and < 1, or a number of examples",
)
_FRACTIONS = Rule(
    lambda v: not v or (len(v) == 3 and all(is_number(x) and x > 0 for x in v) and abs(sum(v) - 1) < 1e-6),
    "allowed: three shares > 0 that add up to 1, of train, validation and test; or nothing",
)


MOST_EPOCHS = 100_000  # there is a table of them


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, split and seen how."""

    name: str = setting("digits", _NAME)
    path: str | None = setting(None, none_or(_NAME))
    classes: tuple[str | int, ...] = several((), _CLASS)  # keep these alone, numbered in this order; (): all
    image_size: int | None = setting(None, none_or(integer(1, 4096)))
    resize: str = setting("pad", choice("pad", "bilinear", "nearest"))
    normalisation: str = setting("half", choice("unit", "half", "standard", "none"))
    augment: tuple[str, ...] = several((), choice("flip", "crop", "flip_all", "flip_vertical_all", "rotate"))
    augment_test: bool = setting(False, _FLAG)  # the test images too, each once, alike for all trials
    stored_augment: str = setting("none", choice("none", "flip_zoom"))  # of training and validation images
    validation: float = setting(0.0, _VALIDATION)
    validation_from: str = setting("train", choice("train", "test", "same_as_test", "given"))
    test: float = setting(0.2, number(0, 1, exclusive=True))  # share, where the data has no test split
    # Of all examples, train and test pooled: shares of train, validation and test, instead of the three above.
    fractions: tuple[float, ...] = together((), _FRACTIONS)
    stratify: bool = setting(False, _FLAG)
    split_seed: int = setting(0, _SEED)
    train_examples: int | None = setting(None, none_or(integer(1)))

    @property
    def has_validation(self) -> bool:
        """Whether the study asks for a validation split."""
        return bool(self.validation or self.fractions or self.validation_from in ("same_as_test", "given"))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a trial trains; every tuple with several values is an axis of the grid."""

    initialisation: tuple[str, ...] = axis("pytorch", choice("pytorch", "he"))
    optimizer: tuple[str, ...] = axis("adam", choice("adam", "sgd"))
    learning_rate: tuple[float, ...] = axis(1e-3, number(0, exclusive=True))
    momentum: tuple[float, ...] = axis(0.0, number(0, 1))  # of sgd; adam has none
    nesterov: tuple[bool, ...] = axis(False, _FLAG)
    weight_decay: tuple[float, ...] = axis(0.0, number(0))
    decay: tuple[str, ...] = axis("l2", choice("l2", "decoupled"))  # of weights, by the gradient or beside it
    clip_norm: tuple[float | None, ...] = axis(None, none_or(number(0, exclusive=True)))  # of a step's gradient
    label_smoothing: tuple[float, ...] = axis(0.0, number(0, 1))
    dropout_rate: tuple[float | None, ...] = axis(None, none_or(number(0, 1)))
    batch_size: tuple[int, ...] = axis(64, integer(1))
    shuffle: tuple[bool, ...] = axis(True, _FLAG)
    drop_last: tuple[bool, ...] = axis(False, _FLAG)  # the examples that fill no batch, other ones in every epoch
    epochs: tuple[int, ...] = axis(10, integer(1, MOST_EPOCHS))
    schedule: tuple[str, ...] = axis("constant", Rule(schedules.is_schedule, schedules.ALLOWED))
    # A trial that stops early ends with its best weights.
    early_stopping: tuple[str, ...] = axis("off", Rule(stopping.is_stopping, stopping.ALLOWED))
    # One after another, each the settings above with changes: ({"optimizer": "adam"}, {"optimizer": "sgd"}).
    stages: tuple[Mapping[str, Any], ...] = custom((), lambda key, value: _read_stages(key, value))
    # Of the next stage; best by the metric of early stopping, or by `select` on the validation split.
    stage_start: tuple[str, ...] = axis("best", choice("best", "last"))
    # Of the arithmetic of layers; weights, batch statistics, the loss and the optimizer are float32 always.
    precision: tuple[str, ...] = axis("float32", choice("float32", "tf32", "bfloat16"))
    # How to convolve, where it can do the kernel; results differ by rounding, speed by a lot.
    convolution: tuple[str, ...] = axis(
        "auto", choice("auto", "block_patches", "winograd", "patches", "shifts", "dense", "grouped")
    )

    @property
    def longest_stage(self) -> int:
        """The most epochs of any stage of any trial."""
        return max(max(self.epochs) if "epochs" not in stage else stage["epochs"] for stage in self.stages or ({},))

    @property
    def stopping(self) -> tuple[str, ...]:
        """Every rule of early stopping that a stage may have."""
        return (*self.early_stopping, *(stage.get("early_stopping", "off") for stage in self.stages))

    @property
    def stops_early(self) -> bool:
        """Whether any trial may stop early."""
        return any(text != "off" for text in self.stopping)


# What a stage may change.
STAGE_KEYS = (
    *("optimizer", "learning_rate", "momentum", "nesterov", "weight_decay", "decay", "clip_norm"),
    *("label_smoothing", "dropout_rate", "epochs", "schedule", "early_stopping"),
)


@dataclasses.dataclass(frozen=True)
class StreamsConfig:
    """Seeds of the four random streams: None follows the trial's seed, a number fixes it, a tuple crosses it."""

    init: tuple[int | None, ...] = axis(None, none_or(_SEED))
    order: tuple[int | None, ...] = axis(None, none_or(_SEED))
    augment: tuple[int | None, ...] = axis(None, none_or(_SEED))
    dropout: tuple[int | None, ...] = axis(None, none_or(_SEED))


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """How often states are written down, in epochs, and how many stay beside those that end a trial."""

    every: int = setting(1, integer(1, MOST_EPOCHS))
    keep: int = setting(2, integer(1))


SELECT = (
    "val_accuracy",
    "val_loss",
    *("val_precision", "val_recall", "val_f1"),
    "test_accuracy",
    "test_loss",
    *("test_precision", "test_recall", "test_f1"),
    "train_accuracy",
    "train_loss",
)


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything that decides a study's numbers."""

    models: tuple[str, ...] = axis("baseline", _NAME)
    seeds: tuple[int, ...] = axis(0, _SEED)
    select: str = setting("train_loss", choice(*SELECT))
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    streams: StreamsConfig = dataclasses.field(default_factory=StreamsConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

    def to_dict(self) -> dict[str, Any]:
        """Returns the study as nested dicts of JSON values (tuples become lists)."""
        return {k: _plain(v) for k, v in dataclasses.asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def from_config(config: Mapping[str, Any]) -> Study:
    """Validates a study.

    Args:
        config: nested mapping (a ConfigDict's `to_dict()`, or config.json as read) with the fields of `Study`; absent
            fields take their defaults; lists, ranges and arrays stand for tuples.

    Returns:
        The frozen study.

    Raises:
        RequestError: an unknown key, a value of the wrong type or out of range, an empty axis, or settings that
            contradict each other.
    """
    study = build(Study, plain(config), "")
    _check_splits(study.data)
    _check_selection(study)
    _check_stopping(study)
    return study


def from_run(config: Mapping[str, Any]) -> Study:
    """Returns the study of a run's config.json, which holds its networks' layers, too; raises as `from_config`."""
    return from_config({key: value for key, value in config.items() if key != "networks"})


def _read_stages(key: str, value: Any) -> tuple[Mapping[str, Any], ...]:
    """Returns stages in their stored form; each setting of one is a single value that the trial's own could be."""
    allowed = 'allowed: a tuple of groups of settings, as in ({"optimizer": "adam"}, {"optimizer": "sgd"})'
    fields = {name: field for name, field in fields_of(TrainConfig).items() if name in STAGE_KEYS}
    stages = []
    for place, stage in enumerate(value if isinstance(value, list | tuple) else (value,)):
        if not isinstance(stage, Mapping):
            raise RequestError(key, value, allowed)
        for name, item in stage.items():
            if name not in fields:
                raise RequestError(f"{key}[{place}].{name}", item, f"there is no such key; {one_of(name, fields)}")
            if isinstance(item, list | tuple):
                raise RequestError(f"{key}[{place}].{name}", item, "a stage is no axis: one value")
            check(f"{key}[{place}].{name}", item, fields[name])
        stages.append(dict(stage))
    return tuple(stages)


def _check_stopping(study: Study) -> None:
    for text in study.train.stopping:
        rule = stopping.read_stopping(text)
        if rule is not None and rule.metric.startswith("val_") and not study.data.has_validation:
            how = "it needs a validation split: set data.validation (0.1, say), or data.validation_from = 'given'"
            raise RequestError("train.early_stopping", text, how)
    if len(study.train.stage_start) > 1 and not (study.data.has_validation or study.train.stops_early):
        how = "nothing says which weights are the best, so it would be the last: set data.validation (0.1, say)"
        raise RequestError("train.stage_start", "best", how)


def _check_splits(data: DataConfig) -> None:
    for key in ("validation", "validation_from", "test"):
        value, default = getattr(data, key), getattr(DataConfig, key)
        if data.fractions and value != default:
            raise RequestError(
                f"data.{key}", value, f"data.fractions says all shares; allowed: {default!r}, its default"
            )
    if data.validation and data.validation_from in ("same_as_test", "given"):
        whole = "the test split" if data.validation_from == "same_as_test" else "the data's own validation split"
        raise RequestError("data.validation", data.validation, f"{whole} validates, whole; allowed: 0.0")
    if data.augment_test and not data.augment:
        raise RequestError("data.augment_test", True, "data.augment says how, and is empty; allowed: False")


def _check_selection(study: Study) -> None:
    if study.select.startswith("val_") and not study.data.has_validation:
        raise RequestError(
            "select",
            study.select,
            "it needs a validation split: set data.validation (0.1, say) or data.fractions, or "
            "data.validation_from = 'given' where the data has its own, or select by "
            + ", ".join(name for name in SELECT if not name.startswith("val_")),
        )
