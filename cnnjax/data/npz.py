"""NumPy's .npz files."""

import zipfile
from pathlib import Path

import numpy as np

from cnnjax.data.checks import DEFLATE_GROWTH, UNREADABLE, PathError, check_size, checked_split, first_line
from cnnjax.data.dataset import Split
from cnnjax.data.npy import promised_bytes
from cnnjax.types import RequestError

_KEYS = (("x_train", "y_train"), ("images", "labels"))


def read_npz(path: Path) -> tuple[Split, Split | None]:
    """Reads x_train, y_train and, if they are there, x_test, y_test; or images, labels.

    Raises:
        RequestError: other arrays, or a damaged file.
    """
    try:
        for key, size in _npz_sizes(path).items():
            check_size(path, size, DEFLATE_GROWTH, f"{key!r} promises")
        with np.load(path, allow_pickle=False) as arrays:
            keys = next((pair for pair in _KEYS if set(pair) <= set(arrays)), None)
            if keys is None:
                allowed = "x_train, y_train and optionally x_test, y_test; or images, labels"
                raise PathError(path, f"it holds {sorted(arrays)}; allowed: {allowed}")
            train = checked_split(path, keys, *(arrays[key] for key in keys))
            keys = ("x_test", "y_test")
            if not set(keys) & set(arrays):
                return train, None
            if not set(keys) <= set(arrays):
                raise PathError(path, "it holds only one of x_test and y_test")
            return train, checked_split(path, keys, *(arrays[key] for key in keys))
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
