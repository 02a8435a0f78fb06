"""Finds duplicate images, images of one color, and class imbalance."""

import hashlib
from typing import Any

import numpy as np

from cnnjax.data.dataset import Dataset

_BATCH = 1024  # images compared at a time


def examine(dataset: Dataset) -> dict[str, Any]:
    """Counts the images of each class, duplicate images and images of one color.

    Duplicates are equal in every pixel.

    Returns:
        JSON values: `class_counts` (images per split and class), `distinct` (distinct training images), `flat` (images
        of one color per split), `in_two_splits` (for each pair of splits, the images of the later that are also in the
        earlier: {"train/test": 3}), and `two_labels` (the number of distinct images with several labels, and up to
        three pairs of such labels).
    """
    splits = dataset.splits
    if dataset.validation_from == "same_as_test":
        del splits["validation"]  # reported separately
    digests = {name: _digests(split.images) for name, split in splits.items()}
    names = list(splits)
    pairs = [(one, other) for index, other in enumerate(names) for one in names[:index]]
    shared = {f"{one}/{other}": int(np.isin(digests[other], digests[one]).sum()) for one, other in pairs}
    return {
        "class_counts": {
            name: np.bincount(split.labels, minlength=len(dataset.classes)).tolist() for name, split in splits.items()
        },
        "distinct": len(np.unique(digests["train"])),
        "flat": {name: _count_flat(split.images) for name, split in splits.items()},
        "in_two_splits": shared,
        "two_labels": _two_labels(
            np.concatenate([*digests.values()]), np.concatenate([split.labels for split in splits.values()])
        ),
    }


def _digests(images: np.ndarray) -> np.ndarray:
    """Returns a 64-bit digest of each image: uint64 [N]."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    whole = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(whole, np.uint64)


def _count_flat(images: np.ndarray) -> int:
    batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return sum(int((batch == batch[:, :1, :1]).all(axis=(1, 2, 3)).sum()) for batch in batches)


def _two_labels(digests: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    order = np.lexsort((labels, digests))
    digests, labels = digests[order], labels[order]
    differs = (digests[1:] == digests[:-1]) & (labels[1:] != labels[:-1])
    pairs = np.unique(np.stack([labels[:-1][differs], labels[1:][differs]], axis=1), axis=0)
    return {"images": len(np.unique(digests[1:][differs])), "pairs": pairs[:3].tolist()}
