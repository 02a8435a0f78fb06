"""Splits the data of a study. Splits are disjoint, unless the test split also validates."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from cnnjax.data.dataset import Cut, Dataset, Partition, Source, Split, hash_splits, pixel_sums, statistics_of_sums
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


class _Parts(NamedTuple):
    """Positions of the examples of each split among all examples of the source, int32, in the stored order.

    `left_out` is the number of training examples that a fold leaves out, because all folds train on equally many.
    """

    train: np.ndarray
    validation: np.ndarray | None
    test: np.ndarray
    validation_from: str | None
    test_from: str
    left_out: int


def make_splits(
    source: Source, data: DataConfig, name: str, seeds: Sequence[int] = (0,), *, identify: bool = False
) -> Dataset:
    """Splits the data of a study.

    Test is cut out of train if the source has no test split, then validation out of train or test, and then
    `train_examples` out of train. A validation split of the source is used unless the study cuts another. With
    `fractions`, test and then validation are cut out of all examples. With `folds`, each fold of train validates in
    turn. Splits keep the stored order.

    Offline augmentation of train and validation follows the cuts, so that no image has versions in two splits. The
    statistics are those of the augmented training images.

    Args:
        source: all examples.
        data: the data config.
        name: the data set's name.
        seeds: the seeds of the split stream. Each cuts other splits of the same sizes.
        identify: whether to hash the source.

    Raises:
        RequestError: a split would be empty, a class has fewer examples than there are folds, all seeds or numbers of
            training examples cut the same splits, or the images are too small for the offline augmentation.
    """
    labels = np.concatenate([split.labels for split in source.splits.values()])
    folds = (None,) if data.folds is None else range(data.folds)
    keys = [Cut(*key) for key in itertools.product(seeds, folds, data.train_examples)]
    cuts = {key: _cut_all(source, labels, data, key) for key in keys}
    first, notes = cuts[keys[0]], source.notes
    if source.validation is not None and not data.fractions and first.validation_from != "given":
        size = counted(len(source.validation), "image")
        notes = (*notes, f"left out, because the study cuts another: the data's own validation split of {size}")
    if any(parts.left_out for parts in cuts.values()):
        notes = (*notes, f"all folds train on {len(first.train):,} images; where there is one more, it is left out")
    train, test = _examples(source, first.train), _examples(source, first.test)
    validation = test if first.validation is first.test else None
    if validation is None and first.validation is not None:
        validation = _examples(source, first.validation)
    train, validation = _augmented(train, data), validation and _augmented(validation, data)
    dataset = Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        validation_from=first.validation_from,
        test_from=first.test_from,
        notes=notes,
        source_sha256=hash_splits(source.splits) if identify else None,
    )
    return dataset if len(cuts) == 1 else _with_pool(dataset, source, data, cuts)


def _augmented(split: Split, data: DataConfig) -> Split:
    return flip_zoom(split) if data.stored_augment == "flip_zoom" else split


def _with_pool(dataset: Dataset, source: Source, data: DataConfig, cuts: Mapping[Cut, _Parts]) -> Dataset:
    """Adds the pool and the partitions of trials that differ in their splits."""
    _check_differ(data, cuts)
    used = np.unique(np.concatenate([part for parts in cuts.values() for part in parts[:3] if part is not None]))
    pool = _augmented(_examples(source, used), data)
    versions = np.arange(len(pool) // len(used), dtype=np.int32)

    def places(positions: np.ndarray, versions: np.ndarray = versions) -> np.ndarray:
        first = np.searchsorted(used, positions).astype(np.int32) * (len(pool) // len(used))
        return (first[:, None] + versions).ravel()

    partitions = {}
    sums, squares = pixel_sums(pool.images)  # once, for there may be many partitions
    for cut, parts in cuts.items():
        train, test = places(parts.train), places(parts.test, versions[:1])
        validation = None if parts.validation is None else places(parts.validation)
        mean_and_std = statistics_of_sums(sums[train], squares[train], math.prod(dataset.image_shape[:2]))
        partitions[cut] = Partition(train, validation, test, *mean_and_std)
    return dataclasses.replace(dataset, pool=pool, partitions=partitions)


def _check_differ(data: DataConfig, cuts: Mapping[Cut, _Parts]) -> None:
    """Raises RequestError if all seeds of the split stream, or two numbers of training examples, cut alike."""
    first, *others = cuts
    if (
        first.split != others[-1].split
        and all(
            one is None or np.array_equal(one, other)  # type: ignore[arg-type]
            for cut in others
            for one, other in zip(cuts[cut][:3], cuts[cut._replace(split=first.split)][:3], strict=True)
        )
    ):
        problem = "all seeds give the same splits: the data gives its splits, and nothing is cut from them; use one"
        raise RequestError("streams.split", tuple(dict.fromkeys(cut.split for cut in cuts)), problem)
    sizes: dict[int, int | None] = {}
    for count in data.train_examples:
        size = len(cuts[first._replace(train_examples=count)].train)
        if sizes.setdefault(size, count) != count:
            raise RequestError("data.train_examples", data.train_examples, f"{size} and None are the same; use one")


def _cut_all(source: Source, labels: np.ndarray, data: DataConfig, cut: Cut) -> _Parts:
    """Cuts the splits of a trial."""
    ends = np.cumsum([len(split) for split in source.splits.values()])
    ranges = np.split(np.arange(len(labels), dtype=np.int32), ends[:-1])
    given = dict(zip(source.splits, ranges, strict=True))
    take = functools.partial(_cut, labels, data, cut.split)
    train, test, validation, left_out = given["train"], given.get("test"), None, 0
    test_from = "train" if test is None else "source"
    validation_from = data.validation_from if data.has_validation else None
    takes_all = data.fractions or "validation" in given or data.validation_from in ("same_as_test", "given")
    to_cut = data.validation if data.validation is not None else 0 if takes_all else _USUAL_VALIDATION
    if data.validation_from == "given" and "validation" not in given:
        problem = "the data has no validation split of its own; use train, test or same_as_test"
        raise RequestError("data.validation_from", "given", problem)
    if data.fractions:
        test_from = validation_from = "train" if len(given) == 1 else "pooled"
        _, validation_share, test_share = data.fractions
        test, train = take(np.concatenate(ranges), "data.fractions", test_share, _TEST)
        validation, train = take(train, "data.fractions", round(validation_share * len(labels)), _VALIDATION)
    elif test is None:
        test, train = take(train, "data.test", data.test, _TEST)
    if data.folds:
        folds = _fold_numbers(labels[train], source.classes, data, cut.split)
        validation, rest = train[folds == cut.fold], train[folds != cut.fold]
        left_out = len(rest) - len(train) + int(np.bincount(folds).max())
        train = rest
    elif to_cut and data.validation_from == "test":
        validation, test = take(test, "data.validation", to_cut, _VALIDATION)
    elif to_cut:
        validation, train = take(train, "data.validation", to_cut, _VALIDATION)
    elif data.validation_from == "same_as_test":
        validation = test
    elif "validation" in given and not data.fractions:
        validation, validation_from = given["validation"], "given"
    size = cut.train_examples or len(train) - left_out
    if size != len(train):
        train, _ = take(train, "data.train_examples", size, _TRAIN_EXAMPLES)
    return _Parts(train, validation, test, validation_from, test_from, left_out)


def _fold_numbers(labels: np.ndarray, classes: Sequence[str], data: DataConfig, seed: int) -> np.ndarray:
    """Returns the fold in which each example validates, int [N], as scikit-learn draws it."""
    from sklearn.model_selection import KFold, StratifiedKFold  # lazily: it takes a second

    counts = np.bincount(labels)
    smallest = int(np.where(counts > 0, counts, len(labels)).argmin())
    if data.folds > len(labels):
        raise RequestError(
            "data.folds", data.folds, f"there are {counted(len(labels), 'training example')}; use fewer folds"
        )
    if data.stratify and data.folds > counts[smallest]:
        has = f"class {classes[smallest]} has {counted(int(counts[smallest]), 'training example')}"
        how = f"use at most {counts[smallest]} folds, or data.stratify=False"
        raise RequestError("data.folds", data.folds, f"{has}; {how}")
    kind = StratifiedKFold if data.stratify else KFold
    folds = np.zeros(len(labels), int)
    for number, (_, validation) in enumerate(kind(data.folds, shuffle=True, random_state=seed).split(labels, labels)):
        folds[validation] = number
    return folds


def _examples(source: Source, positions: np.ndarray) -> Split:
    """Returns the examples at ascending positions among all examples of a source."""
    found, start = [], 0
    for split in source.splits.values():
        inside = positions[(positions >= start) & (positions < start + len(split))] - start
        if len(inside):
            found.append(split if len(inside) == len(split) else split.take(inside))
        start += len(split)
    return found[0] if len(found) == 1 else Split.concatenate(found)


def _cut(
    labels: np.ndarray, data: DataConfig, seed: int, positions: np.ndarray, key: str, amount: float, stream: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (taken, rest): a random share (float) or number (int) of the examples at `positions`, and the others."""
    total = len(positions)
    count = amount if isinstance(amount, int) else round(amount * total)
    if not 0 < count < total:
        rest, value = total - 1, count if key == "data.train_examples" else getattr(data, key.removeprefix("data."))
        allowed = _ALLOWED[key].format(rest=rest, total=total) if rest else "data of more examples"
        raise RequestError(key, value, f"the split would take {count:,} of {counted(total, 'example')}; use {allowed}")
    order = np.random.default_rng([seed, stream]).permutation(total)
    taken = np.zeros(total, bool)
    if data.stratify:
        of_class = labels[positions]
        for label, quota in enumerate(_largest_remainder(np.bincount(of_class), count)):
            taken[order[of_class[order] == label][:quota]] = True
    else:
        taken[order[:count]] = True
    return positions[taken], positions[~taken]


def _largest_remainder(sizes: np.ndarray, count: int) -> np.ndarray:
    """Divides `count` among classes in proportion to their sizes, by the largest remainder method."""
    quotas, remainders = np.divmod(sizes * count, sizes.sum())
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1
    return quotas
