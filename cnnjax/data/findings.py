"""Counts the images of each class of a data set, the copies among its images, and the images of one color."""

import hashlib
from typing import Any

import numpy as np

from cnnjax.data.dataset import Dataset, Split

_CHUNK = 1024  # images at a time


def examine(dataset: Dataset) -> dict[str, Any]:
    """Counts the images of each class, and finds copies and flat images.

    Two images are copies of each other if every pixel is equal.

    Args:
        dataset: the data set, split.

    Returns:
        JSON values: `class_counts` (of each split, the images of each class), `distinct` (different training images),
        `flat` (of each split, the images whose pixels are all of one color), `in_two_splits` (for each pair of splits,
        the images of the later split that are in the earlier split too: {"train/test": 3}), and `two_labels` (the
        number of different images that have several labels, and up to three pairs of such labels).
    """
    splits = dataset.splits
    if dataset.validation_from == "same_as_test":
        del splits["validation"]  # a finding of its own
    digests = {name: _digests(split.images) for name, split in splits.items()}
    names = list(splits)
    pairs = [(one, other) for place, other in enumerate(names) for one in names[:place]]
    shared = {f"{one}/{other}": int(np.isin(digests[other], digests[one]).sum()) for one, other in pairs}
    return {
        "class_counts": {name: _class_counts(split, len(dataset.classes)) for name, split in splits.items()},
        "distinct": len(np.unique(digests["train"])),
        "flat": {name: _count_flat(split.images) for name, split in splits.items()},
        "in_two_splits": shared,
        "two_labels": _two_labels(
            np.concatenate([*digests.values()]), np.concatenate([split.labels for split in splits.values()])
        ),
    }


def _class_counts(split: Split, classes: int) -> list[int]:
    return np.bincount(split.labels, minlength=classes).tolist()


def _digests(images: np.ndarray) -> np.ndarray:
    """Returns a 64-bit digest of each image: uint64 [N]."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    whole = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(whole, np.uint64)


def _count_flat(images: np.ndarray) -> int:
    chunks = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
    return sum(int((chunk == chunk[:, :1, :1]).all(axis=(1, 2, 3)).sum()) for chunk in chunks)


def _two_labels(digests: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    order = np.lexsort((labels, digests))
    digests, labels = digests[order], labels[order]
    differs = (digests[1:] == digests[:-1]) & (labels[1:] != labels[:-1])
    pairs = np.unique(np.stack([labels[:-1][differs], labels[1:][differs]], axis=1), axis=0)
    return {"images": len(np.unique(digests[1:][differs])), "pairs": pairs[:3].tolist()}
