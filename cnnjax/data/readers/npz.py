"""NumPy's .npz files."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Source
from cnnjax.data.readers.checks import (
    DEFLATE_GROWTH,
    SPLITS,
    UNREADABLE,
    PathError,
    check_size,
    checked_images,
    checked_split,
    to_bytes,
)
from cnnjax.data.readers.npy import promised_bytes
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import counted, first_line

# What the arrays of a split are called: as Keras has it, or as MedMNIST.
_FORMS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
ALLOWED = (
    "x_train, y_train and optionally x_val, y_val, x_test, y_test; "
    "train_images, train_labels and optionally val_images, ...; or images, labels"
)


def read_npz(path: Path) -> Source:
    """Reads the arrays of `ALLOWED`; val may also be called valid or validation.

    Raises:
        RequestError: other arrays, or a damaged file.
    """
    with _arrays(path) as arrays:
        keys = _keys(path, set(arrays))
        unread = sorted(set(arrays) - {key for pair in keys.values() for key in pair})
        notes = (f"left out: {counted(len(unread), 'array')} ({', '.join(unread)})",) if unread else ()
        splits = {split: checked_split(path, pair, *(arrays[key] for key in pair)) for split, pair in keys.items()}
        return Source(splits["train"], splits.get("test"), (), splits.get("validation"), notes)


def _keys(path: Path, names: set[str]) -> dict[str, tuple[str, str]]:
    """Returns the names of the images and labels of each split."""
    found: dict[str, tuple[str, str]] = {}
    for images, labels in _FORMS:
        for name, split in SPLITS.items():
            pair = images.format(name), labels.format(name)
            there = names & set(pair)
            if there and split in found:
                raise PathError(path, f"{' and '.join(sorted(there))} and {found[split][0]} are both the {split} split")
            if there:
                found[split] = pair
    if "train" not in found and {"images", "labels"} <= names:
        return {"train": ("images", "labels")}
    if "train" not in found or not set(found["train"]) <= names:
        raise PathError(path, f"it holds {sorted(names)}; use {ALLOWED}")
    for pair in found.values():
        if not set(pair) <= names:
            raise PathError(path, f"it holds only one of {pair[0]} and {pair[1]}")
    return found


def read_npz_images(path: Path) -> np.ndarray:
    """Reads the array `images` and nothing else, as uint8 [N, H, W, C]; see `to_bytes`.

    Raises:
        RequestError: there is none, it holds no images, or the file is damaged.
    """
    with _arrays(path) as arrays:
        if "images" not in arrays:
            raise PathError(path, f"it holds {sorted(arrays)}; use images")
        images = checked_images(path, "images", to_bytes(path, "images", arrays["images"]))
    if not images.size:
        raise PathError(path, "images is empty; use at least one image")
    return images


@contextlib.contextmanager
def _arrays(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens a file whose arrays are no larger than it can hold."""
    try:
        for key, size in _npz_sizes(path).items():
            check_size(path, size, DEFLATE_GROWTH, f"{key!r} promises")
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except RequestError:  # itself a ValueError
        raise
    except UNREADABLE as error:
        raise PathError(path, f"it cannot be read: {first_line(error)}") from error


def _npz_sizes(path: Path) -> dict[str, int]:
    """Returns how many bytes the header of each array promises, reading no array."""
    sizes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                sizes[name.removesuffix(".npy")] = promised_bytes(file)
    return sizes
