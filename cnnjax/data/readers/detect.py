"""Reads the data that `data.path` names, of whatever kind it is found to be.

A file may be damaged or made to mislead: its sizes are checked before memory is taken, and every
fault is one line that names the file.
"""

import dataclasses
from pathlib import Path

from cnnjax.data.dataset import Source
from cnnjax.data.readers.checks import PathError
from cnnjax.data.readers.cifar import has_cifar, read_cifar
from cnnjax.data.readers.csv import find_csv, is_csv, read_csv
from cnnjax.data.readers.idx import has_idx, read_idx_folder
from cnnjax.data.readers.image_folder import has_class_folders, has_pictures, read_class_folders
from cnnjax.data.readers.npy import has_npy, read_npy_folder
from cnnjax.data.readers.npz import ALLOWED as NPZ
from cnnjax.data.readers.npz import read_npz
from cnnjax.utils.paths import expanded
from cnnjax.utils.text import first_line

ACCEPTED = (
    "a folder of CIFAR-10's or CIFAR-100's batches, pickled or binary, as their archives hold it; "
    "a folder of IDX files named as MNIST's (train-images-idx3-ubyte, train-labels-idx1-ubyte and "
    "optionally t10k-..., each with or without .gz); "
    "a folder of one .npy file for each class, named after it (uint8 [N, H, W] or [N, S*S], as Quick, Draw!'s); "
    "a folder of images for each class (root/<class>/*.png, .jpg, ...; or root/train/<class>/... and "
    "optionally root/val/<class>/... and root/test/<class>/...); "
    f"an .npz file ({NPZ}); "
    "or a .csv or .csv.gz file (a header row of label,pix1,pix2,...; gray squares), or a folder of train.csv and "
    "optionally val.csv and test.csv"
)
_KINDS = {
    has_idx: "IDX files",
    has_cifar: "batches of CIFAR",
    has_npy: "a .npy file for each class",
    has_pictures: "a folder of images for each class",
}
# What the data is when the files cannot say it themselves.
CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer") + ("dog", "frog", "horse", "ship", "truck"),
    "mnist": tuple("0123456789"),
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
    + ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
}


def read_path(path: str, name: str, size: int | None = None, resize: str = "pad") -> Source:
    """Reads the data that a path names.

    Args:
        path: the folder or file.
        name: what the data is; where the files do not name the classes, a name in `CLASSES` does,
            and otherwise a class is named by its label.
        size: height and width of image files, which may differ in theirs; other data keep their own.
        resize: how image files are brought to `size`, as `images.resize_images`.

    Raises:
        RequestError: nothing readable is there, or a file is damaged or inconsistent.
    """
    where = expanded("data.path", path)
    try:
        source = _read(where, name, size, resize)
    except OSError as error:
        raise PathError(where, f"it cannot be read: {first_line(error)}") from error
    for name_of_split, split in source.splits.items():
        if split.images.shape[1:] != source.train.images.shape[1:]:
            shapes = f"{list(source.train.images.shape[1:])} and {list(split.images.shape[1:])}"
            raise PathError(where, f"its training and {name_of_split} images differ in shape: {shapes}")
    classes = _class_names(where, source.classes or CLASSES.get(name), source)
    return dataclasses.replace(source, classes=classes)


def _read(where: Path, name: str, size: int | None, resize: str) -> Source:
    """Returns what is there; without class names where the files do not say them."""
    if where.is_dir():
        found = [is_there for is_there in _KINDS if is_there(where)]
        if len(found) > 1:
            raise PathError(where, f"it has {' and '.join(map(_KINDS.__getitem__, found))}; use one of them")
        if has_idx in found:
            return Source(*read_idx_folder(where), ())
        if has_cifar in found:
            train, test, classes = read_cifar(where)
            return Source(train, test, classes or ())
        if has_npy in found:
            return read_npy_folder(where)
        if not found and any(file.name.lower().startswith("train.") for file in find_csv(where)):
            return read_csv(where)
        if has_class_folders(where):  # with images or, as it then says, without
            return read_class_folders(where, name, size, resize)
    elif where.is_file():
        if where.suffix.lower() == ".npz":
            return read_npz(where)
        if is_csv(where):
            return read_csv(where)
    what = "it is of no kind that is read" if where.exists() else "there is no such file"
    raise PathError(where, f"{what}; use {ACCEPTED}")


def _class_names(path: Path, classes: tuple[str, ...] | None, source: Source) -> tuple[str, ...]:
    """Returns the class names, once every label is known to have one."""
    known = len(classes) if classes else int(source.train.labels.max()) + 1
    if known > max(len(source.train), 2):
        found = f"that is {known:,} classes of {len(source.train):,} training examples"
        if not classes:
            found = f"its labels reach {known - 1:,}, {found}; use whole numbers from 0 on, one for each class"
        raise PathError(path, found)
    for name, split in source.splits.items():
        if split.labels.max() >= known:
            why = f"as there are {known} class names" if classes else "as in training"
            kind = "training" if name == "train" else name
            raise PathError(path, f"its {kind} labels reach {split.labels.max()}; use 0..{known - 1}, {why}")
    return classes or tuple(str(label) for label in range(known))
