"""Folders of image files, one for each class."""

from pathlib import Path

import numpy as np

from cnnjax.data.cache import cached
from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import SPLITS, PathError, by_number, by_split, check_memory, count_suffixes, entries
from cnnjax.data.readers.image_files import (
    DECODING,
    SUFFIXES,
    count_remarks,
    decode_pictures,
    find_pictures,
    is_picture,
)
from cnnjax.data.resize import resize_images
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import composed


def has_class_folders(root: Path) -> bool:
    """Whether a folder has folders."""
    return bool(_folders(root))


def has_pictures(root: Path) -> bool:
    """Whether a folder has folders of images, or splits of them."""
    places = [root, *(folder for folder in _folders(root) if folder.name.lower() in SPLITS)]
    return any(is_picture(path) for place in places for folder in _folders(place) for path in entries(folder))


def read_class_folders(root: Path, name: str, size: int | None, resize: str) -> Source:
    """Reads root/<class>/*.png, or root/train/<class>/*.png and optionally root/val/... and root/test/...

    Images are decoded once and then taken from the cache, until a file changes. They are in the order
    of their classes and of their files' names.

    Args:
        root: the folder.
        name: what the data is called.
        size: height and width to which images are brought as they are decoded; None: as they are.
        resize: how, as `resize_images`.

    Returns:
        The splits; the class names are those of the folders, in the order of `by_number`.

    Raises:
        RequestError: a class has no image, an image cannot be decoded, the images differ in size and
            `size` is None, or a class of validation or test is none of train.
    """
    files, notes = _list_files(root)
    classes = tuple(files["train"])
    places = {composed(each): place for place, each in enumerate(classes)}  # macOS and others spell accents otherwise
    for folders in files.values():
        for unknown in sorted(each for each in folders if composed(each) not in places):
            there = files["train"][classes[0]][0].parent.parent
            raise PathError(folders[unknown][0].parent, f"there is no such class in {there}")
    paths = [path for folders in files.values() for each in folders.values() for path in each]
    stats = [(str(path.relative_to(root)), path.stat()) for path in paths]
    key = {
        "folder": str(root.resolve()),
        "files": [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats],
        "resized": size and (size, resize),
        "decoding": DECODING,
    }
    arrays = cached(name, key, lambda: _decode(paths, name, size, resize))
    images = arrays["images"]
    splits = {}
    for split, folders in files.items():
        labels = [places[composed(each)] for each, paths in folders.items() for _ in paths]
        splits[split] = Split(images[: len(labels)], np.array(labels, np.int32))
        images = images[len(labels) :]
    notes += tuple(arrays["notes"].tolist())
    return Source(splits["train"], splits.get("test"), classes, splits.get("validation"), notes)


def _list_files(root: Path) -> tuple[dict[str, dict[str, list[Path]]], tuple[str, ...]]:
    """Returns the image files of each class of each split, and notes on the files that are left out."""
    places = _split_folders(root)
    files: dict[str, dict[str, list[Path]]] = {}
    outside, unread = [], []
    # Images to be predicted, as a competition gives them.
    flat = [split for split in places if split != "train" and _is_flat(places[split])]
    notes = [f"left out, because its images are in no class's folder: {places.pop(split).name}" for split in flat]
    for place in sorted({root, *places.values()}):
        pictures, others = find_pictures(place)
        outside += pictures
        unread += others
    for split in (split for split in ("train", "validation", "test") if split in places):
        files[split], others = _list_classes(places[split])
        unread += others
    notes += [f"left out, not read as images: {count_suffixes(unread)}"] if unread else []
    notes += [f"left out, for they are in no class's folder: {count_suffixes(outside)}"] if outside else []
    return files, tuple(notes)


def _is_flat(folder: Path) -> bool:
    """Whether a folder has images and no folders."""
    return not _folders(folder) and any(map(is_picture, entries(folder)))


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split; of the training split the root where there are no splits."""
    folders = _folders(root)
    named = [folder for folder in folders if folder.name.lower() in SPLITS]
    train = [folder for folder in named if folder.name.lower() == "train"]
    if named != folders and not any(map(_folders, train)):
        return {"train": root}
    if not train or named != folders:
        found = f"it has the folders {', '.join(folder.name for folder in folders)}"
        raise PathError(root, f"{found}; use a folder for each class, or train and optionally val and test")
    return by_split(named, lambda folder: folder.name)


def _list_classes(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Returns the image files of each class, and all other files."""
    found = {name: find_pictures(folder / name) for name in by_number(each.name for each in _folders(folder))}
    if not found:
        raise PathError(folder, "it has no folder of a class")
    for name, (pictures, others) in found.items():
        if within := _folders(folder / name):
            raise PathError(within[0], "it is a folder within a class; use images")
        if not pictures:
            but = f" but {count_suffixes(others)}" if others else ""
            raise PathError(folder / name, f"it has no image{but}; use files named {SUFFIXES}")
    return {name: pictures for name, (pictures, _) in found.items()}, [
        path for _, rest in found.values() for path in rest
    ]


def _folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def _decode(paths: list[Path], name: str, size: int | None, resize: str) -> dict[str, np.ndarray]:
    """Returns `images` [N, H, W, C], where C is 1 if all of them are gray and otherwise 3, and `notes` on them."""
    images = None
    remarks: list[str] = []
    for index, picture in enumerate(decode_pictures(paths, f"decoding {name}, once")):
        image = picture.pixels if size is None else resize_images([picture.pixels], size, resize)[0]
        if images is None:
            check_memory("data.image_size", size, len(paths) * image.size)
            images = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape[:2] != images.shape[1:3]:
            sizes = ["x".join(str(n) for n in each.shape[:2]) for each in (images[0], image)]
            found = f"images differ in size: {paths[0]} is {sizes[0]}, {paths[index]} {sizes[1]}"
            raise RequestError("data.image_size", None, f"{found}; use a size")
        if image.shape[-1] > images.shape[-1]:  # the first that is not gray
            images = np.repeat(images, image.shape[-1], axis=-1)
        images[index] = image
        remarks += picture.remarks
    assert images is not None, "there is a file of each class"
    return {"images": images, "notes": np.array(count_remarks(remarks), dtype=np.str_)}
