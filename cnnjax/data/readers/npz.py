"""Reads .npz files of images."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Source
from cnnjax.data.readers.checks import SPLITS, PathError, reading, scale_to_image_array, to_split
from cnnjax.utils.text import counted

_NAMES = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))  # of the arrays of a split: Keras's, MedMNIST's
ALLOWED = (
    "x_train, y_train and optionally x_val, y_val, x_test, y_test; "
    "train_images, train_labels and optionally val_images, ...; or images, labels"
)


def read_npz(path: Path) -> Source:
    """Reads the arrays of `ALLOWED`; val may also be called valid or validation.

    Raises:
        RequestError: other arrays, or a damaged file.
    """
    with _open(path) as arrays:
        keys = _keys(path, set(arrays))
        unread = sorted(set(arrays) - {key for pair in keys.values() for key in pair})
        notes = (f"left out: {counted(len(unread), 'array')} ({', '.join(unread)})",) if unread else ()
        splits = {
            split: to_split(path, pair, *(np.asarray(arrays[key]) for key in pair)) for split, pair in keys.items()
        }
        return Source(splits["train"], splits.get("test"), (), splits.get("validation"), notes)


def _keys(path: Path, names: set[str]) -> dict[str, tuple[str, str]]:
    """Returns the names of the images and labels of each split."""
    found: dict[str, tuple[str, str]] = {}
    for images, labels in _NAMES:
        for name, split in SPLITS.items():
            pair = images.format(name), labels.format(name)
            present = names & set(pair)
            if present and split in found:
                both = f"{' and '.join(sorted(present))} and {found[split][0]}"
                raise PathError(path, f"{both} are both the {split} split; use one of them")
            if present:
                found[split] = pair
    if "train" not in found and {"images", "labels"} <= names:
        return {"train": ("images", "labels")}
    if "train" not in found or not set(found["train"]) <= names:
        raise PathError(path, f"the file holds {sorted(names)}; use {ALLOWED}")
    for pair in found.values():
        if not set(pair) <= names:
            raise PathError(path, f"the file holds only one of {pair[0]} and {pair[1]}; use both")
    return found


def read_npz_images(path: Path) -> np.ndarray:
    """Reads the array `images` as uint8 [N, H, W, C]; see `scale_to_image_array`.

    Raises:
        RequestError: the array is missing, empty or holds no images, or the file is damaged.
    """
    with _open(path) as arrays:
        if "images" not in arrays:
            raise PathError(path, f"the file holds {sorted(arrays)}; use images")
        return scale_to_image_array(path, "images", np.asarray(arrays["images"]))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    with reading(path), path.open("rb") as file, np.lib.npyio.NpzFile(file) as arrays:
        yield arrays
