"""Reads CIFAR-10 and CIFAR-100 as published: folders of pickled or binary batches."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import PathError, reading, to_split
from cnnjax.data.readers.safe_pickle import read_pickle

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
_PIXELS = 3 * 32 * 32


class _Layout(NamedTuple):
    """The files of a published folder.

    Attributes:
        train: file names of the training split, in order.
        test: file name of the test split.
        classes: file name of the class names; the file is optional.
        label_bytes: label bytes at the start of a binary record, of which the last is read (CIFAR-100 stores the
            coarse label before the fine one); 0 for pickled batches.
        prefix: prefix of the keys in a pickle.
    """

    train: tuple[str, ...]
    test: str
    classes: str
    label_bytes: int
    prefix: str = ""


_LAYOUTS = (
    _Layout(TRAIN_BATCHES, TEST_BATCH, "batches.meta", 0),
    _Layout(("train",), "test", "meta", 0, "fine_"),
    _Layout(tuple(f"{batch}.bin" for batch in TRAIN_BATCHES), f"{TEST_BATCH}.bin", "batches.meta.txt", 1),
    _Layout(("train.bin",), "test.bin", "fine_label_names.txt", 2),
)


def has_cifar(folder: Path) -> bool:
    """Whether a folder holds any of the published training batches."""
    return _layout(folder) is not None


def read_cifar(folder: Path) -> Source:
    """Reads a folder of batches of CIFAR-10 or CIFAR-100 (its fine labels).

    Args:
        folder: the content of a published archive: `cifar-10-batches-py`, `cifar-10-batches-bin`,
            `cifar-100-python` or `cifar-100-binary`. The file of the class names is optional.

    Raises:
        RequestError: a batch is missing or damaged.
    """
    layout = _layout(folder)
    if layout is None:
        raise PathError(folder, f"the folder has no {TRAIN_BATCHES[0]}")
    for name in (*layout.train, layout.test):
        if not (folder / name).is_file():
            raise PathError(folder, f"the folder has no {name}, which belongs to the other batches")
    train = Split.concatenate([_read_batch(folder / name, layout) for name in layout.train])
    return Source(train, _read_batch(folder / layout.test, layout), _read_classes(folder / layout.classes, layout))


def read_records(content: bytes, label_bytes: int = 1) -> Split:
    """Reads binary records: label bytes, of which the last is read, then 3x32x32 bytes of pixels."""
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + _PIXELS)
    return Split(_from_planes(records[:, label_bytes:]), records[:, label_bytes - 1].astype(np.int32))


def _from_planes(rows: np.ndarray) -> np.ndarray:
    """Returns rows of pixels [N, 3*32*32], channel by channel, as images [N, 32, 32, 3]."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _layout(folder: Path) -> _Layout | None:
    return next((each for each in _LAYOUTS if any((folder / name).is_file() for name in each.train)), None)


def _read_batch(path: Path, layout: _Layout) -> Split:
    if not layout.label_bytes:
        return _read_pickled(path, f"{layout.prefix}labels")
    size = layout.label_bytes + _PIXELS
    with reading(path):
        content = path.read_bytes()
    if not content or len(content) % size:
        raise PathError(path, f"the file has {len(content):,} bytes; use a multiple of {size:,}, the size of a record")
    return read_records(content, layout.label_bytes)


def _read_pickled(path: Path, key: str) -> Split:
    batch = read_pickle(path)
    data, labels = batch.get("data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        found = list(data.shape) if isinstance(data, np.ndarray) else type(data).__name__
        raise PathError(path, f"data is {found}; use a uint8 array [N, {_PIXELS}]")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise PathError(path, f"{key} is missing or wrong; use a list of whole numbers of 0..255")
    return to_split(path, ("data", key), _from_planes(data), np.array(labels, np.int32))


def _read_classes(path: Path, layout: _Layout) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    if layout.label_bytes:
        with reading(path):
            return tuple(filter(None, path.read_text(encoding="utf-8").splitlines()))
    key = f"{layout.prefix}label_names"
    names = read_pickle(path).get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes | str) for name in names):
        raise PathError(path, f"{key} is missing or wrong; use a list of names")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)
