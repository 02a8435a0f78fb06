"""The nouns of the data: a split, what a source holds, and the data set a study trains on."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """Labeled images: images uint8 [N, H, W, C], labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the examples at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])

    def joined(self, other: "Split") -> "Split":
        """Returns these examples and then the other's."""
        return Split(np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels]))


@dataclasses.dataclass(frozen=True)
class Source:
    """What a source holds, before a study splits it.

    Attributes:
        train: its training examples, or all.
        test: its test split, or None.
        classes: class names; label i is classes[i].
        validation: its validation split, or None.
        notes: what is to be said of how it was read.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    validation: Split | None = None
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        return _by_name(self.train, self.validation, self.test)

    def changed(self, change: Callable[[str, Split], Split], **others: Any) -> "Source":
        """Returns the source with each split as `change(name, split)` returns it, and with other fields changed."""
        others |= {name: change(name, split) for name, split in self.splits.items()}
        return dataclasses.replace(self, **others)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The images of a study, split.

    Attributes:
        name: what the data is called.
        train: the examples that are trained on.
        validation: the examples that choose between trials, or None.
        test: the examples of the final evaluation.
        classes: class names; label i is classes[i].
        mean: float32 [C], mean of the training pixels in 0..1.
        std: float32 [C], population standard deviation of the training pixels in 0..1.
        validation_from: the split that the validation examples come from: train, test, pooled, same_as_test, given
            (the source's own), or None.
        test_from: source, train where the source has no test split, or pooled where it was cut out of
            all splits of the source together.
        notes: what is to be said of how the images were read.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    validation_from: str | None = None
    test_from: str = "source"
    notes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        return _by_name(self.train, self.validation, self.test)

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the data, as JSON values.

        `sha256` is a fingerprint of every image and label, split by split, in order; `test_sha256` of the test split.
        """
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            "name": self.name,
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "counts": {name: len(split) if split else 0 for name, split in splits.items()},
            "validation_from": self.validation_from,
            "test_from": self.test_from,
            "notes": list(self.notes),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "sha256": _fingerprint(splits),
            "test_sha256": _fingerprint({"test": self.test}),
        }


def _fingerprint(splits: dict[str, Split | None]) -> str:
    digest = hashlib.sha256()
    for name, split in splits.items():
        if split is not None:
            digest.update(f"{name} {split.images.shape}".encode())
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels, dtype="<i4").data)
    return digest.hexdigest()


def _by_name(train: Split, validation: Split | None, test: Split | None) -> dict[str, Split]:
    named = {"train": train, "validation": validation, "test": test}
    return {name: split for name, split in named.items() if split is not None}
