"""Reads images to predict."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data.readers.checks import PathError, count_suffixes, scale_to_image_array, subfolders
from cnnjax.data.readers.csv import is_csv, read_unlabeled_rows
from cnnjax.data.readers.image_files import SUFFIXES, count_notes, decode_image, is_image_file, split_image_files
from cnnjax.data.readers.npy import map_npy
from cnnjax.data.readers.npz import read_npz_images
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded
from cnnjax.utils.progress import tracked
from cnnjax.utils.text import counted, first_line

ACCEPTED = (
    f"an image or a folder of images ({SUFFIXES}), or a folder with one such folder per class; "
    "a .csv or .csv.gz file (a header row of ID,pix1,pix2,...; gray squares); "
    "a .npy file ([N, H, W, C], [N, H, W] or [N, S*S], of uint8, of floating point of 0..1, or of numbers of 0..255); "
    "or an .npz file with such an array named images"
)


class Unlabeled(NamedTuple):
    """Images to predict.

    Attributes:
        ids: the column ID of a CSV file as text, the paths of image files relative to the folder, otherwise 0, 1, ...
        images: uint8 [N, H, W, C], or for image files a list of uint8 [H, W, C], which may differ in size and in
            channels (1 if gray, otherwise 3).
        classes: the folder's name of each image if there is one folder per class, otherwise None.
        notes: notes on how the images were read.
    """

    ids: list[str]
    images: Sequence[np.ndarray] | np.ndarray
    classes: list[str] | None = None
    notes: tuple[str, ...] = ()


def read_unlabeled(path: str, key: str = "--input") -> Unlabeled:
    """Reads images to predict.

    Args:
        path: a file or folder as in `ACCEPTED`.
        key: the flag that names the path, for errors.

    Raises:
        RequestError: the path does not exist, its format is unknown, or a file is damaged.
    """
    where = expanded(key, path)
    try:
        return _read(where)
    except PathError as error:
        raise error.with_key(key) from error
    except OSError as error:
        raise RequestError(key, path, f"the path cannot be read: {first_line(error)}") from error


def _read(where: Path) -> Unlabeled:
    if where.is_dir():
        return _read_folder(where)
    if where.is_file() and is_csv(where):
        return Unlabeled(*read_unlabeled_rows(where))
    if where.is_file() and where.suffix.lower() in (".npy", ".npz"):
        is_npy = where.suffix.lower() == ".npy"
        images = scale_to_image_array(where, "the array", map_npy(where)) if is_npy else read_npz_images(where)
        return Unlabeled([str(index) for index in range(len(images))], images)
    if is_image_file(where):
        return _decode([where], [where.name])
    problem = "the format is not supported" if where.exists() else "no such file or folder"
    raise PathError(where, f"{problem}; use {ACCEPTED}")


def _read_folder(where: Path) -> Unlabeled:
    """Reads the images of a folder or, if it has none, of its subfolders."""
    paths, others = split_image_files(where)
    folders = subfolders(where)
    notes, classes = [], None
    if paths and folders:
        within = counted(sum(len(split_image_files(folder)[0]) for folder in folders), "image")
        names = ", ".join(folder.name for folder in folders)
        notes.append(f"left out: {counted(len(folders), 'folder')} ({names}) with {within}")
    elif folders:
        for folder in folders:
            images, unread = split_image_files(folder)
            paths += images
            others += unread
        classes = [path.parent.name for path in paths]
    if not paths:
        but = f" but {count_suffixes(others)}" if others else ""
        if nested := [folder for folder in folders if subfolders(folder)]:
            but = f", nor has a subfolder; did you mean {nested[-1]}?"
        raise PathError(where, f"the folder has no image{but}; use {ACCEPTED}")
    if others:
        notes.append(f"left out, not read as images: {count_suffixes(others)}")
    return _decode(paths, [str(path.relative_to(where)) for path in paths], classes, notes)


def _decode(
    paths: list[Path], ids: list[str], classes: list[str] | None = None, notes: Sequence[str] = ()
) -> Unlabeled:
    images = [decode_image(path) for path in tracked(paths, f"decoding {counted(len(paths), 'image')}")]
    remarks = count_notes(note for image in images for note in image.notes)
    return Unlabeled(ids, [image.pixels for image in images], classes, (*notes, *remarks))
