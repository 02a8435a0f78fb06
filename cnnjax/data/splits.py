"""Cuts a source into a study's splits. No example is in two of them, unless the test split is told to validate."""

import functools
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from cnnjax.data.dataset import Dataset, Source, Split
from cnnjax.data.normalization import statistics
from cnnjax.data.offline_augment import flip_zoom
from cnnjax.data.readers.checks import is_number
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError, one_of
from cnnjax.utils.text import counted

# One stream of random numbers for each cut: changing one leaves the others as they were.
_TEST, _VALIDATION, _TRAIN_EXAMPLES = range(3)
_USUAL_VALIDATION = 0.1  # of the images that it is cut from
_ALLOWED = {
    "data.test": "a share that takes 1 to {rest:,}",
    "data.validation": "1 to {rest:,}, or a share that takes so many",
    "data.fractions": "shares that give each split at least 1",
    "data.train_examples": "1 to {total:,}",
}


def keep_classes(source: Source, classes: Sequence[str | int]) -> Source:
    """Returns the examples of some classes alone, in their stored order.

    Args:
        source: all examples.
        classes: names, or places where no name is a number; label i of the result is classes[i].

    Raises:
        RequestError: there is no such class, one is named twice, or a split has no example of any.
    """
    numbers = [_class_number(name, source.classes) for name in classes]
    if len(set(numbers)) < len(numbers):
        raise RequestError("data.classes", tuple(classes), "each class may stand once, by name or by number")
    renumbered = np.full(len(source.classes), -1, np.int32)
    renumbered[numbers] = np.arange(len(numbers))

    def kept(name: str, split: Split) -> Split:
        labels = renumbered[split.labels]
        if (labels < 0).all():
            what = "training" if name == "train" else name
            raise RequestError("data.classes", tuple(classes), f"no {what} example is of any of them")
        return Split(split.images[labels >= 0], labels[labels >= 0])

    return source.changed(kept, classes=tuple(source.classes[number] for number in numbers))


def _class_number(asked: str | int, names: tuple[str, ...]) -> int:
    """Returns the place of a class that is asked for by its name, or by its place where no name is a number."""
    if str(asked) in names:
        return names.index(str(asked))
    if isinstance(asked, str):
        raise RequestError("data.classes", asked, one_of(asked, names))
    alike = [name for name in names if is_number(name) and Decimal(name) == asked]
    if alike or all(map(is_number, names)):
        meant = f"did you mean {alike[0]!r}? Use" if alike else "use"
        raise RequestError("data.classes", asked, f"no class has that name; {meant} {', '.join(names)}")
    if asked >= len(names):
        raise RequestError("data.classes", asked, f"must be 0 to {len(names) - 1}, or a name: {', '.join(names)}")
    return asked


def make_splits(source: Source, data: DataConfig, name: str) -> Dataset:
    """Splits a source as a study asks.

    First a test split is taken out of train if the source has none, then validation out of train or
    test, and last `train_examples` are kept of train. A validation split of the source is taken as it is, unless
    the study cuts another. With `fractions`, test and then validation are taken out of all examples. Examples stay in
    their stored order, those of a test split last.

    Stored augmentation comes after all cuts, so that no two splits share an image in any version, and leaves the test
    split alone. The statistics are those of the training images as they are trained on, every version counted.

    Args:
        source: all examples.
        data: the study's data settings.
        name: what the data set is called.

    Raises:
        RequestError: a split would be empty, or the images are too small for the stored augmentation.
    """
    train, test, validation, notes = source.train, source.test, None, source.notes
    test_from = "train" if test is None else "source"
    validation_from = data.validation_from if data.has_validation else None
    takes_all = data.fractions or source.validation is not None or data.validation_from in ("same_as_test", "given")
    to_cut = data.validation if data.validation is not None else 0 if takes_all else _USUAL_VALIDATION
    if data.validation_from == "given" and source.validation is None:
        allowed = "the data has no validation split of its own; use train, test, same_as_test"
        raise RequestError("data.validation_from", "given", allowed)
    if data.fractions:
        test_from = validation_from = "train" if len(source.splits) == 1 else "pooled"
        _, validation_share, test_share = data.fractions
        everything = functools.reduce(Split.joined, source.splits.values())
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
        key = "data.train_examples"
        train, _ = _cut(train, key, data.train_examples, data, _TRAIN_EXAMPLES)
    if data.stored_augment == "flip_zoom":
        train, validation = flip_zoom(train), validation and flip_zoom(validation)
    mean, std = statistics(train.images)
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        mean=mean,
        std=std,
        validation_from=validation_from,
        test_from=test_from,
        notes=notes,
    )


def _cut(split: Split, key: str, amount: float, data: DataConfig, stream: int) -> tuple[Split, Split]:
    """Returns (taken, rest): a seeded share (a float) or number (an int) of a split's examples."""
    total = len(split)
    count = amount if isinstance(amount, int) else round(amount * total)
    if not 0 < count < total:
        rest, value = total - 1, getattr(data, key.removeprefix("data."))
        allowed = _ALLOWED[key].format(rest=rest, total=total) if rest else "data of more examples"
        raise RequestError(key, value, f"that takes {count:,} of {counted(total, 'example')}; use {allowed}")
    rng = np.random.default_rng([data.split_seed, stream])
    order = rng.permutation(total)
    chosen = np.zeros(total, bool)
    if data.stratify:
        for label, share in enumerate(_apportion(np.bincount(split.labels), count)):
            chosen[order[split.labels[order] == label][:share]] = True
    else:
        chosen[order[:count]] = True
    return split.take(np.flatnonzero(chosen)), split.take(np.flatnonzero(~chosen))


def _apportion(sizes: np.ndarray, count: int) -> np.ndarray:
    """Divides `count` over classes in proportion to their sizes, by largest remainders."""
    shares, remainders = np.divmod(sizes * count, sizes.sum())
    missing = count - shares.sum()
    shares[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return shares
