"""A study's config: the validated, frozen form of what `configs/*.py` builds.

`from_config` is the border: behind it there are no ConfigDicts and no unchecked values. Each field says in its
metadata what it takes; a tuple in an axis field is an axis of the grid.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cnnjax.study import early_stopping as stopping
from cnnjax.study.hparams import HPARAMS, MOST_EPOCHS
from cnnjax.study.metrics import MEASURES
from cnnjax.study.renamed import OLD_KEYS, modern_config
from cnnjax.study.rules import FLAG, Rule, choice, integer, is_int, is_number, none_or, number
from cnnjax.study.validation import axis, build, check, custom, fields_of, plain, setting, several, together
from cnnjax.utils.errors import RequestError, one_of

_SEED = integer(0, 2**32 - 1)
_NAME = Rule(lambda v: isinstance(v, str) and bool(v), "must be a name")
_CLASS = Rule(lambda v: (isinstance(v, str) and bool(v)) or (is_int(v) and v >= 0), "must be a class's name or number")
_VALIDATION = Rule(
    lambda v: is_number(v) and (0 <= v < 1 or (is_int(v) and v >= 0)),
    "must be a share >= 0 and < 1, or a number of examples",
)
_FRACTIONS = Rule(
    lambda v: not v or (len(v) == 3 and all(is_number(x) and x > 0 for x in v) and abs(sum(v) - 1) < 1e-6),
    "must be three shares > 0 that add up to 1, of train, validation and test; or nothing",
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, split and seen how."""

    name: str = setting(
        "digits",
        _NAME,
        "A dataset that comes with the package (`digits`) or with tensorflow-datasets (`cifar10`, `fashion_mnist`, "
        "...); beside `data.path`, what the data is called.",
    )
    path: str | None = setting(None, none_or(_NAME), "A file or folder of one's own data.")
    classes: tuple[str | int, ...] = several(
        (),
        _CLASS,
        "Keep these classes alone, numbered in this order; none named, all. Where class names are numbers, a number is "
        "a name; otherwise it counts them from 0.",
    )
    image_size: int | None = setting(
        None, none_or(integer(1, 4096)), "Height and width that images are brought to; None, as they are."
    )
    resize: str = setting("pad", choice("pad", "bilinear", "nearest"), "How: zeros around the image, or resampled.")
    normalization: str = setting(
        "half",
        choice("unit", "half", "standard", "none"),
        "What pixels of 0 to 255 become: 0 to 1, -1 to 1, mean 0 and variance 1 in each channel of the training split, "
        "or themselves.",
    )
    augment: tuple[str, ...] = several(
        (),
        choice("flip", "crop", "flip_all", "flip_vertical_all", "rotate"),
        "What is drawn anew for each training image in each epoch: a left-right flip (half of the images), a shift by "
        "up to 4 pixels, a left-right or upside-down flip of all, a rotation by up to 45 degrees.",
    )
    augment_test: bool = setting(False, FLAG, "Treat test images so, too, each once and alike for all trials.")
    stored_augment: str = setting(
        "none",
        choice("none", "flip_zoom"),
        "Store four versions of each training and validation image: itself, flipped, zoomed, both.",
    )
    validation: float | None = setting(
        None,
        none_or(_VALIDATION),
        "The size of the validation split that is cut; None, the data's own validation split, and 0.1 where it has "
        "none.",
    )
    validation_from: str = setting(
        "train",
        choice("train", "test", "same_as_test", "given"),
        "The split that it is cut from; or the test split itself, which the report warns of; or the data's own "
        "validation split, which is also taken where `data.validation` is 0.",
    )
    test: float = setting(
        0.2, number(0, 1, exclusive=True), "The share that is test data where the source has no test split."
    )
    fractions: tuple[float, ...] = together(
        (), _FRACTIONS, "Pool all examples and cut them so, instead of the three keys above."
    )
    stratify: bool = setting(False, FLAG, "Cut each class alike.")
    split_seed: int = setting(0, _SEED, "Of the cuts; trials with other seeds have the same splits.")
    train_examples: int | None = setting(
        None, none_or(integer(1)), "Train on so many examples of the training split alone."
    )

    @property
    def has_validation(self) -> bool:
        """Whether the study asks for a validation split."""
        return bool(self.validation != 0 or self.fractions or self.validation_from in ("same_as_test", "given"))


