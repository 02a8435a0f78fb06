"""Reads images that are to be predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data.readers.checks import PathError, checked_images, count_suffixes, entries, to_bytes
from cnnjax.data.readers.csv import is_csv, read_unlabeled_rows
from cnnjax.data.readers.image_files import SUFFIXES, count_remarks, decode_pictures, find_pictures, is_picture
from cnnjax.data.readers.npy import map_npy
from cnnjax.data.readers.npz import read_npz_images
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded
from cnnjax.utils.text import counted, first_line

ACCEPTED = (
    f"an image or a folder of images ({SUFFIXES}), or of such a folder for each class; "
    "a .csv or .csv.gz file (a header row of ID,pix1,pix2,...; gray squares); "
    "a .npy file ([N, H, W, C], [N, H, W] or [N, S*S], of uint8, of floating point of 0..1, or of numbers of 0..255); "
    "or an .npz file with such an array named images"
)


class Unlabeled(NamedTuple):
    """Images that are to be predicted.

    Attributes:
        ids: of a CSV file its column ID, as written, of image files their names (after the folder's and a slash, where
            there are several folders), otherwise 0, 1, ...
        images: uint8 [H, W, C] each: one array [N, H, W, C], or a list of image files', whose sizes and channels (1 if
            gray, otherwise 3) may differ.
        classes: the name of each image's folder where the images lie in a folder for each class, otherwise None.
        notes: what is to be said of how they were read.
    """

    ids: list[str]
    images: Sequence[np.ndarray] | np.ndarray
    classes: list[str] | None = None
    notes: tuple[str, ...] = ()


def read_unlabeled(path: str, key: str = "--input") -> Unlabeled:
    """Reads images that are to be predicted.

    Args:
        path: an image, a folder of images or of a folder for each class, or a .csv, .csv.gz, .npy or .npz file.
        key: what the path was asked for as; an error names it.

    Raises:
        RequestError: nothing readable is there, or a file is damaged.
    """
    where = expanded(key, path)
    try:
        return _read(where)
    except PathError as error:
        raise error.under(key) from error
    except OSError as error:
        raise RequestError(key, path, f"it cannot be read: {first_line(error)}") from error


def _read(where: Path) -> Unlabeled:
    if where.is_dir():
        return _read_folder(where)
    if where.is_file() and is_csv(where):
        return Unlabeled(*read_unlabeled_rows(where))
    if where.is_file() and where.suffix.lower() in (".npy", ".npz"):
        images = _read_npy(where) if where.suffix.lower() == ".npy" else read_npz_images(where)
        return Unlabeled([str(index) for index in range(len(images))], images)
    if is_picture(where):
        return _decode([where], [where.name])
    what = "it is of no kind that is read" if where.exists() else "there is no such file"
    raise PathError(where, f"{what}; use {ACCEPTED}")


def _read_npy(path: Path) -> np.ndarray:
    return checked_images(path, "its array", to_bytes(path, "its array", map_npy(path)))


def _read_folder(where: Path) -> Unlabeled:
    """Reads the images of a folder, or else those of its folders."""
    paths, others = find_pictures(where)
    folders = [path for path in entries(where) if path.is_dir()]
    notes, classes = [], None
    if paths and folders:
        within = counted(sum(len(find_pictures(folder)[0]) for folder in folders), "image")
        names = ", ".join(folder.name for folder in folders)
        notes.append(f"left out: {counted(len(folders), 'folder')} ({names}) with {within}")
    elif folders:
        for folder in folders:
            pictures, rest = find_pictures(folder)
            paths += pictures
            others += rest
        classes = [path.parent.name for path in paths]
    if not paths:
        but = f" but {count_suffixes(others)}" if others else ""
        if deeper := [folder for folder in folders if any(path.is_dir() for path in entries(folder))]:
            but = f" of its own or a folder's own; did you mean {deeper[-1]}?"
        raise PathError(where, f"it has no image{but}; use {ACCEPTED}")
    if others:
        notes.append(f"left out, not read as images: {count_suffixes(others)}")
    return _decode(paths, [str(path.relative_to(where)) for path in paths], classes, notes)


def _decode(
    paths: list[Path], ids: list[str], classes: list[str] | None = None, notes: Sequence[str] = ()
) -> Unlabeled:
    pictures = list(decode_pictures(paths, f"decoding {counted(len(paths), 'image')}"))
    remarks = count_remarks(remark for picture in pictures for remark in picture.remarks)
    return Unlabeled(ids, [picture.pixels for picture in pictures], classes, (*notes, *remarks))
