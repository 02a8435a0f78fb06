"""From a study's data settings to its data set."""

import dataclasses

from cnnjax.data.dataset import Dataset, Source, Split
from cnnjax.data.readers.checks import check_memory
from cnnjax.data.readers.detect import read_path
from cnnjax.data.readers.digits import read_digits
from cnnjax.data.readers.tfds import read_prepared
from cnnjax.data.resize import resize_images
from cnnjax.data.splits import keep_classes, make_splits
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import expanded
from cnnjax.utils.text import composed

_SPLIT_NAMES = ("train", "training", "test", "data", "images", "all")


def load_dataset(data: DataConfig) -> Dataset:
    """Reads, resizes and splits the data of a study.

    `data.path` comes first: a folder or file of a kind that `files.ACCEPTED` lists, which
    `data.name` then only names. Otherwise `data.name` is `digits` or what tensorflow-datasets has
    prepared on this machine; nothing is ever downloaded.

    Args:
        data: the study's data settings.

    Returns:
        The data set: uint8 images [N, H, W, C] and int32 labels [N] of each split.

    Raises:
        RequestError: the data is not there, is damaged, or has no such class, or cannot be resized or split
            as asked.
    """
    name, source = load_source(data)
    if data.classes:
        source = keep_classes(source, [name if isinstance(name, int) else composed(name) for name in data.classes])
    size = data.image_size
    if size is not None:
        source = source.changed(lambda _, split: _resized(split, size, data.resize))
    return make_splits(source, data, name)


def load_source(data: DataConfig) -> tuple[str, Source]:
    """Reads the data of a study as they are, neither resized nor split.

    Args:
        data: its `path` or else its `name`; its image size matters to images that differ in theirs.

    Returns:
        What the data are called, and all examples.

    Raises:
        RequestError: the data is not there or is damaged.
    """
    if data.path is None:
        return data.name, read_digits() if data.name == "digits" else read_prepared(data)
    name = _path_name(data.path) if data.name == DataConfig.name else data.name  # the default is another data set's
    source = read_path(data.path, name, data.image_size, data.resize)
    classes = tuple(map(composed, source.classes))
    if twice := [one for place, one in enumerate(classes) if one in classes[:place]]:
        raise RequestError("data.path", data.path, f"two classes of it are named {twice[0]!r}, in two Unicode forms")
    return name, dataclasses.replace(source, classes=classes)


def _path_name(path: str) -> str:
    """What the data at a path are called: the file or folder; its folder, where that says only which split it is."""
    place = expanded("data.path", path).resolve()
    return place.parent.name if place.stem.lower() in _SPLIT_NAMES and place.parent.name else place.stem


def _resized(split: Split, size: int, kind: str) -> Split:
    if split.images.shape[1:3] == (size, size):
        return split
    check_memory("data.image_size", size, len(split) * size * size * split.images.shape[-1])
    return Split(resize_images(split.images, size, kind), split.labels)
