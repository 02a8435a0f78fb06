"""The keys of a study, with their defaults, rules and descriptions.

`from_config` validates a config, as a file of `configs/` builds it, and returns a frozen `Study`. All other code uses
this `Study`, never a ConfigDict.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from cnnjax.study.augmentation import TEST_TIME_KINDS
from cnnjax.study.consistency import check_consistency
from cnnjax.study.hparams import HPARAMS, MOST_EPOCHS
from cnnjax.study.metrics import MEASURES, NAMES, RULE, is_measure, measures_of, metrics_of, read_metrics, selectable
from cnnjax.study.optimizer_checks import check_optimizers
from cnnjax.study.ranges import take_ranges
from cnnjax.study.renamed import OLD_KEYS, modern_config
from cnnjax.study.rules import FLAG, Rule, choice, integer, is_int, is_number, none_or, number
from cnnjax.study.search import SearchConfig, check_search
from cnnjax.study.validation import (
    axis,
    axis_keys,
    build,
    check,
    custom,
    declared,
    distinct,
    fields_of,
    internal,
    joint,
    plain,
    single,
    unknown_key,
)
from cnnjax.utils.errors import RequestError
from cnnjax.utils.tree import flatten

_SEED = integer(0, 2**32 - 1)
_NAME = Rule(lambda v: isinstance(v, str) and bool(v), "must be a name")
_CLASS = Rule(lambda v: (isinstance(v, str) and bool(v)) or (is_int(v) and v >= 0), "must be a class name or number")
_VALIDATION = Rule(
    lambda v: is_number(v) and (0 <= v < 1 or (is_int(v) and v >= 0)),
    "must be a fraction >= 0 and < 1, or a number of examples",
)
_FRACTIONS = Rule(
    lambda v: not v or (len(v) == 3 and all(is_number(x) and x > 0 for x in v) and abs(sum(v) - 1) < 1e-6),
    "must be three fractions > 0 with the sum 1, or ()",
)


@dataclasses.dataclass(frozen=True)
class _DataKeys:
    """The keys of `data` that are not axes."""

    name: str = single(
        "digits",
        _NAME,
        "Name of the dataset: `digits`, which comes with the package, or a dataset of tensorflow-datasets (`cifar10`, "
        "`fashion_mnist`, ...). With `data.path`, the name that reports show.",
    )
    path: str | None = single(None, none_or(_NAME), "File or folder of your own data.")
    classes: tuple[str | int, ...] = distinct(
        (),
        _CLASS,
        "Classes to keep, by name or by number from 0; () keeps all. They are renumbered in this order. If the "
        "classes are named by numbers, a number is a name.",
    )
    image_size: int | None = single(
        None, none_or(integer(1, 4096)), "Height and width of the images after resizing; None keeps the size."
    )
    resize: str = single("pad", choice("pad", "bilinear", "nearest"), "How to resize: pad with zeros, or resample.")
    augment_test: bool = single(False, FLAG, "Augment test images, too: once, and identically for all trials.")
    test_time_augment: str = single(
        "none",
        choice(*TEST_TIME_KINDS),
        "Average the logits of each validation and test image over views of it: `flip` the image and its mirror image, "
        "`flip+shift` also two moves by one pixel and their mirror images ([how to](../docs/how-to/augmentation.md)).",
    )
    stored_augment: str = single(
        "none",
        choice("none", "flip_zoom"),
        "Store each training and validation image in four versions: original, flipped, zoomed, flipped and zoomed.",
    )
    validation: float | None = single(
        None,
        none_or(_VALIDATION),
        "Size of the validation split; None uses the validation split of the source, or 0.1 if it has none.",
    )
    validation_from: str = single(
        "train",
        choice("train", "test", "same_as_test", "given"),
        "Source of the validation split: a part of the `train` or `test` split, the whole test split (`same_as_test`; "
        "the report warns), or the source's own validation split (`given`; also used if `data.validation` is 0).",
    )
    test: float = single(
        0.2, number(0, 1, exclusive=True), "Fraction of the examples to use as test split, if the source has none."
    )
    fractions: tuple[float, ...] = joint(
        (),
        _FRACTIONS,
        "Pool all examples and split them by these fractions into train, validation and test, instead of by the three "
        "keys above.",
    )
    stratify: bool = single(False, FLAG, "Split each class in the same proportions.")


def _axes_of(group: str) -> list[tuple[str, Any, Any]]:
    """Returns the fields of the hyperparameters of a group, for `make_dataclass`."""
    return [(h.name, Any if h.is_repeat else tuple, declared(h)) for h in HPARAMS if h.group == group]


_Data: Any = dataclasses.make_dataclass("_Data", _axes_of("data"), frozen=True)
_Train: Any = dataclasses.make_dataclass("_Train", _axes_of("train"), frozen=True)


@dataclasses.dataclass(frozen=True)
class DataConfig(_Data, _DataKeys):
    """The data: source, splits, and the axes of preprocessing and augmentation."""

    @property
    def has_validation(self) -> bool:
        """Whether the study asks for a validation split."""
        return bool(self.validation != 0 or self.fractions or self.validation_from in ("same_as_test", "given"))


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Train):
    """The hyperparameters of training: one axis of the grid for each entry of `HPARAMS` of `train`, and the stages."""

    stages: tuple[Mapping[str, Any], ...] = custom(
        (),
        lambda key, value: _read_stages(key, value),
        'a tuple of groups of hyperparameters, as in ({"optimizer": "adam"}, {"optimizer": "sgd"})',
        "Stages of training, one after another. Each stage has the hyperparameters of `train` with these changes, one "
        "value each.",
    )

    @property
    def longest_stage(self) -> int:
        """The largest number of epochs of any stage of any trial. The last of a stage may be a part of one."""
        stages = self.stages or ({},)
        return math.ceil(max(max(self.epochs) if "epochs" not in stage else stage["epochs"] for stage in stages))

    @property
    def schedules(self) -> tuple[str, ...]:
        """The schedules of all stages."""
        return (*self.schedule, *(stage["schedule"] for stage in self.stages if "schedule" in stage))

    @property
    def stopping(self) -> tuple[str, ...]:
        """The early-stopping rules of all stages."""
        return (*self.early_stopping, *(stage.get("early_stopping", "off") for stage in self.stages))

    @property
    def stops_early(self) -> bool:
        """Whether any trial may stop early."""
        return any(text != "off" for text in self.stopping)


@dataclasses.dataclass(frozen=True)
class StreamsConfig:
    """Seeds of the five random streams. None uses the seed of the trial; a tuple is an axis of the grid."""

    init: tuple[int | None, ...] = axis(
        None, none_or(_SEED), "Seed of the initial weights; None uses the seed of the trial."
    )
    order: tuple[int | None, ...] = axis(None, none_or(_SEED), "Seed of the order of the images; None as above.")
    augment: tuple[int | None, ...] = axis(None, none_or(_SEED), "Seed of augmentation; None as above.")
    dropout: tuple[int | None, ...] = axis(None, none_or(_SEED), "Seed of dropout; None as above.")
    split: tuple[int | None, ...] = axis(
        0,
        none_or(_SEED),
        "Seed of the splits and folds: which examples train, validate and test. By default all trials have the same; "
        "None as above.",
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """How often to save checkpoints, and how many to keep."""

    every: int = single(1, integer(1, MOST_EPOCHS), "Number of epochs between checkpoints.")
    keep: int = single(
        2,
        integer(1),
        "Number of newest checkpoints to keep during training. Final checkpoints of trials are always kept.",
    )


# Keys of a run's config.json: the layers of its networks, the earlier studies of a run that has grown, and its looks.
NOT_OF_STUDY = ("networks", "earlier", "looks")

SELECT = selectable(MEASURES)
_SELECT = Rule(
    lambda v: isinstance(v, str) and is_measure(v),
    f"must be one of {', '.join(SELECT)}, or val_NAME or test_NAME of one of your metrics",
)


@dataclasses.dataclass(frozen=True)
class Study:
    """A validated study: everything that determines its results."""

    models: tuple[str, ...] = axis("baseline", _NAME, "Names of models in [ladder.py](../cnnjax/models/ladder.py).")
    seeds: tuple[int, ...] = axis(0, _SEED, "Random seeds. Each configuration is trained once with each seed.")
    select: str = single("val_accuracy", _SELECT, "Measure that selects the best configuration.")
    metrics: tuple[str, ...] = custom(
        NAMES,
        read_metrics,
        RULE.allowed.removeprefix("must be ") + ", or a tuple of them",
        "Metrics to record. The loss, accuracy and F1 are always recorded. Larger values of "
        "[your own](../docs/how-to/own-loss-and-metric.md) are better, unless the name ends in `loss`, `error` or "
        "`deviance`.",
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    streams: StreamsConfig = dataclasses.field(default_factory=StreamsConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    # The texts of the ranges by key; the axes have their bounds.
    ranges: Mapping[str, str] = internal({})
    # The configurations that an adaptive search has asked for: the values of axes by key.
    asked: tuple[Mapping[str, Any], ...] = internal(())
    code: Mapping[str, Mapping[str, Any]] = internal({})  # of the files that the study refers to, see `own_code`
    # Further seeds of single configurations, by `plan.configuration_id`.
    added: Mapping[str, tuple[int, ...]] = internal({}, lambda key, value: _read_added(key, value))

    @property
    def split_seeds(self) -> tuple[int, ...]:
        """The seeds of the split stream in all trials."""
        given = ((self.every_seed if seed is None else (seed,)) for seed in self.streams.split)
        return tuple(dict.fromkeys(seed for seeds in given for seed in seeds))

    @property
    def every_seed(self) -> tuple[int, ...]:
        """The seeds of all configurations, and those that were added to some."""
        return tuple(dict.fromkeys(seed for seeds in (self.seeds, *self.added.values()) for seed in seeds))

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that the study records."""
        return measures_of(metrics_of(self.metrics))

    def with_splits_of(self, others: Iterable["Study"]) -> "Study":
        """Returns the study with the seeds of the split stream and the sizes of training splits of others, too."""
        studies = [self, *others]
        seeds = dict.fromkeys(seed for study in studies for seed in study.split_seeds)
        sizes = dict.fromkeys(size for study in studies for size in study.data.train_examples)
        more: dict[str, Any] = {"train_examples": tuple(sizes)}  # a type checker does not know the field
        streams = dataclasses.replace(self.streams, split=tuple(seeds))
        return dataclasses.replace(self, data=dataclasses.replace(self.data, **more), streams=streams)

    def to_dict(self) -> dict[str, Any]:
        """Returns the study as nested dicts of JSON values. Tuples become lists; a grid has no keys of `search`."""
        values = {k: _plain(v) for k, v in dataclasses.asdict(self).items()}
        for key, text in values.pop("ranges").items():
            group, _, name = key.rpartition(".")
            (values[group] if group else values)[name] = text
        unused = [name for name in ("asked", "code", "added") if not values[name]]
        unused += ["search"] if self.search.method == "grid" else []
        return {key: value for key, value in values.items() if key not in unused}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def from_config(config: Mapping[str, Any]) -> Study:
    """Validates a study.

    Args:
        config: nested mapping with the fields of `Study`: `to_dict()` of a ConfigDict, or the content of config.json.
            Missing fields take their defaults. Lists, ranges and arrays become tuples.

    Returns:
        The frozen study.

    Raises:
        RequestError: an unknown key, a value of the wrong type or out of range, an empty axis, or values that
            contradict each other.
    """
    values = plain(config)
    if isinstance(values, Mapping):
        search = build(SearchConfig, values.get("search", {}), "search.")
        values, ranges = take_ranges(values, search.programs)
        values |= {"ranges": ranges, "asked": _read_asked(values.get("asked", ()))}
    study = build(Study, values, "")
    check_consistency(study)
    check_search(study)
    check_optimizers(study.train)
    return study


