"""Splits the data of a study. Splits are disjoint, unless the test split also validates."""

import dataclasses
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from cnnjax.data.dataset import Dataset, Source, Split
from cnnjax.data.offline_augment import flip_zoom
from cnnjax.data.readers.checks import is_number
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError, one_of
from cnnjax.utils.text import counted

# One random stream for each cut, so that changing a cut does not change the others.
_TEST, _VALIDATION, _TRAIN_EXAMPLES = range(3)
_USUAL_VALIDATION = 0.1  # of the images that it is cut from
_ALLOWED = {
    "data.test": "a share that amounts to 1 to {rest:,} examples",
    "data.validation": "1 to {rest:,}, or a share that amounts to so many",
    "data.fractions": "shares that give each split at least 1",
    "data.train_examples": "1 to {total:,}",
}


def select_classes(source: Source, classes: Sequence[str | int]) -> Source:
    """Returns the examples of some classes, in their stored order.

    Args:
        source: all examples.
        classes: class names, or labels unless the names are numbers; label i of the result is classes[i].

    Raises:
        RequestError: a class is unknown or listed twice, or a split has no example of the classes.
    """
    labels = [_label(each, source.classes) for each in classes]
    if len(set(labels)) < len(labels):
        raise RequestError("data.classes", tuple(classes), "must list each class once")
    new_labels = np.full(len(source.classes), -1, np.int32)
    new_labels[labels] = np.arange(len(labels))

    def select(name: str, split: Split) -> Split:
        relabeled = new_labels[split.labels]
        if (relabeled < 0).all():
            kind = "training" if name == "train" else name
            raise RequestError("data.classes", tuple(classes), f"no {kind} example is of these classes")
        return Split(split.images[relabeled >= 0], relabeled[relabeled >= 0])

    return dataclasses.replace(source.map_splits(select), classes=tuple(source.classes[label] for label in labels))


def _label(requested: str | int, names: tuple[str, ...]) -> int:
    """Returns the label of a class, given its name, or its label unless the names are numbers."""
    if str(requested) in names:
        return names.index(str(requested))
    if isinstance(requested, str):
        raise RequestError("data.classes", requested, one_of(requested, names))
    equal = [name for name in names if is_number(name) and Decimal(name) == requested]
    if equal or all(map(is_number, names)):
        advice = f"did you mean {equal[0]!r}? Use" if equal else "use"
        raise RequestError("data.classes", requested, f"no class has that name; {advice} {', '.join(names)}")
    if requested >= len(names):
        raise RequestError("data.classes", requested, f"must be 0 to {len(names) - 1}, or a name: {', '.join(names)}")
    return requested


def make_splits(source: Source, data: DataConfig, name: str) -> Dataset:
    """Splits the data of a study.

    Test is cut out of train if the source has no test split, then validation out of train or test, and then
    `train_examples` out of train. A validation split of the source is used unless the study cuts another. With
    `fractions`, test and then validation are cut out of all examples. Splits keep the stored order.

    Offline augmentation of train and validation follows the cuts, so that no image has versions in two splits. The
    statistics are those of the augmented training images.

    Args:
        source: all examples.
        data: the data config.
        name: the data set's name.

    Raises:
        RequestError: a split would be empty, or the images are too small for the offline augmentation.
    """
    train, test, validation, notes = source.train, source.test, None, source.notes
    test_from = "train" if test is None else "source"
    validation_from = data.validation_from if data.has_validation else None
    takes_all = data.fractions or source.validation is not None or data.validation_from in ("same_as_test", "given")
    to_cut = data.validation if data.validation is not None else 0 if takes_all else _USUAL_VALIDATION
    if data.validation_from == "given" and source.validation is None:
        problem = "the data has no validation split of its own; use train, test or same_as_test"
        raise RequestError("data.validation_from", "given", problem)
    if data.fractions:
        test_from = validation_from = "train" if len(source.splits) == 1 else "pooled"
        _, validation_share, test_share = data.fractions
        everything = Split.concatenate([*source.splits.values()])
        test, train = _cut(everything, "data.fractions", test_share, data, _TEST)
        count = round(validation_share * len(everything))
        validation, train = _cut(train, "data.fractions", count, data, _VALIDATION)
    elif test is None:
        test, train = _cut(train, "data.test", data.test, data, _TEST)
    if to_cut and data.validation_from == "test":
        validation, test = _cut(test, "data.validation", to_cut, data, _VALIDATION)
    elif to_cut:
        validation, train = _cut(train, "data.validation", to_cut, data, _VALIDATION)
    elif data.validation_from == "same_as_test":
        validation = test
    elif source.validation is not None and not data.fractions:
        validation, validation_from = source.validation, "given"
    if source.validation is not None and not data.fractions and validation_from != "given":
        size = counted(len(source.validation), "image")
        notes = (*notes, f"left out, because the study cuts another: the data's own validation split of {size}")
    if data.train_examples not in (None, len(train)):
        train, _ = _cut(train, "data.train_examples", data.train_examples, data, _TRAIN_EXAMPLES)
    if data.stored_augment == "flip_zoom":
        train, validation = flip_zoom(train), validation and flip_zoom(validation)
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        validation_from=validation_from,
        test_from=test_from,
        notes=notes,
    )


def _cut(split: Split, key: str, amount: float, data: DataConfig, stream: int) -> tuple[Split, Split]:
    """Returns (taken, rest): a random share (float) or number (int) of the examples, and the others."""
    total = len(split)
    count = amount if isinstance(amount, int) else round(amount * total)
    if not 0 < count < total:
        rest, value = total - 1, getattr(data, key.removeprefix("data."))
        allowed = _ALLOWED[key].format(rest=rest, total=total) if rest else "data of more examples"
        raise RequestError(key, value, f"the split would take {count:,} of {counted(total, 'example')}; use {allowed}")
    rng = np.random.default_rng([data.split_seed, stream])
    order = rng.permutation(total)
    taken = np.zeros(total, bool)
    if data.stratify:
        for label, quota in enumerate(_largest_remainder(np.bincount(split.labels), count)):
            taken[order[split.labels[order] == label][:quota]] = True
    else:
        taken[order[:count]] = True
    return split.take(np.flatnonzero(taken)), split.take(np.flatnonzero(~taken))


def _largest_remainder(sizes: np.ndarray, count: int) -> np.ndarray:
    """Divides `count` among classes in proportion to their sizes, by the largest remainder method."""
    quotas, remainders = np.divmod(sizes * count, sizes.sum())
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1
    return quotas
