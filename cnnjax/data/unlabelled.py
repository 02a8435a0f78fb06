"""Reads images without labels, to be predicted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnjax.data.checks import PathError
from cnnjax.data.npy import read_npy
from cnnjax.data.npz import read_npz_images
from cnnjax.data.pictures import SUFFIXES, decode_pictures, find_pictures
from cnnjax.data.rows import is_csv, read_unlabelled_rows
from cnnjax.paths import expanded
from cnnjax.types import RequestError, first_line

ACCEPTED = (
    f"a folder of images ({SUFFIXES}); a .csv or .csv.gz file (a header row of ID,pix1,pix2,...; grey squares); "
    "a .npy file (uint8 [N, H, W, C], [N, H, W] or [N, S*S]); or an .npz file with such an array named images"
)


def read_unlabelled(path: str, key: str = "--input") -> tuple[list[str], Sequence[np.ndarray] | np.ndarray]:
    """Reads images that are to be predicted.

    Args:
        path: a folder of images, or a .csv, .csv.gz, .npy or .npz file.
        key: what the path was asked for as; an error names it.

    Returns:
        The IDs: of a CSV file its column ID, as written, of a folder the files' names, otherwise
        0, 1, ...; and the images, uint8 [H, W, C] each: one array [N, H, W, C], or a list of a
        folder's, whose sizes and channels (1 if grey, otherwise 3) may differ.

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


def _read(where: Path) -> tuple[list[str], Sequence[np.ndarray] | np.ndarray]:
    if where.is_dir():
        paths = find_pictures(where)
        if not paths:
            raise PathError(where, f"it has no image; allowed: {ACCEPTED}")
        return [path.name for path in paths], list(decode_pictures(paths, f"decoding {where.name}"))
    if where.is_file() and is_csv(where):
        return read_unlabelled_rows(where)
    readers = {".npy": read_npy, ".npz": read_npz_images}
    if where.is_file() and (read := readers.get(where.suffix.lower())):
        images = read(where)
        return [str(index) for index in range(len(images))], images
    what = "it is of no kind that is read" if where.exists() else "there is no such file"
    raise PathError(where, f"{what}; allowed: {ACCEPTED}")
