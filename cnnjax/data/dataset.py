"""The types of the data: a split, the source as read, and the data set of a study."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class Dataset(_Splits):
    """The data set of a study.

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
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    classes: tuple[str, ...]
    validation_from: str | None = None
    test_from: str = "source"
    notes: tuple[str, ...] = ()

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

        `sha256` hashes all images and labels in order, and `test_sha256` those of the test split.
        """
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
            "sha256": _sha256(self.splits),
            "test_sha256": _sha256({"test": self.test}),
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
            pixel_sums = values.sum(axis=0, dtype=np.uint32)
            totals += pixel_sums.reshape(-1, channels).sum(axis=0, dtype=np.int64)
    count = images.size // channels
    pairs = list(zip(sums.tolist(), squares.tolist(), strict=True))
    mean = [total / (255 * count) for total, _ in pairs]
    std = [math.sqrt(count * square - total**2) / (255 * count) for total, square in pairs]
    return np.array(mean, np.float32), np.array(std, np.float32)


def _sha256(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, dtype="<i4").data)
    return digest.hexdigest()
