"""Reads folders of image files with one folder per class."""

from pathlib import Path

import numpy as np

from cnnjax.data.cache import cached
from cnnjax.data.dataset import Source, Split
from cnnjax.data.readers.checks import (
    SPLITS,
    PathError,
    by_split,
    check_memory,
    count_suffixes,
    list_folder,
    sort_class_names,
    subfolders,
)
from cnnjax.data.readers.image_files import (
    DECODING,
    SUFFIXES,
    count_notes,
    decode_image,
    is_image_file,
    split_entries,
    split_image_files,
)
from cnnjax.data.resize import resize_images
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import tracked
from cnnjax.utils.text import composed


def has_image_folders(root: Path) -> bool:
    """Whether a folder has folders of images, or splits of them."""
    parents = [root, *(folder for folder in subfolders(root) if folder.name.lower() in SPLITS)]
    return any(
        is_image_file(path) for parent in parents for folder in subfolders(parent) for path in list_folder(folder)
    )


def read_image_folder(root: Path, name: str, size: int | None, resize: str) -> Source:
    """Reads root/<class>/*.png, or root/train/<class>/*.png and optionally root/val/... and root/test/...

    Decoded images are cached until a file changes. They are sorted by class, and by file name within a class.

    Args:
        root: the folder.
        name: the data set's name.
        size: height and width to which decoded images are resized, or None.
        resize: the method, as in `resize_images`.

    Returns:
        The splits. Class names are the folders' names, sorted by `sort_class_names`.

    Raises:
        RequestError: a class has no image, an image cannot be decoded, the images differ in size and
            `size` is None, or a class of validation or test is missing in train.
    """
    files, notes = _list_files(root)
    classes = tuple(files["train"])
    labels_of = {composed(each): label for label, each in enumerate(classes)}  # macOS composes accents differently
    for folders in files.values():
        for unknown in sorted(each for each in folders if composed(each) not in labels_of):
            train = files["train"][classes[0]][0].parent.parent
            raise PathError(folders[unknown][0].parent, f"the class is missing in {train}")
    in_classes = [each for folders in files.values() for each in folders.values()]
    paths = [path for each in in_classes for path in each]
    parents = [(each, str(each[0].parent.relative_to(root))) for each in in_classes]
    key = {
        "folder": str(root.resolve()),
        "files": [_identify(parent, path) for each, parent in parents for path in each],
        "resized": size and (size, resize),
        "decoding": DECODING,
    }
    arrays = cached(name, key, lambda: _decode(paths, name, size, resize))
    images = arrays["images"]
    splits = {}
    for split, folders in files.items():
        labels = [labels_of[composed(each)] for each, paths in folders.items() for _ in paths]
        splits[split] = Split(images[: len(labels)], np.array(labels, np.int32))
        images = images[len(labels) :]
    notes += tuple(arrays["notes"].tolist())
    return Source(splits["train"], splits.get("test"), classes, splits.get("validation"), notes)


def _identify(parent: str, path: Path) -> tuple[str, int, int]:
    """Returns the name, size and time of a file. Keeping the whole `stat` of many files would take much memory."""
    stat = path.stat()
    return f"{parent}/{path.name}", stat.st_size, stat.st_mtime_ns


def _list_files(root: Path) -> tuple[dict[str, dict[str, list[Path]]], tuple[str, ...]]:
    """Returns the image files of each class of each split, and notes on the files that are left out."""
    folders = _split_folders(root)
    outside, unread = [], []
    # Competitions give the images to predict as a folder without classes.
    unlabeled = [split for split in folders if split != "train" and _has_images_only(folders[split])]
    notes = [f"left out, because the images are in no class folder: {folders.pop(split).name}" for split in unlabeled]
    for folder in sorted({root, *folders.values()}):
        images, others = split_image_files(folder)
        outside += images
        unread += others
    files: dict[str, dict[str, list[Path]]] = {}
    for split in (split for split in ("train", "validation", "test") if split in folders):
        files[split], others = _list_classes(folders[split])
        unread += others
    notes += [f"left out, not read as images: {count_suffixes(unread)}"] if unread else []
    notes += [f"left out, because they are in no class folder: {count_suffixes(outside)}"] if outside else []
    return files, tuple(notes)


def _has_images_only(folder: Path) -> bool:
    return not subfolders(folder) and any(map(is_image_file, list_folder(folder)))


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split, or the root as the training split if there are no split folders."""
    folders = subfolders(root)
    named = [folder for folder in folders if folder.name.lower() in SPLITS]
    train = [folder for folder in named if folder.name.lower() == "train"]
    if named != folders and not any(map(subfolders, train)):
        return {"train": root}
    if not train or named != folders:
        found = f"the folder has the folders {', '.join(folder.name for folder in folders)}"
        raise PathError(root, f"{found}; use one folder per class, or train and optionally val and test")
    return by_split(named, lambda folder: folder.name)


def _list_classes(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Returns the image files of each class, and all other files."""
    classes, unread = {}, []
    for name in sort_class_names(each.name for each in subfolders(folder)):
        classes[name], others, nested = split_entries(folder / name)
        if nested:
            raise PathError(nested[0], "the folder is within a class folder; put images there")
        if not classes[name]:
            but = f" but {count_suffixes(others)}" if others else ""
            raise PathError(folder / name, f"the class folder has no image{but}; use files named {SUFFIXES}")
        unread += others
    if not classes:
        raise PathError(folder, "the folder has no class folder; use one folder per class")
    return classes, unread


def _decode(paths: list[Path], name: str, size: int | None, resize: str) -> dict[str, np.ndarray]:
    """Returns `images` [N, H, W, C] (C is 1 if all are gray, otherwise 3), and `notes` on them."""
    images = None
    notes: list[str] = []
    for index, path in enumerate(tracked(paths, f"decoding {name}, once")):
        decoded = decode_image(path)
        image = decoded.pixels if size is None else resize_images([decoded.pixels], size, resize)[0]
        if images is None:
            check_memory("data.image_size", size, len(paths) * image.size)
            images = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape[:2] != images.shape[1:3]:
            sizes = ["x".join(str(n) for n in each.shape[:2]) for each in (images[0], image)]
            found = f"images differ in size: {paths[0]} is {sizes[0]}, {path} {sizes[1]}"
            raise RequestError("data.image_size", None, f"{found}; use a size")
        if image.shape[-1] > images.shape[-1]:  # the first that is not gray
            images = np.repeat(images, image.shape[-1], axis=-1)
        images[index] = image
        notes += decoded.notes
    assert images is not None, "every class has a file"
    return {"images": images, "notes": np.array(count_notes(notes), dtype=np.str_)}
