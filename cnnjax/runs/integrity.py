"""Reads and writes files of a run with checksums: each JSON record contains its CRC-32. Imports no jax."""

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

CHECKSUM = "crc32"  # key of the checksum
_MAX_ARRAY_BYTES = 1 << 30
_LARGE = 1 << 26  # bytes; the free memory is checked before a larger text is read
_MEMORY_PER_BYTE = 4  # bytes of memory for each byte of parsed text, at least


class Damaged(RequestError):
    """A file of a run is damaged.

    Args:
        place: the file, and the line if known.
        what: the damage.
        cure: advice for the user.
    """

    def __init__(self, place: object, what: str, cure: str = "run the same command again to repair it"):
        super().__init__("workdir", str(place), f"it is damaged ({what}); {cure}")
        self.what = what


class Records(NamedTuple):
    """The intact records of a file, and the line numbers (from 1) of its damaged records."""

    intact: list[dict[str, Any]]
    damaged: list[int]


def checksum(record: Mapping[str, Any]) -> str:
    """Returns the CRC-32 of a JSON object, independent of the order of its keys, as eight hexadecimal digits."""
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


def add_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its checksum as the last value."""
    return {**record, CHECKSUM: checksum(record)}


def verify_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """Verifies the checksum of a record. A record without a checksum was written by hand and is accepted.

    Returns:
        The record without its checksum.

    Raises:
        ValueError: the checksum or its key is wrong.
    """
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    if CHECKSUM in record:
        if record[CHECKSUM] != checksum(content):
            raise ValueError("the checksum is wrong")
    elif content:
        *names, last = content
        if content[last] == checksum({name: content[name] for name in names}):
            raise ValueError("the key of the checksum is wrong")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: the file does not exist.
        Damaged: the file is not a JSON object, its checksum is wrong, or it has values that `schema` does not allow.
    """
    text = _read_bytes(path)
    try:
        return _read_object(text, path.name)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, first_line(error)) from error


def read_lines(path: Path) -> Records:
    """Reads JSON objects, one per line.

    A last line without a newline is ignored: a kill has cut it off. A missing file has no records.
    """
    lines = _read_bytes(path).split(b"\n")[:-1] if path.exists() else []
    return _read_each(lines, functools.partial(_read_object, file=path.name), first=1)


def read_rows(path: Path) -> Records:
    """Reads the rows of a CSV file with a header as text. A missing file has no rows."""
    text = _read_bytes(path).decode("utf-8", "replace") if path.exists() else ""
    header, *lines = text.split("\n")

    def cells(line: str) -> list[str]:
        return next(csv.reader([line.removesuffix("\r")], strict=True), [])

    def read_row(line: str) -> dict[str, Any]:
        row = verify_checksum(dict(zip(cells(header), cells(line), strict=True)))
        schema.check(path.name, row)
        return row

    return _read_each([line for line in lines if line.strip()], read_row, first=2)


def read_undamaged(path: Path, read: Callable[[Path], Records] = read_lines) -> list[dict[str, Any]]:
    """Returns all records of a file. Raises Damaged if one of them is damaged."""
    records = read(path)
    if records.damaged:
        raise Damaged(f"{path}, line {records.damaged[0]}", "its content or checksum is wrong")
    return records.intact


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Returns JSON objects as lines, each with its checksum. Non-finite numbers become null."""
    return "".join(json.dumps(add_checksum(finite(record))) + "\n" for record in records).encode()


def append(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends JSON objects to a file, one per line, and waits until they are on disk."""
    with path.open("ab") as file:
        file.write(json_lines(records))
        file.flush()
        os.fsync(file.fileno())


def read_array(path: Path, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Reads an array of numbers from an .npz file. Checks the header first; zipfile verifies the array's CRC-32.

    Args:
        path: the file.
        name: the name of the array.
        shape: the expected shape; None allows any length.

    Raises:
        FileNotFoundError: the file does not exist.
        Damaged: the file cannot be read, lacks the array, or has a wrong checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            found, dtype = read_header(file)
            fits = len(found) == len(shape) and all(b in (a, None) for a, b in zip(found, shape, strict=True))
            if dtype.kind not in "uif" or not fits:
                wanted = ", ".join("any" if length is None else str(length) for length in shape)
                raise ValueError(f"{name} is {dtype} {list(found)}, expected numbers [{wanted}]")
            if (size := math.prod(found) * dtype.itemsize) > _MAX_ARRAY_BYTES:
                raise ValueError(f"{name} has {size / 1e9:,.1f} GB by its header")
        with np.load(path, allow_pickle=False) as arrays:
            array: np.ndarray = arrays[name]
            return array
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise Damaged(path, first_line(error)) from error


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Reads the shape and the dtype in the header of a .npy file, and not the data.

    Raises:
        Exception: of any type, if the header is invalid.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"the header has the shape {shape}")
    return shape, dtype


@contextlib.contextmanager
def replaced(path: Path, sync: bool = True) -> Iterator[io.BufferedRandom]:
    """Opens a temporary file that atomically replaces `path` if the block succeeds.

    The file is open for reading, too. If `path` is a link, its target is replaced. With `sync`, the file is on disk
    before it replaces another.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name[:60]}.{os.getpid()}.tmp")  # file systems allow 255 bytes
    try:
        with temporary.open("wb+") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _LARGE and size * _MEMORY_PER_BYTE > (free := psutil.virtual_memory().available):
        problem = f"the file has {size / 1e9:,.1f} GB, too many for {free / 1e9:,.1f} GB of free memory"
        raise RequestError("workdir", str(path), problem)
    return path.read_bytes()


def _read_object(text: bytes, file: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    record = verify_checksum(value)
    schema.check(file, record)
    return record


def _read_each(lines: list[Any], read: Callable[[Any], dict[str, Any]], first: int) -> Records:
    records = Records([], [])
    for number, line in enumerate(lines, first):
        try:
            records.intact.append(read(line))
        except (ValueError, RecursionError, csv.Error):
            records.damaged.append(number)
    return records
