"""Caches decoded arrays in the user's cache folder."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.runs.environment import cache_folder
from cnnjax.runs.integrity import replaced


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
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                return None
            file.seek(0)
            return {name: np.load(file, allow_pickle=False) for name in expected["arrays"]}
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
