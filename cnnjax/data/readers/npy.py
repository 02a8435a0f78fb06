"""Reads .npy files of images, and folders with one file per class, such as Quick, Draw! bitmaps."""

import math
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import (
    PathError,
    count_suffixes,
    list_folder,
    reading,
    sort_class_names,
    to_image_array,
)
from cnnjax.runs.integrity import read_header

_PREFIX = "full_numpy_bitmap_"  # of the file names that Quick, Draw! publishes


def has_npy(folder: Path) -> bool:
    """Whether a folder holds any .npy file."""
    return bool(_files(folder))


def read_npy(path: Path) -> np.ndarray:
    """Maps a file of images into memory: uint8 [N, H, W, C], from a shape that `to_image_array` takes.

    Raises:
        RequestError: another type or shape, no image, or a damaged file.
    """
    return to_image_array(path, "the array", map_npy(path))


def map_npy(path: Path) -> np.ndarray:
    """Maps an array of any type into memory; values are read when they are used.

    Raises:
        RequestError: the file holds no array or an empty one, or is shorter than its header promises.
    """
    with reading(path):
        with path.open("rb") as file:
            shape, dtype = read_header(file)
        promised, size = math.prod(shape) * dtype.itemsize, path.stat().st_size
        if promised > size:
            raise PathError(path, f"the header promises {promised:,} bytes, but the file has {size:,}")
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    if not array.size:
        raise PathError(path, f"the array {list(array.shape)} is empty; use at least one image")
    return array


def read_npy_folder(folder: Path) -> Source:
    """Reads a folder with one file per class.

    Returns:
        The images, class by class. A class is named after its file, without `.npy` and `full_numpy_bitmap_`.

    Raises:
        RequestError: as `read_npy`; or the image sizes differ, or two files name one class.
    """
    files = {path.stem.removeprefix(_PREFIX): path for path in _files(folder)}
    if len(files) < len(_files(folder)):
        raise PathError(folder, f"two files name the same class, apart from their suffix and {_PREFIX}; rename one")
    classes = tuple(sort_class_names(files))
    arrays = [read_npy(files[name]) for name in classes]
    for name, array in zip(classes, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            shapes = f"{list(array.shape[1:])}, those of {files[classes[0]].name} {list(arrays[0].shape[1:])}"
            raise PathError(files[name], f"the images are {shapes}; use one size")
    labels = np.repeat(np.arange(len(arrays), dtype=np.int32), [len(array) for array in arrays])
    others = [path for path in list_folder(folder) if path.is_file() and path.suffix.lower() != ".npy"]
    notes = (f"left out, not read as arrays: {count_suffixes(others)}",) if others else ()
    return Source(Split(np.concatenate(arrays), labels), None, classes, notes=notes)


def _files(folder: Path) -> list[Path]:
    return [path for path in list_folder(folder) if path.suffix.lower() == ".npy" and path.is_file()]
