"""CSV files with an image in each row, under a header row: its label or its ID, and its pixels.

Gray images only: their pixels are the rows of a square, one after another. In what order a row would
hold three colors is agreed nowhere, so such files are refused and not guessed at.
"""

import csv
import gzip
import io
import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import SPLITS, PathError, by_split, checked_split
from cnnjax.utils.text import first_line

_FORM = "a header row of label (or ID) and pix1,pix2,... in order"
_HEADER = 1 << 25  # bytes: the longest header row that is read
_BLOCK = 1 << 20  # bytes read at a time, or more if a row is longer


class _Header(NamedTuple):
    """The columns of a file: all, the one that is no pixel, and the pixels."""

    names: list[str]
    key: str
    pixels: list[str]


def is_csv(path: Path) -> bool:
    """Whether a file's name says that it is CSV, gzipped or not."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def find_csv(folder: Path) -> list[Path]:
    """Returns the CSV files of a folder that are named as splits; of a file and its packed copy the unpacked one."""
    files = sorted(path for path in folder.iterdir() if is_csv(path) and _split(path) and path.is_file())
    return [path for path in files if path.with_suffix("") not in files]


def read_csv(path: Path) -> Source:
    """Reads a CSV file, or a folder of train.csv and optionally val.csv and test.csv, as `read_labeled_rows`.

    A file that is called train.csv is read with the other splits beside it. What has no labels is left out.

    Raises:
        RequestError: as `read_labeled_rows`; or two files are one split.
    """
    found, notes = find_csv(path if path.is_dir() else path.parent), []
    if path.is_dir():
        files = by_split(found, _stem)
    elif _split(path) == "train":
        files = by_split([path, *(other for other in found if _split(other) != "train")], _stem)
    else:
        files = {"train": path}
        notes = [f"left out, because it lies beside {path.name}: {other.name}" for other in found if other != path]
    for split in ("validation", "test"):
        if split in files and (why := _no_labels(files[split])):
            notes.append(f"left out, because {why}: {files.pop(split).name}")
    splits = {split: read_labeled_rows(file) for split, file in files.items()}
    return Source(splits["train"], splits.get("test"), (), splits.get("validation"), tuple(notes))


def _split(path: Path) -> str | None:
    return SPLITS.get(_stem(path).lower())


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _no_labels(path: Path) -> str:
    """Says why a file is none of labeled images; "" of one that is."""
    try:
        return "" if _read_header(path).key.lower() == "label" else "its images have no labels"
    except PathError as error:
        return error.what


def read_labeled_rows(path: Path) -> Split:
    """Reads a CSV file of the columns label,pix1,pix2,... (`label` may also stand last).

    Args:
        path: the file, gzipped if its name ends in .gz.

    Returns:
        Images [N, S, S, 1] for S*S pixels, in the order of the rows.

    Raises:
        RequestError: other columns, no square number of pixels, or a cell that is not a whole number
            (of 0..255, for a pixel).
    """
    header = _read_header(path)
    if header.key.lower() != "label":
        raise PathError(path, f"its images have an {header.key} and no label: to be predicted, not to be studied")
    labels, images = _read_columns(path, header)
    return checked_split(path, (f"{header.pixels[0]}..{header.pixels[-1]}", header.key), images, labels)


def read_unlabeled_rows(path: Path) -> tuple[list[str], np.ndarray]:
    """Reads a CSV file of the columns ID,pix1,pix2,...

    Returns:
        The IDs, as written, and the images [N, S, S, 1], in the order of the rows.

    Raises:
        RequestError: as `read_labeled_rows`; or there is no column ID, or no row.
    """
    header = _read_header(path)
    if header.key.lower() != "id":
        raise PathError(path, f"it has a column {header.key} and no column ID; use ID,pix1,pix2,...")
    ids, images = _read_columns(path, header)
    if not len(ids):
        raise PathError(path, "it has no row below its header")
    return ids.tolist(), images


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _read_header(path: Path) -> _Header:
    """Returns the columns, once the pixels are known to be those of a square, in order."""
    try:
        with _open(path) as file:
            line = file.readline(_HEADER).decode("utf-8-sig")
        names = next(csv.reader([line]), [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise PathError(path, f"it cannot be read: {first_line(error)}") from error
    keys = [name for name in names if name.lower() in ("label", "id")]
    pixels = [name for name in names if name not in keys]
    if len(keys) != 1 or not pixels:
        found = ",".join(names)[:40]
        raise PathError(path, f"it begins with {found!r}; use {_FORM}, and just one of label and ID")
    parts = [re.fullmatch(r"(\D*)([0-9]{1,9})", name) for name in pixels]
    numbered = [(part[1], int(part[2])) if part else None for part in parts]
    for index, name in enumerate(pixels):
        if numbered[0] is None or numbered[index] != (numbered[0][0], numbered[0][1] + index):
            raise PathError(path, f"its column {name[:40]!r} is no pixel or out of order; use {_FORM}")
    if math.isqrt(len(pixels)) ** 2 != len(pixels):
        raise PathError(path, f"it has {len(pixels):,} pixels; use those of a gray square (784 = 28x28, say)")
    return _Header(names, keys[0], pixels)


def _read_columns(path: Path, header: _Header) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels (int64 [N]) or IDs (str [N]), and the images [N, S, S, 1]."""
    import pyarrow  # lazily: it takes half a second
    from pyarrow import csv as arrow

    types = dict.fromkeys(header.names, pyarrow.uint8())
    types[header.key] = pyarrow.int64() if header.key.lower() == "label" else pyarrow.string()
    reading = arrow.ReadOptions(  # in threads it would not know in which row it finds a fault
        use_threads=False, block_size=max(_BLOCK, sum(len(name) + 16 for name in types))
    )
    converting = arrow.ConvertOptions(  # nothing stands for an absent number
        column_types=types, include_columns=header.names, null_values=[], strings_can_be_null=False
    )
    try:
        with _open(path) as file:
            table = arrow.read_csv(file, reading, convert_options=converting)
    except pyarrow.ArrowException as error:
        raise PathError(path, _fault(header, str(error))) from error
    except (OSError, EOFError, zlib.error) as error:
        raise PathError(path, f"it cannot be read: {first_line(error)}") from error
    side = math.isqrt(len(header.pixels))
    images = np.stack([table[name].to_numpy() for name in header.pixels], axis=1)
    return table[header.key].to_numpy(), images.reshape(-1, side, side, 1)


def _fault(header: _Header, message: str) -> str:
    """Says in one line which cell pyarrow, which skips empty lines, did not like."""
    counted = "the header is 1, empty lines do not count"
    cell = re.fullmatch(r"In CSV column #(\d+): Row #(\d+): .* to (\w+): invalid (.*)", message, re.DOTALL)
    if cell is None:
        said = re.sub(r"Row #(\d+)", rf"row \1 ({counted})", message.splitlines()[0][:120])
        return f"it cannot be read: {said}"
    allowed = {"uint8": "a whole number of 0..255", "int64": "a whole number"}.get(cell[3], "text in UTF-8")
    column = header.names[int(cell[1])]
    found = " ".join(cell[4].split())[:60]
    return f"row {cell[2]} ({counted}), column {column}: invalid {found}; use {allowed}"
