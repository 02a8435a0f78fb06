"""NumPy's .npy files of images, and folders of one for each class, as Quick, Draw! publishes its bitmaps."""

import math
from pathlib import Path
from typing import IO

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import (
    UNREADABLE,
    PathError,
    by_number,
    check_size,
    checked_images,
    count_suffixes,
    entries,
)
from cnnjax.runs.integrity import read_header
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import first_line

_PREFIX = "full_numpy_bitmap_"  # of the published files' names


def has_npy(folder: Path) -> bool:
    """Whether a folder holds any .npy file."""
    return bool(_files(folder))


def promised_bytes(file: IO[bytes]) -> int:
    """Returns how many bytes of numbers the header of an array promises, reading no more than it."""
    shape, dtype = read_header(file)
    return math.prod(shape) * dtype.itemsize


def read_npy(path: Path) -> np.ndarray:
    """Maps a file of images; pixels are read when they are used.

    Returns:
        uint8 [N, H, W, C], from [N, H, W, C], [N, H, W] or rows of a square's pixels [N, S*S].

    Raises:
        RequestError: it holds anything else, no image, or less than its header promises.
    """
    return checked_images(path, "its array", map_npy(path))


def map_npy(path: Path) -> np.ndarray:
    """Maps the array of a file, whatever it is of.

    Raises:
        RequestError: it holds no array, an empty one, or less than its header promises.
    """
    try:
        with path.open("rb") as file:
            check_size(path, promised_bytes(file), 1)
        images: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except RequestError:  # itself a ValueError
        raise
    except UNREADABLE as error:
        raise PathError(path, f"it cannot be read: {first_line(error)}") from error
    if not images.size:
        raise PathError(path, f"its array {list(images.shape)} is empty; use at least one image")
    return images


def read_npy_folder(folder: Path) -> Source:
    """Reads a folder of one file for each class, named after it.

    Returns:
        The images, class after class in the order of `by_number`, and the names: those of the files,
        without `.npy` and without `full_numpy_bitmap_`.

    Raises:
        RequestError: as `read_npy`; or the files differ in image size, or two name one class.
    """
    files = {path.stem.removeprefix(_PREFIX): path for path in _files(folder)}
    if len(files) < len(_files(folder)):
        raise PathError(folder, f"two of its files name the same class, their suffix and {_PREFIX} left out")
    classes = tuple(by_number(files))
    parts = [read_npy(files[name]) for name in classes]
    for name, part in zip(classes, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            shapes = f"{list(part.shape[1:])}, those of {files[classes[0]].name} {list(parts[0].shape[1:])}"
            raise PathError(files[name], f"its images are {shapes}; use one size")
    labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    others = [path for path in entries(folder) if path.is_file() and path.suffix.lower() != ".npy"]
    notes = (f"left out, not read as arrays: {count_suffixes(others)}",) if others else ()
    return Source(Split(np.concatenate(parts), labels), None, classes, notes=notes)


def _files(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.suffix.lower() == ".npy" and path.is_file()]
