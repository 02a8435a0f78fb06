"""Files that say whether they are whole: every record carries the CRC-32 of the rest of it. Imports no jax."""

import contextlib
import csv
import errno
import functools
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax.types import RequestError, first_line

SEAL = "crc32"


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
    """The records of a file that are whole, and the line numbers (from 1) of those that are not."""

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
        Damaged: it is no JSON object, or its checksum is another.
    """
    try:
        return _read_object(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Damaged(path, first_line(error)) from error


def read_lines(path: Path) -> Records:
    """Reads JSON objects, one a line; a last line that a kill cut off is no line yet. No file is no lines."""
    return _read_each(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], _read_object, first=1)


def read_rows(path: Path) -> Records:
    """Reads a CSV file with a header, one row a line, as text. No file is no rows."""
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    header, *lines = text.split("\n")

    def cells(line: str) -> list[str]:
        return next(csv.reader([line.removesuffix("\r")], strict=True), [])

    @functools.cache  # once, but within the reading of a line: a damaged header damages every line
    def names() -> list[str]:
        return cells(header)

    def read_row(line: str) -> dict[str, Any]:
        return unseal(dict(zip(names(), cells(line), strict=True)))

    return _read_each([line for line in lines if line.strip()], read_row, first=2)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads an .npz file; zip holds a CRC-32 of each array.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it cannot be read, or a checksum is another.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise Damaged(path, first_line(error)) from error


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


def unwritable(error: Exception) -> str | None:
    """Returns what the operating system said, in one line, if an error says that a file cannot be written."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
    if isinstance(error, OSError):
        return " ".join(str(error).split()) if error.errno in numbers else None
    # orbax writes in threads of its own, and hands on what was said as text
    return next((os.strerror(number) for number in numbers if os.strerror(number) in str(error)), None)


def _read_object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return unseal(value)


def _read_each(lines: list[Any], read: Callable[[Any], dict[str, Any]], first: int) -> Records:
    records = Records([], [])
    for number, line in enumerate(lines, first):
        try:
            records.whole.append(read(line))
        except (ValueError, RecursionError, csv.Error):
            records.damaged.append(number)
    return records
