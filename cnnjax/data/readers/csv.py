"""Reads CSV files of square gray images: a header row, then a label or an ID and the pixels of an image in each row.

Color images are refused: there is no convention for the order of the channels in a row.
"""

import csv
import gzip
import io
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import SPLITS, PathError, by_split, reading, to_split

_FORM = "a header row of label (or ID) and pix1,pix2,... in order"
_MAX_HEADER = 1 << 25  # bytes
_BLOCK = 1 << 20  # bytes read at a time, or more if a row is longer


class _Header(NamedTuple):
    """The column names of a file: all, the label or ID, and the pixels."""

    names: list[str]
    key: str
    pixels: list[str]


def is_csv(path: Path) -> bool:
    """Whether a file has the suffix .csv or .csv.gz."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def find_csv(folder: Path) -> list[Path]:
    """Returns the CSV files of a folder that are named as splits; a .csv hides the .csv.gz of the same name."""
    files = sorted(path for path in folder.iterdir() if is_csv(path) and _split(path) and path.is_file())
    return [path for path in files if path.with_suffix("") not in files]


def read_csv(path: Path) -> Source:
    """Reads a CSV file, or a folder of train.csv and optionally val.csv and test.csv.

    A file named train.csv is read together with the other splits in its folder. Splits without labels are left out.

    Raises:
        RequestError: as `read_labeled_rows`; or two files name one split.
    """
    found, notes = find_csv(path if path.is_dir() else path.parent), []
    if path.is_dir():
        files = by_split(found, _stem)
    elif _split(path) == "train":
        files = by_split([path, *(other for other in found if _split(other) != "train")], _stem)
    else:
        files = {"train": path}
        notes = [f"left out, because only {path.name} was named: {other.name}" for other in found if other != path]
    for split in ("validation", "test"):
        if split in files and (problem := _label_problem(files[split])):
            notes.append(f"left out, because {problem}: {files.pop(split).name}")
    splits = {split: read_labeled_rows(file) for split, file in files.items()}
    return Source(splits["train"], splits.get("test"), (), splits.get("validation"), tuple(notes))


def _split(path: Path) -> str | None:
    return SPLITS.get(_stem(path).lower())


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _label_problem(path: Path) -> str:
    """Returns why a file cannot be read as labeled images, or "" if it can."""
    try:
        return "" if _read_header(path).key.lower() == "label" else "its images have no labels"
    except PathError as error:
        return error.problem


def read_labeled_rows(path: Path) -> Split:
    """Reads a CSV file, gzipped if its name ends in .gz, with the columns label,pix1,pix2,... or pix1,...,label.

    Returns:
        Images [N, S, S, 1] from S*S pixels, in the order of the rows.

    Raises:
        RequestError: the columns are wrong, the pixels are not those of a square, a label is not a whole number, or a
            pixel is not a whole number of 0..255.
    """
    header = _read_header(path)
    if header.key.lower() != "label":
        raise PathError(path, f"the images have an {header.key} and no label; use labeled images for a study")
    labels, images = _read_columns(path, header)
    return to_split(path, (f"{header.pixels[0]}..{header.pixels[-1]}", header.key), images, labels)


def read_unlabeled_rows(path: Path) -> tuple[list[str], np.ndarray]:
    """Reads a CSV file with the columns ID,pix1,pix2,...

    Returns:
        The IDs as text, and the images [N, S, S, 1], in the order of the rows.

    Raises:
        RequestError: as `read_labeled_rows`; or the file has no column ID, or no row.
    """
    header = _read_header(path)
    if header.key.lower() != "id":
        raise PathError(path, f"the file has a column {header.key} and no column ID; use ID,pix1,pix2,...")
    ids, images = _read_columns(path, header)
    if not len(ids):
        raise PathError(path, "the file has no row below its header; use one row per image")
    return ids.tolist(), images


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _read_header(path: Path) -> _Header:
    """Returns the columns, after checking that the pixels are in order and form a square."""
    with reading(path), _open(path) as file:
        names = next(csv.reader([file.readline(_MAX_HEADER).decode("utf-8-sig")]), [])
    keys = [name for name in names if name.lower() in ("label", "id")]
    pixels = [name for name in names if name not in keys]
    if len(keys) != 1 or not pixels:
        found = ",".join(names)[:40]
        raise PathError(path, f"the header begins with {found!r}; use {_FORM}, and just one of label and ID")
    parts = [re.fullmatch(r"(\D*)([0-9]{1,9})", name) for name in pixels]
    numbered = [(part[1], int(part[2])) if part else None for part in parts]
    for index, name in enumerate(pixels):
        if numbered[0] is None or numbered[index] != (numbered[0][0], numbered[0][1] + index):
            raise PathError(path, f"the column {name[:40]!r} is no pixel or out of order; use {_FORM}")
    if math.isqrt(len(pixels)) ** 2 != len(pixels):
        raise PathError(path, f"an image has {len(pixels):,} pixels; use those of a gray square (784 = 28x28, say)")
    return _Header(names, keys[0], pixels)


def _read_columns(path: Path, header: _Header) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels (int64 [N]) or IDs (str [N]), and the images [N, S, S, 1]."""
    import pyarrow  # lazily: it takes half a second
    from pyarrow import csv as arrow

    types = dict.fromkeys(header.names, pyarrow.uint8())
    types[header.key] = pyarrow.int64() if header.key.lower() == "label" else pyarrow.string()
    read_options = arrow.ReadOptions(  # without threads, errors name the row
        use_threads=False, block_size=max(_BLOCK, sum(len(name) + 16 for name in types))
    )
    convert_options = arrow.ConvertOptions(  # no text means a missing number
        column_types=types, include_columns=header.names, null_values=[], strings_can_be_null=False
    )
    with reading(path), _open(path) as file:
        try:
            table = arrow.read_csv(file, read_options, convert_options=convert_options)
        except pyarrow.ArrowException as error:
            raise PathError(path, _explain(header, str(error))) from error
    side = math.isqrt(len(header.pixels))
    images = np.stack([table[name].to_numpy() for name in header.pixels], axis=1)
    return table[header.key].to_numpy(), images.reshape(-1, side, side, 1)


def _explain(header: _Header, message: str) -> str:
    """Returns pyarrow's error in one line that names the cell. Pyarrow counts rows without empty lines."""
    counted = "the header is 1, empty lines do not count"
    cell = re.fullmatch(r"In CSV column #(\d+): Row #(\d+): .* to (\w+): invalid (.*)", message, re.DOTALL)
    if cell is None:
        said = re.sub(r"Row #(\d+)", rf"row \1 ({counted})", message.splitlines()[0][:120])
        return f"the file cannot be read: {said}"
    allowed = {"uint8": "a whole number of 0..255", "int64": "a whole number"}.get(cell[3], "text in UTF-8")
    column = header.names[int(cell[1])]
    found = " ".join(cell[4].split())[:60]
    return f"row {cell[2]} ({counted}), column {column}: invalid {found}; use {allowed}"