_Axes: Any = dataclasses.make_dataclass(
    "_Axes", [(h.name, tuple, axis(h.default, h.rule, h.doc)) for h in HPARAMS], frozen=True
)


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Axes):
    """How a trial trains: a tuple for each of `HPARAMS`, an axis of the grid, and the stages."""

    stages: tuple[Mapping[str, Any], ...] = custom(
        (),
        lambda key, value: _read_stages(key, value),
        'a tuple of groups of settings, each a single value: ({"optimizer": "adam"}, {"optimizer": "sgd"})',
        "Trainings one after another, each with the settings of `train` and these changes.",
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


@dataclasses.dataclass(frozen=True)
class StreamsConfig:
    """Seeds of the four random streams: None follows the trial's seed, a number fixes it, a tuple crosses it."""

    init: tuple[int | None, ...] = axis(
        None, none_or(_SEED), "The seed of the initial weights; None, that of the trial."
    )
    order: tuple[int | None, ...] = axis(None, none_or(_SEED), "Of the order of the images.")
    augment: tuple[int | None, ...] = axis(None, none_or(_SEED), "Of augmentation.")
    dropout: tuple[int | None, ...] = axis(None, none_or(_SEED), "Of dropout.")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """How often states are written down, in epochs, and how many stay beside those that end a trial."""

    every: int = setting(1, integer(1, MOST_EPOCHS), "Epochs from one state on disk to the next.")
    keep: int = setting(
        2,
        integer(1),
        "How many of the newest states stay until training ends, beside those that end a trial.",
    )


# What a study may select by, the usual first.
SELECT = tuple(sorted(MEASURES, key=lambda name: ("val", "test", "train").index(name.partition("_")[0])))


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything that decides a study's numbers."""

    models: tuple[str, ...] = axis(
        "baseline", _NAME, "The networks, by their names in [ladder.py](../cnnjax/models/ladder.py)."
    )
    seeds: tuple[int, ...] = axis(0, _SEED, "Each setting is trained once with each of them.")
    select: str = setting("val_accuracy", choice(*SELECT), "What the best setting is best by.")
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
    return from_config({key: value for key, value in modern_config(config).items() if key != "networks"})


def _read_stages(key: str, value: Any) -> tuple[Mapping[str, Any], ...]:
    """Returns stages in their stored form; each setting of one is a single value that the trial's own could be."""
    allowed = 'must be a tuple of groups of settings, as in ({"optimizer": "adam"}, {"optimizer": "sgd"})'
    changeable = [h.name for h in HPARAMS if h.in_stages]
    fields = {name: field for name, field in fields_of(TrainConfig).items() if name in changeable}
    stages = []
    for place, stage in enumerate(value if isinstance(value, list | tuple) else (value,)):
        if not isinstance(stage, Mapping):
            raise RequestError(key, value, allowed)
        for name, item in stage.items():
            if f"train.{name}" in OLD_KEYS:
                raise RequestError(f"{key}[{place}].{name}", item, OLD_KEYS[f"train.{name}"])
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
        if data.fractions and value not in (default, 0):
            raise RequestError(f"data.{key}", value, f"data.fractions says all shares; use {default!r}, its default")
    if data.validation and data.validation_from in ("same_as_test", "given"):
        whole = "the test split" if data.validation_from == "same_as_test" else "the data's own validation split"
        raise RequestError("data.validation", data.validation, f"{whole} validates, whole; use 0.0")
    if data.augment_test and not data.augment:
        raise RequestError("data.augment_test", True, "data.augment says how, and is empty; use False")


def _check_selection(study: Study) -> None:
    if study.select.startswith("val_") and not study.data.has_validation:
        raise RequestError(
            "select",
            study.select,
            "it needs a validation split: set data.validation (0.1, say) or data.fractions, or "
            "data.validation_from = 'given' where the data has its own, or select by "
            + ", ".join(name for name in SELECT if not name.startswith("val_")),
        )
