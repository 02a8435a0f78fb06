"""Reads IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import PathError, reading, to_split


def has_idx(folder: Path) -> bool:
    """Whether a folder holds any of the four files."""
    return any(_with_or_without_gz(folder / name) for prefix in ("train", "t10k") for name in _names(prefix))


def read_idx_folder(folder: Path) -> Source:
    """Reads the training split and, if its files exist, the test split of a folder of IDX files."""
    train = _read_split(folder, "train")
    if train is None:
        raise PathError(folder, f"the folder has no {' and no '.join(_names('train'))}, with or without .gz")
    return Source(train, _read_split(folder, "t10k"), ())


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped if its name ends in .gz.

    Args:
        path: the file.
        dimensions: the expected number of dimensions (3: images, 1: labels).

    Returns:
        uint8 array with the shape of the header.

    Raises:
        RequestError: the magic number is wrong, or the size differs from the header's.
    """
    with reading(path), (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        content = file.read()
    magic, start = (0x800 + dimensions).to_bytes(4, "big"), 4 + 4 * dimensions
    if content[:4] != magic:
        found = content[:4].hex() or "nothing"
        raise PathError(path, f"the file begins with {found}; use the IDX magic number {magic.hex()}")
    if len(content) < start:
        raise PathError(path, "the file ends within its header")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    size = len(content) - start
    if math.prod(shape) != size:
        promised = f"the header promises {list(shape)}, which is {math.prod(shape):,} bytes"
        raise PathError(path, f"{promised}, but the file holds {size:,}; get the file again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _names(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _read_split(folder: Path, prefix: str) -> Split | None:
    """Returns the split whose two files begin with `prefix`, or None if neither exists."""
    names = _names(prefix)
    images, labels = (_with_or_without_gz(folder / name) for name in names)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = names[0] if images is None else names[1]
        raise PathError(folder, f"the folder has no {missing}[.gz], which belongs to the other {prefix} file")
    return to_split(folder, names, read_idx(images, 3)[..., None], read_idx(labels, 1))


def _with_or_without_gz(path: Path) -> Path | None:
    candidates = (path.with_name(path.name + suffix) for suffix in ("", ".gz", ".GZ"))
    return next((each for each in candidates if each.is_file()), None)
