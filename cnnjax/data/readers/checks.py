"""Checks that the readers share, and the error that names the file."""

import collections
import contextlib
import csv
import math
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import psutil

from cnnjax.data.dataset import Split
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import NO_TEXT, is_text
from cnnjax.utils.text import counted, first_line

# Errors that NumPy, csv, zipfile and zlib raise for damaged files. NumPy parses a header as Python code.
_DAMAGE = (
    *(OSError, EOFError, MemoryError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(csv.Error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
# Files that operating systems and archivers add to folders, besides hidden ones.
_SYSTEM = (
    *("__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("@eadir", "lost+found"),
)
_MAX_SUFFIXES = 8  # that a note lists

# Names of splits in files, compared in lower case.
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


class PathError(RequestError):
    """An unusable file or folder. The message is one line that names the path and the problem."""

    def __init__(self, path: Path, problem: str):
        super().__init__("data.path", str(path), problem)
        self.path, self.problem = path, problem

    def with_key(self, key: str) -> RequestError:
        """Returns the same error for a path that the user gave as `key`."""
        return RequestError(key, str(self.path), self.problem)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns the errors of libraries that read a damaged file into a PathError."""
    try:
        yield
    except RequestError:  # a ValueError
        raise
    except _DAMAGE as error:
        raise PathError(path, f"the file cannot be read: {first_line(error)}") from error


def list_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns the sorted content of a folder, without hidden files and files of the operating system.

    An entry knows whether it is a file, which a path would have to ask for: a folder may have 100,000 images.

    Raises:
        PathError: a name is not UTF-8, or a link is broken.
    """
    with os.scandir(folder) as entries:
        shown = (entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM)
        found = sorted(shown, key=lambda entry: entry.name)
    for entry in found:
        if not is_text(entry.name):
            raise PathError(folder / entry.name, NO_TEXT)
        if entry.is_symlink() and not (folder / entry.name).exists():
            raise PathError(folder / entry.name, "the link is broken; remove it or restore its target")
    return found


def list_folder(folder: Path) -> list[Path]:
    """Returns the content of a folder as paths; sorts and raises as `list_entries`."""
    return [folder / entry.name for entry in list_entries(folder)]


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders in a folder; sorts and raises as `list_entries`."""
    return [folder / entry.name for entry in list_entries(folder) if entry.is_dir()]


def count_suffixes(paths: Iterable[Path]) -> str:
    """Counts the files of each suffix, the most frequent first: "12 .HEIC, 1 without suffix"."""
    suffixes = collections.Counter(path.suffix or "without suffix" for path in paths)
    counts = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {suffix}" for suffix, count in counts[:_MAX_SUFFIXES]]
    others = sum(count for _, count in counts[_MAX_SUFFIXES:])
    return ", ".join([*named, counted(others, "other")] if others else named)


def by_split(paths: Iterable[Path], name: Callable[[Path], str]) -> dict[str, Path]:
    """Returns the paths of splits; `name(path)` is looked up in `SPLITS`, and other paths are dropped.

    Raises:
        PathError: two paths name the same split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = SPLITS.get(name(path).lower())
        if split in found:
            raise PathError(path, f"{found[split].name} in the same folder is the {split} split, too; use one of them")
        if split is not None:
            found[split] = path
    return found


def sort_class_names(names: Iterable[str]) -> list[str]:
    """Sorts class names as numbers if all are numbers, otherwise as text."""
    names = sorted(names)
    return sorted(names, key=Decimal) if all(map(is_number, names)) else names


def is_number(name: str) -> bool:
    """Whether a class name is a number, such as 7, 07 or -1.5."""
    return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", name) is not None


def check_memory(key: str, value: object, size: int) -> None:
    """Raises a RequestError on `key` if `size` bytes do not fit into the free memory."""
    free = psutil.virtual_memory().available
    if size > free:
        problem = f"the images would take {size / 1e9:,.1f} GB; use at most the {free / 1e9:,.1f} GB that are free"
        raise RequestError(key, value, problem)


def to_split(path: Path, keys: tuple[str, str], images: np.ndarray, labels: np.ndarray) -> Split:
    """Returns images and labels as a split.

    Args:
        path: the file, for errors.
        keys: the names of the images and of the labels in the file, for errors.
        images: as in `to_image_array`.
        labels: integers [N] or [N, 1], not negative.

    Raises:
        PathError: a type, shape or label is wrong, the numbers of images and labels differ, or there are none.
    """
    images = to_image_array(path, keys[0], images)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise PathError(path, f"{keys[1]} is {labels.dtype} {list(labels.shape)}; use whole numbers [N]")
    if len(images) != len(labels) or not images.size:
        found = f"{keys[0]} holds {len(images):,} images and {keys[1]} holds {len(labels):,} labels"
        raise PathError(path, f"{found}; use one label for each image, and at least one image")
    if labels.min() < 0 or labels.max() >= 2**31:
        found = f"the labels of {keys[1]} range over {labels.min()}..{labels.max()}"
        raise PathError(path, f"{found}; use whole numbers from 0")
    return Split(images, labels.astype(np.int32))


def to_image_array(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    """Returns images as [N, H, W, C].

    Args:
        path: the file, for errors.
        key: the name of the array in the file, for errors.
        images: uint8 [N, H, W, C] with C at most 4, [N, H, W], or [N, S*S] (flattened squares).

    Raises:
        PathError: another type or shape.
    """
    if images.ndim == 2 and math.isqrt(images.shape[1]) ** 2 == images.shape[1]:
        side = math.isqrt(images.shape[1])
        images = images.reshape(len(images), side, side)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[-1] <= 4:
        found = f"{key} is {images.dtype} {list(images.shape)}"
        raise PathError(path, f"{found}; use uint8 [N, H, W, C] with C at most 4, [N, H, W] or [N, S*S]")
    return images


def scale_to_image_array(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    """Returns images as uint8 [N, H, W, C], as `to_image_array`; floats in 0..1 are scaled to 0..255.

    Other numbers in 0..255 are rounded if the maximum is above 127: otherwise their range is ambiguous.

    Raises:
        PathError: another range, type or shape, or no image.
    """
    if not images.size:
        raise PathError(path, f"{key} is empty; use at least one image")
    if images.dtype != np.uint8 and images.dtype.kind in "iuf":
        low, high = images.min(), images.max()
        if images.dtype.kind == "f" and low >= 0 and high <= 1:
            images = np.rint(255 * images.astype(np.float32)).astype(np.uint8)
        elif low >= 0 and 127 < high <= 255:
            images = np.rint(images).astype(np.uint8)
        else:
            allowed = "uint8, floating point of 0..1, or numbers of 0..255 with a maximum above 127"
            raise PathError(path, f"{key} is {images.dtype} of {low:.4g}..{high:.4g}; use {allowed}")
    return to_image_array(path, key, images)
