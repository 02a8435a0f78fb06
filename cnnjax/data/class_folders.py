"""Folders of image files, one for each class."""

from pathlib import Path

import numpy as np

from cnnjax.data.cache import cached
from cnnjax.data.checks import PathError, check_memory, entries
from cnnjax.data.dataset import Split
from cnnjax.data.images import resize_images
from cnnjax.data.pictures import SUFFIXES, decode_pictures, find_pictures
from cnnjax.types import RequestError, composed

_SPLITS = ("train", "test")


def has_class_folders(root: Path) -> bool:
    """Whether a folder has folders."""
    return bool(_folders(root))


def has_pictures(root: Path) -> bool:
    """Whether a folder has folders of images, or train and test of them."""
    places = [root, *(root / split for split in _SPLITS if (root / split).is_dir())]
    return any(find_pictures(folder) for place in places for folder in _folders(place))


def read_class_folders(
    root: Path, name: str, size: int | None, resize: str
) -> tuple[Split, Split | None, tuple[str, ...]]:
    """Reads root/<class>/*.png, or root/train/<class>/*.png and optionally root/test/<class>/*.png.

    Images are decoded once and then taken from the cache, until a file changes. They are in the order
    of their classes and of their files' names.

    Args:
        root: the folder.
        name: what the data is called.
        size: height and width to which images are brought as they are decoded; None: as they are.
        resize: how, as `resize_images`.

    Returns:
        The training split, the test split or None, and the class names: those of the folders, sorted.

    Raises:
        RequestError: a class has no image, an image cannot be decoded, the images differ in size and
            `size` is None, or a class of test is none of train.
    """
    files = _list_files(root)
    classes = tuple(files["train"])
    places = {composed(each): place for place, each in enumerate(classes)}  # macOS and others spell accents otherwise
    for unknown in (each for each in files.get("test", ()) if composed(each) not in places):
        raise PathError(root / "test" / unknown, f"there is no such class in {root / 'train'}")
    paths = [path for folders in files.values() for each in folders.values() for path in each]
    stats = [(str(path.relative_to(root)), path.stat()) for path in paths]
    key = {
        "folder": str(root.resolve()),
        "files": [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats],
        "resized": size and (size, resize),
    }
    images = cached(name, key, lambda: {"images": _decode(paths, name, size, resize)})["images"]
    splits = {}
    for split, folders in files.items():
        labels = [places[composed(each)] for each, paths in folders.items() for _ in paths]
        splits[split] = Split(images[: len(labels)], np.array(labels, np.int32))
        images = images[len(labels) :]
    return splits["train"], splits.get("test"), classes


def _list_files(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Returns the image files of each class of each split."""
    folders = [folder.name for folder in _folders(root)]
    if not set(folders) <= set(_SPLITS) and not ("train" in folders and _folders(root / "train")):
        return {"train": _list_classes(root)}
    if "train" not in folders or not set(folders) <= set(_SPLITS):
        raise PathError(root, f"it has the folders {', '.join(folders)}; allowed: a folder for each class, or train")
    return {split: _list_classes(root / split) for split in _SPLITS if split in folders}


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    classes = {each.name: find_pictures(each) for each in _folders(folder)}
    if not classes:
        raise PathError(folder, "it has no folder of a class")
    for name, paths in classes.items():
        if within := _folders(folder / name):
            raise PathError(within[0], "it is a folder within a class; allowed: images")
        if not paths:
            raise PathError(folder / name, f"it has no image; allowed: files named {SUFFIXES}")
    return classes


def _folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def _decode(paths: list[Path], name: str, size: int | None, resize: str) -> np.ndarray:
    """Returns the images [N, H, W, C]; C is 1 if all of them are grey, otherwise 3."""
    images = None
    for index, image in enumerate(decode_pictures(paths, f"decoding {name}, once")):
        if size is not None:
            image = resize_images([image], size, resize)[0]
        if images is None:
            check_memory("data.image_size", size, len(paths) * image.size)
            images = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape[:2] != images.shape[1:3]:
            sizes = ["x".join(str(n) for n in each.shape[:2]) for each in (images[0], image)]
            found = f"images differ in size: {paths[0]} is {sizes[0]}, {paths[index]} {sizes[1]}"
            raise RequestError("data.image_size", None, f"{found}; allowed: a size")
        if image.shape[-1] > images.shape[-1]:  # the first that is not grey
            images = np.repeat(images, image.shape[-1], axis=-1)
        images[index] = image
    assert images is not None, "there is a file of each class"
    return images
