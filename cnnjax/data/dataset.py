"""The types of the data: a split, the source as read, and the data set of a study."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """Labeled images: images uint8 [N, H, W, C], labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray | slice) -> "Split":
        """Returns the examples at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])

    @staticmethod
    def concatenate(splits: Sequence["Split"]) -> "Split":
        """Returns the examples of all splits, in their order."""
        return Split(np.concatenate([s.images for s in splits]), np.concatenate([s.labels for s in splits]))


class _Splits:
    train: Split
    test: Split | None
    validation: Split | None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that exist, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


@dataclasses.dataclass(frozen=True)
class Source(_Splits):
    """The data as read, before a study splits it.

    Attributes:
        train: the training examples, or all examples.
        test: the test split, or None.
        classes: class names; label i is classes[i].
        validation: the validation split, or None.
        notes: notes on how the data was read.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    validation: Split | None = None
    notes: tuple[str, ...] = ()

    def map_splits(self, function: Callable[[str, Split], Split]) -> "Source":
        """Returns a copy in which each split is `function(name, split)`."""
        splits: dict[str, Any] = {name: function(name, split) for name, split in self.splits.items()}
        return dataclasses.replace(self, **splits)


class Cut(NamedTuple):
    """What decides the splits of a trial: the seed of its split stream, its fold, and its number of examples."""

    split: int
    fold: int | None
    train_examples: int | None


class Partition(NamedTuple):
    """The splits of a trial: positions in a pool of examples, int32, in the stored order; and `Dataset.mean`, `std`."""

    train: np.ndarray
    validation: np.ndarray | None
    test: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset(_Splits):
    """The data set of a study.

    If trials differ in their splits, `train`, `validation`, `test`, `mean` and `std` are those of the first trial.

    Attributes:
        name: the data set's name.
        train: the examples for training.
        validation: the examples for model selection, or None.
        test: the examples for the final evaluation.
        classes: class names; label i is classes[i].
        validation_from: the origin of the validation split: train, test, pooled (all splits of the source together),
            same_as_test, given (the source's own), or None.
        test_from: the origin of the test split: source (its own), train or pooled.
        notes: notes on how the images were read.
        pool: the examples that any trial uses; None if all trials have the same splits.
        partitions: the splits of the trials; empty if all trials have the same.
        source_sha256: hash of all examples that were read, if it was asked for.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    classes: tuple[str, ...]
    validation_from: str | None = None
    test_from: str = "source"
    notes: tuple[str, ...] = ()
    pool: Split | None = None
    partitions: Mapping[Cut, Partition] = dataclasses.field(default_factory=dict)
    source_sha256: str | None = None

    def train_size(self, train_examples: int | None) -> int:
        """Returns the number of training examples of the trials with a value of `data.train_examples`."""
        sizes = (len(found.train) for cut, found in self.partitions.items() if cut.train_examples == train_examples)
        return next(sizes, len(self.train))

    @property
    def test_labels(self) -> dict[int, np.ndarray]:
        """The labels of the test split by the seed of the split stream; empty if all trials have the same test split.

        All folds of a seed have the same test split.
        """
        tests = {cut.split: found.test for cut, found in self.partitions.items()}
        if self.pool is None or len({test.tobytes() for test in tests.values()}) == 1:
            return {}
        return {split: self.pool.labels[test] for split, test in tests.items()}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @functools.cached_property
    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return statistics(self.train.images)  # when asked for: a plan needs none

    @property
    def mean(self) -> np.ndarray:
        """Mean of each channel of the training pixels in 0..1: float32 [C]."""
        return self._statistics[0]

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation of each channel of the training pixels in 0..1: float32 [C]."""
        return self._statistics[1]

    def describe(self) -> dict[str, Any]:
        """Returns the identity of the data, as JSON values.

        `sha256` hashes all images and labels in order, `test_sha256` those of the test split, and `source_sha256` all
        examples that were read. If trials differ in their splits, `splits` has the statistics of each, and
        `test_splits` the seeds whose test splits differ.
        """
        splits = [
            {**cut._asdict(), "mean": found.mean.tolist(), "std": found.std.tolist()}
            for cut, found in self.partitions.items()
        ]
        several = {"splits": splits, "test_splits": [*self.test_labels]}
        return {
            "name": self.name,
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "counts": {"train": 0, "validation": 0, "test": 0} | {name: len(s) for name, s in self.splits.items()},
            "validation_from": self.validation_from,
            "test_from": self.test_from,
            "notes": list(self.notes),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "sha256": hash_splits(self.splits),
            "test_sha256": hash_splits({"test": self.test}),
            "source_sha256": self.source_sha256,
            **(several if splits else {}),
        }


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the population standard deviation of each channel, from exact integer sums.

    Args:
        images: uint8 [N, H, W, C].

    Returns:
        (mean, std), float32 [C], of pixels scaled to 0..1.
    """
    channels = images.shape[-1]
    sums, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(images), 256):  # 32 bits hold the sums of squares of 256 images
        batch = images[start : start + 256]
        pixels = batch.reshape(len(batch), -1).astype(np.uint32)
        for totals, values in ((sums, pixels), (squares, pixels * pixels)):
            per_pixel = values.sum(axis=0, dtype=np.uint32)
            totals += per_pixel.reshape(-1, channels).sum(axis=0, dtype=np.int64)
    return _moments(sums, squares, images.size // channels)


def pixel_sums(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums of pixels and of squared pixels of each image uint8 [N, H, W, C]: two of int64 [N, C]."""
    sums, squares = np.zeros((2, len(images), images.shape[-1]), np.int64)
    for start in range(0, len(images), 256):
        batch = images[start : start + 256]
        pixels = batch.reshape(len(batch), -1, images.shape[-1]).astype(np.int64)
        sums[start : start + 256], squares[start : start + 256] = pixels.sum(axis=1), (pixels**2).sum(axis=1)
    return sums, squares


def statistics_of_sums(sums: np.ndarray, squares: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `statistics` of images of so many pixels, given their `pixel_sums`."""
    return _moments(sums.sum(axis=0), squares.sum(axis=0), pixels * len(sums))


def _moments(sums: np.ndarray, squares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(zip(sums.tolist(), squares.tolist(), strict=True))
    mean = [total / (255 * count) for total, _ in pairs]
    std = [math.sqrt(count * square - total**2) / (255 * count) for total, square in pairs]
    return np.array(mean, np.float32), np.array(std, np.float32)


def hash_splits(splits: dict[str, Split]) -> str:
    """Returns the SHA-256 of the names, images and labels of splits, in order."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, dtype="<i4").data)
    return digest.hexdigest()
