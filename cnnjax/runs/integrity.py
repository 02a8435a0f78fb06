"""Files that say whether they are whole: every record carries the CRC-32 of the rest of it. Imports no jax."""

import contextlib
import csv
import functools
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import psutil

from cnnjax.runs import schema
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import first_line
from cnnjax.utils.tree import finite

SEAL = "crc32"
_MOST_BYTES = 1 << 30  # of an array that a run's folder holds
_LARGE = 1 << 26  # bytes; before a larger text is read, the free memory is checked
_GROWTH = 4  # bytes of memory that a byte of text takes, at least


class Damaged(RequestError):
    """A file of a run is not what was written.

    Args:
        place: the file, and the place in it.
        what: is wrong with it.
        cure: what the user can do.
    """

    def __init__(
        self, place: object, what: str, cure: str = "the command that started the study, given again, mends it"
    ):
        super().__init__("workdir", str(place), f"it is damaged ({what}); {cure}")
        self.what = what


class Records(NamedTuple):
    """The records of a file: those that are whole, and the line numbers (from 1) of those that are not."""

    whole: list[dict[str, Any]]
    damaged: list[int]


def checksum(record: Mapping[str, Any]) -> str:
    """Returns the CRC-32 of a JSON object, whatever the order of its keys, as eight hexadecimal digits."""
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object, or the cells of a row, with the checksum as its last value."""
    return {**record, SEAL: checksum(record)}


def unseal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record without its checksum.

    Raises:
        ValueError: it has another one, or one by another name. (A record that has none was written by hand, and is
            taken as it is.)
    """
    content = {key: value for key, value in record.items() if key != SEAL}
    if SEAL in record:
        if record[SEAL] != checksum(content):
            raise ValueError("its checksum is another")
    elif content:
        *names, last = content
        if content[last] == checksum({name: content[name] for name in names}):
            raise ValueError("the name of its checksum is another")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is no JSON object, its checksum is another, or it holds what no such file does.
    """
    text = _read_bytes(path)
    try:
        return _read_object(text, path.name)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, first_line(error)) from error


def read_lines(path: Path) -> Records:
    """Reads JSON objects, one a line. A last line that a kill cut off is no line yet. No file is no lines."""
    lines = _read_bytes(path).split(b"\n")[:-1] if path.exists() else []
    return _read_each(lines, functools.partial(_read_object, file=path.name), first=1)


def read_rows(path: Path) -> Records:
    """Reads a CSV file with a header, one row a line, as text. No file is no rows."""
    text = _read_bytes(path).decode("utf-8", "replace") if path.exists() else ""
    header, *lines = text.split("\n")

    def cells(line: str) -> list[str]:
        return next(csv.reader([line.removesuffix("\r")], strict=True), [])

    def read_row(line: str) -> dict[str, Any]:
        row = unseal(dict(zip(cells(header), cells(line), strict=True)))
        schema.check(path.name, row)
        return row

    return _read_each([line for line in lines if line.strip()], read_row, first=2)


def whole(path: Path, read: Callable[[Path], Records] = read_lines) -> list[dict[str, Any]]:
    """Returns all records of a file; raises Damaged where one is not what was written."""
    records = read(path)
    if records.damaged:
        raise Damaged(f"{path}, line {records.damaged[0]}", "it is not what was written")
    return records.whole


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Returns JSON objects as lines, each with its checksum. A number that is not finite becomes null."""
    return "".join(json.dumps(seal(finite(record))) + "\n" for record in records).encode()


def append(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends JSON objects to a file, one a line, and waits until they are on disk."""
    with path.open("ab") as file:
        file.write(json_lines(records))
        file.flush()
        os.fsync(file.fileno())


def read_array(path: Path, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Reads one array of numbers from an .npz file, after checking its header; zip checks the array's CRC-32.

    Args:
        path: the file.
        name: of the array.
        shape: the expected shape; None stands for any length.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it cannot be read, has no such array, or its checksum is another.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            found, dtype = read_header(file)
            fits = len(found) == len(shape) and all(b in (a, None) for a, b in zip(found, shape, strict=True))
            if dtype.kind not in "uif" or not fits:
                wanted = ", ".join("any" if length is None else str(length) for length in shape)
                raise ValueError(f"{name} is {dtype} {list(found)}, and should be numbers [{wanted}]")
            if (size := math.prod(found) * dtype.itemsize) > _MOST_BYTES:
                raise ValueError(f"{name} promises {size / 1e9:,.1f} GB")
        with np.load(path, allow_pickle=False) as arrays:
            array: np.ndarray = arrays[name]
            return array
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise Damaged(path, first_line(error)) from error


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and the type that the header of a .npy file promises, reading no more than it.

    Raises:
        Exception: of any kind: it is no header.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its header names the shape {shape}")
    return shape, dtype


def check_links(folder: Path, names: Iterable[str], without: Iterable[str] = ()) -> None:
    """Refuses a run's folder in which a link leads out of the folder, or which holds a device or a pipe.

    Args:
        folder: the run's folder.
        names: the files and folders to check, by name.
        without: names to skip.

    Raises:
        RequestError: it names the link, and where it leads.
    """
    inside = Path(os.path.realpath(folder))
    for name in set(names) - set(without):
        for path in _below(folder / name):
            if path.is_symlink() and not Path(end := os.path.realpath(path)).is_relative_to(inside):
                raise RequestError("workdir", str(path), f"it is a link to {end}; use what stays in the folder")
            if path.exists() and not path.is_file() and not path.is_dir():
                raise RequestError("workdir", str(path), "it is a device or a pipe; use files and folders")


def _below(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, name) for name in (*folders, *files))


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[io.BufferedRandom]:
    """Opens a file beside `path` that takes its place, complete and on disk, when the block ends well.

    A reader sees either whole. Until then it can be read back, too. A link stays one: what it names is replaced.
    """
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name[:60]}.{os.getpid()}.tmp")  # the system allows names of 255 bytes
    try:
        with beside.open("wb+") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def stamp(file: Path) -> tuple[int, int, int] | None:
    """Returns what tells a file from what it was before, or from another in its place; None where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _LARGE and size * _GROWTH > (free := psutil.virtual_memory().available):
        said = f"its {size / 1e9:,.1f} GB cannot be read in the {free / 1e9:,.1f} GB of memory that are free"
        raise RequestError("workdir", str(path), said)
    return path.read_bytes()


def _read_object(text: bytes, file: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    record = unseal(value)
    schema.check(file, record)
    return record


def _read_each(lines: list[Any], read: Callable[[Any], dict[str, Any]], first: int) -> Records:
    records = Records([], [])
    for number, line in enumerate(lines, first):
        try:
            records.whole.append(read(line))
        except (ValueError, RecursionError, csv.Error):
            records.damaged.append(number)
    return records
