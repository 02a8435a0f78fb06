"""What every reader of files checks, and the error that names the file."""

import collections
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path

import numpy as np
import psutil

from cnnjax.data.dataset import Split
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import NO_TEXT, is_text
from cnnjax.utils.text import counted

DEFLATE_GROWTH = 1032  # a byte of deflated data stands for at most so many bytes
# What NumPy, zipfile and zlib raise for damaged files; NumPy reads a header as Python's syntax.
UNREADABLE = (
    *(OSError, EOFError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)

# What operating systems and archives leave in folders, beside what is hidden.
_SYSTEM = (
    *("__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("@eadir", "lost+found"),
)
_SUFFIXES_NAMED = 8  # of the files that are left out

# The names of splits, in any capitals.
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


class PathError(RequestError):
    """A file or folder that cannot be used: one line that names it and what is wrong with it."""

    def __init__(self, path: Path, what: str):
        super().__init__("data.path", str(path), what)
        self.path, self.what = path, what

    def under(self, key: str) -> RequestError:
        """Returns the same fault of a path that was asked for as `key`."""
        return RequestError(key, str(self.path), self.what)


def entries(folder: Path) -> list[Path]:
    """Returns what a folder holds, by name, without what is hidden or written there by an operating system.

    Raises:
        PathError: a name is not UTF-8, or a link leads nowhere: nothing is left out in silence.
    """
    seen = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in _SYSTEM)
    found = sorted(seen)
    for path in found:
        if not is_text(path.name):
            raise PathError(path, NO_TEXT)
        if path.is_symlink() and not path.exists():
            raise PathError(path, "it is a link to nothing")
    return found


def count_suffixes(paths: Iterable[Path]) -> str:
    """Says how many files of each suffix there are, the most frequent first: "12 .HEIC, 1 without suffix"."""
    suffixes = collections.Counter(path.suffix or "without suffix" for path in paths)
    counts = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {suffix}" for suffix, count in counts[:_SUFFIXES_NAMED]]
    others = sum(count for _, count in counts[_SUFFIXES_NAMED:])
    return ", ".join([*named, f"{counted(others, 'other')}"] if others else named)


def by_split(paths: Iterable[Path], name: Callable[[Path], str]) -> dict[str, Path]:
    """Returns the paths whose names are those of splits, by split.

    Raises:
        PathError: two are one split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = SPLITS.get(name(path).lower())
        if split in found:
            raise PathError(path, f"{found[split].name} beside it is the {split} split, too; use one of them")
        if split is not None:
            found[split] = path
    return found


def by_number(names: Iterable[str]) -> list[str]:
    """Returns class names in their order: as numbers if all of them are numbers, otherwise as text."""
    names = sorted(names)
    return sorted(names, key=Decimal) if all(map(is_number, names)) else names


def is_number(name: str) -> bool:
    """Whether a class name is a number, such as 7, 07 or -1.5."""
    return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", name) is not None


def check_size(path: Path, size: int, growth: int, what: str = "its header promises") -> None:
    """Refuses a file that promises more bytes than `growth` times its own size."""
    limit = path.stat().st_size * growth
    if size > limit:
        raise PathError(path, f"{what} {size:,} bytes, which {path.stat().st_size:,} cannot hold")


def check_memory(key: str, value: object, size: int) -> None:
    """Refuses a setting by which the data would take more bytes than the machine has to spare."""
    spare = psutil.virtual_memory().available
    if size > spare:
        what = f"the images would take {size / 1e9:,.1f} GB; use at most the {spare / 1e9:,.1f} GB that are free"
        raise RequestError(key, value, what)


def checked_split(path: Path, keys: tuple[str, str], images: np.ndarray, labels: np.ndarray) -> Split:
    """Returns images and labels as a split.

    Args:
        path: where they come from.
        keys: what they are called there.
        images: as `checked_images` takes them.
        labels: [N] or [N, 1].

    Raises:
        PathError: they are of another type or shape, none, not as many of one as of the other, or a
            label is negative.
    """
    images = checked_images(path, keys[0], images)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        found = f"{keys[1]} is {labels.dtype} {list(labels.shape)}"
        raise PathError(path, f"{found}; use whole numbers [N]")
    if len(images) != len(labels) or not images.size:
        found = f"{keys[0]} holds {len(images):,} images and {keys[1]} {len(labels):,} labels"
        raise PathError(path, f"{found}; use as many of the one as of the other, more than 0")
    if labels.min() < 0 or labels.max() >= 2**31:
        found = f"the labels of {keys[1]} lie in {labels.min()}..{labels.max()}"
        raise PathError(path, f"{found}; use 0 and more")
    return Split(images, labels.astype(np.int32))


def checked_images(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    """Returns images as [N, H, W, C].

    Args:
        path: where they come from.
        key: what they are called there.
        images: [N, H, W, C], C at most 4, [N, H, W], or rows of a square's pixels [N, S*S].

    Raises:
        PathError: they are of another type or shape.
    """
    if images.ndim == 2 and math.isqrt(images.shape[1]) ** 2 == images.shape[1]:
        side = math.isqrt(images.shape[1])
        images = images.reshape(len(images), side, side)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[-1] <= 4:
        found = f"{key} is {images.dtype} {list(images.shape)}"
        raise PathError(path, f"{found}; use uint8 [N, H, W, C], C at most 4, [N, H, W] or [N, S*S]")
    return images


def to_bytes(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    """Brings floating point of 0..1, or numbers of 0..255, to uint8; other arrays are returned as they are.

    Args:
        path: where they come from.
        key: what they are called there.
        images: pixels.

    Raises:
        PathError: they are numbers of another range, or could be of either.
    """
    if images.dtype == np.uint8 or images.dtype.kind not in "iuf" or not images.size:
        return images
    low, high = images.min(), images.max()
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(255 * images.astype(np.float32)).astype(np.uint8)
    if low >= 0 and 127 < high <= 255:  # lower ones could be of 0..1, but for rounding, or of 0..16
        return np.rint(images).astype(np.uint8)
    allowed = "uint8, floating point of 0..1, or numbers of 0..255 that reach above 127"
    raise PathError(path, f"{key} is {images.dtype} of {low:.4g}..{high:.4g}; use {allowed}")
