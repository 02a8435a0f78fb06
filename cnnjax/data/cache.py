"""Caches decoded arrays in the user's cache folder."""

import contextlib
import contextvars
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.runs.integrity import replaced
from cnnjax.utils.paths import cache_folder

_is_mapped = contextvars.ContextVar("_is_mapped", default=False)


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """While the block runs, `cached` maps entries into memory, which reads no pixel, and does not check their sums."""
    token = _is_mapped.set(True)
    try:
        yield
    finally:
        _is_mapped.reset(token)


def cached(name: str, key: Any, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the arrays of `build()`, from the cache if it holds them.

    Damaged entries are reported on stderr and built again. Errors of writing the cache are reported and ignored.

    Args:
        name: the start of the entry's file name.
        key: JSON value of everything that the arrays depend on.
        build: makes the arrays.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"{name.replace('/', '-')}-{digest[:16]}.npy"
    note = path.with_suffix(".json")
    if path.exists():
        arrays = _read(path, note)
        if arrays is not None:
            return arrays
        print(f"{path} is damaged; decoding the images again", file=sys.stderr)
    arrays = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:  # consecutive arrays load four times as fast as .npz
            for array in arrays.values():
                np.save(file, array, allow_pickle=False)
            file.seek(0)
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        with replaced(note) as file:
            file.write(json.dumps({"arrays": list(arrays), "sha256": checksum}).encode())
    except OSError as error:
        print(f"the cache {path.parent} cannot be written ({error})", file=sys.stderr)
    return arrays


def _read(path: Path, note: Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an entry, or None if it is damaged."""
    try:
        expected = json.loads(note.read_text(encoding="utf-8"))
        with path.open("rb") as file:
            if _is_mapped.get():
                return {name: _map(file) for name in expected["arrays"]}
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                return None
            file.seek(0)
            return {name: np.load(file, allow_pickle=False) for name in expected["arrays"]}
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _map(file: Any) -> np.ndarray:
    """Maps the next array of a file, and moves to its end."""
    np.lib.format.read_magic(file)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    start, size = file.tell(), dtype.itemsize * math.prod(shape)
    array = np.memmap(file, dtype, "r", start, shape, "F" if is_fortran else "C") if size else np.zeros(shape, dtype)
    file.seek(start + size)
    return array