def from_run(config: Mapping[str, Any]) -> Study:
    """Returns the study of a run's config.json, which also has the keys `NOT_OF_STUDY`. Raises as `from_config`."""
    return from_config({key: value for key, value in modern_config(config).items() if key not in NOT_OF_STUDY})


def _read_asked(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Checks the form of the configurations that config.json has of an adaptive search."""
    keys = {*axis_keys(Study), "seeds"}
    if not isinstance(value, tuple) or not all(isinstance(one, Mapping) and keys.issuperset(one) for one in value):
        raise RequestError("asked", value, "only the config.json of a run has this key")
    return value


def _read_added(key: str, value: Any) -> dict[str, tuple[int, ...]]:
    seeds = Rule(
        lambda v: isinstance(v, list | tuple) and all(map(_SEED.accepts, v)), "must be seeds of single configurations"
    )
    if not isinstance(value, Mapping) or not all(map(seeds.accepts, value.values())):
        raise RequestError(key, value, seeds.allowed)
    return {name: tuple(of) for name, of in value.items()}


def _read_stages(key: str, value: Any) -> tuple[Mapping[str, Any], ...]:
    """Checks the stages and returns them as a tuple of dicts. Each hyperparameter of a stage has one value."""
    allowed = 'must be a tuple of groups of hyperparameters, as in ({"optimizer": "adam"}, {"optimizer": "sgd"})'
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
                raise RequestError(f"{key}[{place}].{name}", item, unknown_key(name, fields))
            for path, one in flatten({f"{key}[{place}]": {name: item}}):
                if isinstance(one, list | tuple):
                    raise RequestError(path, one, "hyperparameters of a stage are not axes; use one value")
            check(f"{key}[{place}].{name}", item, fields[name])
        stages.append(dict(stage))
    return tuple(stages)
