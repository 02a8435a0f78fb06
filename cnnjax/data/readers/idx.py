"""IDX files, the format of MNIST and its kin."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Split
from cnnjax.data.readers.checks import DEFLATE_GROWTH, PathError, check_size, checked_split
from cnnjax.utils.text import first_line


def has_idx(folder: Path) -> bool:
    """Whether a folder holds any of the four files."""
    return any(_packed_or_not(folder / name) for prefix in ("train", "t10k") for name in _names(prefix))


def read_idx_folder(folder: Path) -> tuple[Split, Split | None]:
    """Reads the training and, if they are there, the test images of a folder of IDX files."""
    train = _read_split(folder, "train")
    if train is None:
        raise PathError(folder, f"it has no {' and no '.join(_names('train'))}, with or without .gz")
    return train, _read_split(folder, "t10k")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, gzipped if its name ends in .gz.

    Args:
        path: the file.
        dimensions: how many dimensions it must have (3: images, 1: labels).

    Returns:
        uint8 array with the dimensions the header names.

    Raises:
        RequestError: wrong magic number, or a size other than the header's.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            magic = 0x800 + dimensions
            if header[:4] != magic.to_bytes(4, "big"):
                found = f"it begins with {header[:4].hex() or 'nothing'}"
                raise PathError(path, f"{found}; use the IDX magic number {magic:08x}")
            if len(header) < 4 + 4 * dimensions:
                raise PathError(path, "it ends within its header")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            if size == 0:
                raise PathError(path, f"its header names the sizes {shape}; use sizes above 0")
            check_size(path, size, DEFLATE_GROWTH if packed else 1)
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise PathError(path, f"it cannot be read: {first_line(error)}") from error
    if len(content) != size:
        has = f"more than {size:,}" if len(content) > size else f"only {len(content):,}"
        raise PathError(path, f"its header {shape} promises {size:,} bytes, but it has {has}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _names(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _read_split(folder: Path, prefix: str) -> Split | None:
    """Returns the split whose two files begin with `prefix`, or None if neither is there."""
    names = _names(prefix)
    images, labels = (_packed_or_not(folder / name) for name in names)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = names[0] if images is None else names[1]
        raise PathError(folder, f"it has no {missing}[.gz], which belongs to the other {prefix} file")
    return checked_split(folder, names, read_idx(images, 3)[..., None], read_idx(labels, 1))


def _packed_or_not(path: Path) -> Path | None:
    """Returns the file, or else the gzipped file beside it, or None."""
    named = (path.with_name(path.name + suffix) for suffix in ("", ".gz", ".GZ"))
    return next((each for each in named if each.is_file()), None)
