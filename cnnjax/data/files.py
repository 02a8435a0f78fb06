"""Reads the data that `data.path` names: a folder of IDX files, or one .npz file.

A file may be damaged or made to mislead: its sizes are checked before memory is taken, and every
fault is one line that names the file.
"""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.types import RequestError

ACCEPTED = (
    "a folder of IDX files named as MNIST's (train-images-idx3-ubyte, train-labels-idx1-ubyte and "
    "optionally t10k-..., each with or without .gz) or an .npz file (x_train, y_train and "
    "optionally x_test, y_test; or images, labels)"
)
# What the data is when the files cannot say it themselves.
CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer") + ("dog", "frog", "horse", "ship", "truck"),
    "mnist": tuple("0123456789"),
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
    + ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
}
_DEFLATE_GROWTH = 1032  # a byte of deflated data stands for at most so many bytes
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
_NPZ_KEYS = (("x_train", "y_train"), ("images", "labels"))


def read_path(path: str, name: str) -> Source:
    """Reads a folder of IDX files or an .npz file.

    Args:
        path: the folder or file.
        name: what the data is; a name in `CLASSES` gives the classes their names, otherwise a class
            is named by its label.

    Raises:
        RequestError: nothing readable is there, or a file is damaged or inconsistent.
    """
    where = Path(path).expanduser()
    if where.is_dir():
        train, test = _read_idx_folder(where)
    elif where.suffix == ".npz" and where.is_file():
        train, test = _read_npz(where)
    else:
        what = "it is of no kind that is read" if where.exists() else "there is no such file"
        raise _error(where, f"{what}; allowed: {ACCEPTED}")
    if test is not None and test.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{list(train.images.shape[1:])} and {list(test.images.shape[1:])}"
        raise _error(where, f"its training and test images differ in shape: {shapes}")
    return Source(train, test, _class_names(where, name, train, test))


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
    packed = path.suffix == ".gz"
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            magic = 0x800 + dimensions
            if header[:4] != magic.to_bytes(4, "big"):
                found = f"it begins with {header[:4].hex() or 'nothing'}"
                raise _error(path, f"{found}; allowed: the IDX magic number {magic:08x}")
            if len(header) < 4 + 4 * dimensions:
                raise _error(path, "it ends within its header")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            if size == 0:
                raise _error(path, f"its header names the sizes {shape}; allowed: sizes above 0")
            _check_size(path, size, _DEFLATE_GROWTH if packed else 1)
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _error(path, f"it cannot be read: {_line(error)}") from error
    if len(content) != size:
        has = f"more than {size:,}" if len(content) > size else f"only {len(content):,}"
        raise _error(path, f"its header {shape} promises {size:,} bytes, but it has {has}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_idx_folder(folder: Path) -> tuple[Split, Split | None]:
    train = _read_idx_split(folder, "train")
    if train is None:
        raise _error(folder, f"it has no train-images-idx3-ubyte[.gz]; allowed: {ACCEPTED}")
    return train, _read_idx_split(folder, "t10k")


def _read_idx_split(folder: Path, prefix: str) -> Split | None:
    """Returns the split whose two files begin with `prefix`, or None if neither is there."""
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    images, labels = (_packed_or_not(folder / name) for name in names)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = names[0] if images is None else names[1]
        raise _error(folder, f"it has no {missing}[.gz], which belongs to the other {prefix} file")
    return _checked_split(folder, names, read_idx(images, 3)[..., None], read_idx(labels, 1))


def _packed_or_not(path: Path) -> Path | None:
    """Returns the file, or else the gzipped file beside it, or None."""
    packed = path.with_name(f"{path.name}.gz")
    return next((each for each in (path, packed) if each.is_file()), None)


def _read_npz(path: Path) -> tuple[Split, Split | None]:
    try:
        for key, size in _npz_sizes(path).items():
            _check_size(path, size, _DEFLATE_GROWTH, f"{key!r} promises")
        with np.load(path, allow_pickle=False) as arrays:
            keys = next((pair for pair in _NPZ_KEYS if set(pair) <= set(arrays)), None)
            if keys is None:
                raise _error(path, f"it holds {sorted(arrays)}; allowed: {ACCEPTED}")
            train = _checked_split(path, keys, *(arrays[key] for key in keys))
            keys = ("x_test", "y_test")
            if not set(keys) & set(arrays):
                return train, None
            if not set(keys) <= set(arrays):
                raise _error(path, "it holds only one of x_test and y_test")
            return train, _checked_split(path, keys, *(arrays[key] for key in keys))
    except RequestError:  # itself a ValueError
        raise
    except _UNREADABLE as error:
        raise _error(path, f"it cannot be read: {_line(error)}") from error


def _npz_sizes(path: Path) -> dict[str, int]:
    """Returns how many bytes the header of each array promises, reading no array."""
    sizes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                if np.lib.format.read_magic(file) == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            sizes[name.removesuffix(".npy")] = math.prod(shape) * dtype.itemsize
    return sizes


def _checked_split(path: Path, keys: tuple[str, str], images: np.ndarray, labels: np.ndarray) -> Split:
    """Returns images [N, H, W] or [N, H, W, C] and labels [N] or [N, 1] as a split."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[-1] <= 4:
        found = f"{keys[0]} is {images.dtype} {list(images.shape)}"
        raise _error(path, f"{found}; allowed: uint8 [N, H, W] or [N, H, W, C], C at most 4")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        found = f"{keys[1]} is {labels.dtype} {list(labels.shape)}"
        raise _error(path, f"{found}; allowed: whole numbers [N]")
    if len(images) != len(labels) or not images.size:
        found = f"{keys[0]} holds {len(images):,} images and {keys[1]} {len(labels):,} labels"
        raise _error(path, f"{found}; allowed: as many of the one as of the other, more than 0")
    if labels.min() < 0 or labels.max() >= 2**31:
        found = f"the labels of {keys[1]} lie in {labels.min()}..{labels.max()}"
        raise _error(path, f"{found}; allowed: 0 and more")
    return Split(images, labels.astype(np.int32))


def _class_names(path: Path, name: str, train: Split, test: Split | None) -> tuple[str, ...]:
    """Returns the class names, once every label is known to have one."""
    classes = CLASSES.get(name)
    known = len(classes) if classes else int(train.labels.max()) + 1
    if known > max(len(train), 2):
        raise _error(path, f"{known:,} classes for {len(train):,} training examples: no class labels")
    for kind, split in (("training", train), ("test", test)):
        if split is not None and split.labels.max() >= known:
            why = f"as {name} has {known} classes" if classes else "as in training"
            raise _error(
                path,
                f"its {kind} labels reach {split.labels.max()}; allowed: 0..{known - 1}, {why}",
            )
    return classes or tuple(str(label) for label in range(known))


def _check_size(path: Path, size: int, growth: int, what: str = "its header promises") -> None:
    limit = path.stat().st_size * growth
    if size > limit:
        raise _error(path, f"{what} {size:,} bytes, which {path.stat().st_size:,} cannot hold")


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _error(path: Path, what: str) -> RequestError:
    return RequestError("data.path", str(path), what)
