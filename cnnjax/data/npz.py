"""NumPy's .npz files."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnnjax.data.checks import DEFLATE_GROWTH, UNREADABLE, PathError, check_size, checked_images, checked_split
from cnnjax.data.dataset import Split
from cnnjax.data.npy import promised_bytes
from cnnjax.types import RequestError, first_line

_KEYS = (("x_train", "y_train"), ("images", "labels"))


def read_npz(path: Path) -> tuple[Split, Split | None]:
    """Reads x_train, y_train and, if they are there, x_test, y_test; or images, labels.

    Raises:
        RequestError: other arrays, or a damaged file.
    """
    with _arrays(path) as arrays:
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


def read_npz_images(path: Path) -> np.ndarray:
    """Reads the array `images` and nothing else, as uint8 [N, H, W, C].

    Raises:
        RequestError: there is none, it holds no images, or the file is damaged.
    """
    with _arrays(path) as arrays:
        if "images" not in arrays:
            raise PathError(path, f"it holds {sorted(arrays)}; allowed: images")
        images = checked_images(path, "images", arrays["images"])
    if not images.size:
        raise PathError(path, "images is empty; allowed: at least one image")
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
