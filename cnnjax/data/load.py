"""Loads the data set of a study."""

import dataclasses
import itertools
from collections.abc import Sequence

from cnnjax.data.dataset import Dataset, Source, Split
from cnnjax.data.readers.checks import check_memory
from cnnjax.data.readers.detect import read_path
from cnnjax.data.readers.digits import read_digits
from cnnjax.data.readers.tfds import read_prepared
from cnnjax.data.resize import resize_images
from cnnjax.data.splits import make_splits, select_classes
from cnnjax.models.summary import check_fits
from cnnjax.study import augmentation, own_code
from cnnjax.study.schema import DataConfig, Study, TrainConfig
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded
from cnnjax.utils.text import composed

_GENERIC_NAMES = ("train", "training", "test", "data", "images", "all")


def load_dataset(data: DataConfig, split_seeds: Sequence[int] = (0,), *, identify: bool = False) -> Dataset:
    """Reads, resizes and splits the data of a study.

    If `data.path` is set, it names a folder or file as in `readers.detect.ACCEPTED`, and `data.name` only labels the
    data. Otherwise `data.name` is `digits` or a data set that tensorflow-datasets has prepared. Nothing is downloaded.

    Args:
        data: the `data` group of the study.
        split_seeds: `Study.split_seeds`.
        identify: whether to hash all examples that were read.

    Returns:
        The data set: uint8 images [N, H, W, C] and int32 labels [N] of each split.

    Raises:
        RequestError: the data is missing or damaged, lacks a class of `data.classes`, or cannot be resized or split.
    """
    name, source = load_source(data)
    if data.classes:
        source = select_classes(source, [name if isinstance(name, int) else composed(name) for name in data.classes])
    size = data.image_size
    if size is not None:
        source = source.map_splits(lambda _, split: _resize(split, size, data.resize))
    return make_splits(source, data, name, split_seeds, identify=identify)


def load_checked(study: Study, earlier: Sequence[Study] = (), *, identify: bool = False) -> Dataset:
    """Loads the data of a study, and checks that its models and batches fit the images.

    Args:
        study: the study.
        earlier: studies that the same run has asked for before. The data has their splits, too.
        identify: whether to hash all examples that were read.

    Raises:
        RequestError: as `load_dataset`, or the study does not fit the data.
    """
    every = study.with_splits_of(earlier)
    dataset = load_dataset(every.data, every.split_seeds, identify=identify)
    for name in study.models:
        with own_code.blamed("models", name):
            unused = check_fits(name, dataset.image_shape, len(dataset.classes))
        _check_unused(study, name, unused)
    augmentation.check_fits(study.data.augment, study.data.test_time_augment, dataset.image_shape)
    for weights in study.train.class_weights:
        if isinstance(weights, tuple) and len(weights) != len(dataset.classes):
            raise RequestError("train.class_weights", weights, f"must be {len(dataset.classes)} numbers, one per class")
    sizes = [dataset.train_size(count) for count in study.data.train_examples]
    for batch_size, size in itertools.product(study.train.batch_size, sizes):
        if batch_size > size:
            problem = f"must be at most the number of training images, {size}"
            raise RequestError("train.batch_size", batch_size, problem)
        if len(study.train.drop_last) > 1 and size % batch_size == 0:
            problem = (
                f"both values train identically: no example is left over by batches of {batch_size}; use one value"
            )
            raise RequestError("train.drop_last", study.train.drop_last, problem)
    return dataset


def _check_unused(study: Study, model: str, keys: Sequence[str]) -> None:
    """Raises RequestError if a study sets hyperparameters that a model cannot take."""
    for key in keys:
        default = getattr(TrainConfig, key)[0]
        values = (*getattr(study.train, key), *(stage[key] for stage in study.train.stages if key in stage))
        for value in values:
            if value != default:
                how = f"use the default {default!r}"
                how += ", or let its call take dropout_rate" if key == "dropout_rate" else ""
                raise RequestError(f"train.{key}", value, f"the module {model} decides this itself; {how}")


def load_source(data: DataConfig) -> tuple[str, Source]:
    """Reads the data of a study, neither resized (except images that differ in size) nor split.

    Returns:
        The name of the data set, and all examples.

    Raises:
        RequestError: the data is missing or damaged.
    """
    if data.path is None:
        return data.name, read_digits() if data.name == "digits" else read_prepared(data)
    name = _path_name(data.path) if data.name == DataConfig.name else data.name  # the default names the digits
    source = read_path(data.path, name, data.image_size, data.resize)
    classes = tuple(map(composed, source.classes))
    if len(set(classes)) < len(classes):
        twice = next(each for each in classes if classes.count(each) > 1)
        raise RequestError("data.path", data.path, f"two classes are named {twice!r} in two Unicode forms; rename one")
    return name, dataclasses.replace(source, classes=classes)


def _path_name(path: str) -> str:
    """Returns the name of the file or folder, or of its parent folder if the name is generic."""
    where = expanded("data.path", path).resolve()
    return where.parent.name if where.stem.lower() in _GENERIC_NAMES and where.parent.name else where.stem


def _resize(split: Split, size: int, kind: str) -> Split:
    if split.images.shape[1:3] == (size, size):
        return split
    check_memory("data.image_size", size, len(split) * size * size * split.images.shape[-1])
    return Split(resize_images(split.images, size, kind), split.labels)
