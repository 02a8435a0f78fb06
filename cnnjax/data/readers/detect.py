"""Detects the format of `data.path`, and reads it. An error is one line that names the file."""

import dataclasses
import functools
from pathlib import Path

from cnnjax.data.dataset import Source
from cnnjax.data.readers.checks import PathError, subfolders
from cnnjax.data.readers.cifar import has_cifar, read_cifar
from cnnjax.data.readers.csv import find_csv, is_csv, read_csv
from cnnjax.data.readers.idx import has_idx, read_idx_folder
from cnnjax.data.readers.image_folder import has_image_folders, read_image_folder
from cnnjax.data.readers.npy import has_npy, read_npy_folder
from cnnjax.data.readers.npz import ALLOWED as NPZ
from cnnjax.data.readers.npz import read_npz
from cnnjax.utils.paths import expanded
from cnnjax.utils.text import first_line

ACCEPTED = (
    "a folder of CIFAR-10's or CIFAR-100's batches, pickled or binary, as in the published archives; "
    "a folder of IDX files named as MNIST's (train-images-idx3-ubyte, train-labels-idx1-ubyte and "
    "optionally t10k-..., each with or without .gz); "
    "a folder of one .npy file for each class, named after it (uint8 [N, H, W] or [N, S*S], as Quick, Draw!'s); "
    "a folder of images for each class (root/<class>/*.png, .jpg, ...; or root/train/<class>/... and "
    "optionally root/val/<class>/... and root/test/<class>/...); "
    f"an .npz file ({NPZ}); "
    "or a .csv or .csv.gz file (a header row of label,pix1,pix2,...; gray squares), or a folder of train.csv and "
    "optionally val.csv and test.csv"
)
# Class names of data sets whose files do not name them.
CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer") + ("dog", "frog", "horse", "ship", "truck"),
    "mnist": tuple("0123456789"),
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
    + ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
}


def read_path(path: str, name: str, size: int | None = None, resize: str = "pad") -> Source:
    """Reads a folder or file.

    Args:
        path: the folder or file.
        name: the data set's name. If the files do not name the classes, `CLASSES[name]` does, or else the labels do.
        size: height and width to which image files are resized; other formats ignore it.
        resize: the method, as in `resize_images`.

    Raises:
        RequestError: the path does not exist, its format is unknown, or a file is damaged or inconsistent.
    """
    where = expanded("data.path", path)
    try:
        source = _read(where, name, size, resize)
    except OSError as error:
        raise PathError(where, f"the path cannot be read: {first_line(error)}") from error
    for name_of_split, split in source.splits.items():
        if split.images.shape[1:] != source.train.images.shape[1:]:
            shapes = f"{list(source.train.images.shape[1:])} and {list(split.images.shape[1:])}"
            raise PathError(where, f"the training and {name_of_split} images differ in shape: {shapes}; use one shape")
    classes = _class_names(where, source.classes or CLASSES.get(name), source)
    return dataclasses.replace(source, classes=classes)


def _read(where: Path, name: str, size: int | None, resize: str) -> Source:
    """Returns the data, without class names if the files do not name them."""
    if where.is_dir():
        read_images = functools.partial(read_image_folder, name=name, size=size, resize=resize)
        formats = (
            (has_idx, "IDX files", read_idx_folder),
            (has_cifar, "batches of CIFAR", read_cifar),
            (has_npy, "a .npy file for each class", read_npy_folder),
            (has_image_folders, "a folder of images for each class", read_images),
        )
        found = {label: read for has_format, label, read in formats if has_format(where)}
        if len(found) > 1:
            raise PathError(where, f"the folder has {' and '.join(found)}; use one of them")
        for read in found.values():
            return read(where)
        if any(file.name.lower().startswith("train.") for file in find_csv(where)):
            return read_csv(where)
        if subfolders(where):  # raises the error of a class folder without images
            return read_images(where)
    elif where.is_file():
        if where.suffix.lower() == ".npz":
            return read_npz(where)
        if is_csv(where):
            return read_csv(where)
    problem = "the format is not supported" if where.exists() else "no such file or folder"
    raise PathError(where, f"{problem}; use {ACCEPTED}")


def _class_names(path: Path, classes: tuple[str, ...] | None, source: Source) -> tuple[str, ...]:
    """Returns the class names, after checking that every label has one."""
    known = len(classes) if classes else int(source.train.labels.max()) + 1
    if known > max(len(source.train), 2):
        problem = f"there are {known:,} classes, but {len(source.train):,} training examples"
        if not classes:
            problem = f"labels reach {known - 1:,}, so {problem}; use whole numbers from 0, one for each class"
        raise PathError(path, problem)
    for name, split in source.splits.items():
        if split.labels.max() >= known:
            why = f"as there are {known} class names" if classes else "as in training"
            kind = "training" if name == "train" else name
            raise PathError(path, f"the {kind} labels reach {split.labels.max()}; use 0..{known - 1}, {why}")
    return classes or tuple(str(label) for label in range(known))
