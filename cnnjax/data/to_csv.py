"""Writes gray images as two CSV files: train.csv (label,pix1,...) and test.csv (ID,pix1,..., no labels).

    python -m cnnjax.data.to_csv --input=FOLDER --output=fashion [--resize=pad]
    python -m cnnjax.data.to_csv --name=fashion_mnist --output=fashion

All images, of every split, are brought to 32x32 and shuffled; three quarters become train.csv. Fashion-MNIST so
becomes 52,500 and 17,500 rows. How the published 32x32 images were made is not known; their mean gray level, 44, is
that of images with a margin of 4 pixels brought from 36x36 to 32x32 (44.1), neither that of padded (55.9) nor that of
enlarged ones (72.8). Images that differ in size are brought to 32x32 before the margin, too.
"""

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnnjax.data.dataset import Source
from cnnjax.data.load import load_source
from cnnjax.data.readers.checks import PathError, check_memory
from cnnjax.data.resize import resize_images
from cnnjax.runs.integrity import replaced
from cnnjax.study.schema import DataConfig
from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError, Told
from cnnjax.utils.paths import expanded, make_folder
from cnnjax.utils.progress import tracked

_MARGIN = 4


def to_csv(
    data: DataConfig, output: Path, size: int = 32, resize: str = "bilinear", margin: int = _MARGIN, seed: int = 0
) -> None:
    """Writes train.csv and test.csv, both or neither.

    Args:
        data: which images, by `name` or `path`.
        output: the folder, which is made if it is not there.
        size: height and width of the written images.
        resize: how they are brought to it, as `resize_images`.
        margin: zeros that are first put around an image, in its own pixels, or in those of `size` if images differ.
        seed: of the shuffle.

    Raises:
        RequestError: a number out of range, data that cannot be read, has colors or too few images, or files
            that are already there.
    """
    for flag, value, least, most in (
        ("--image_size", size, 1, 4096),
        ("--margin", margin, 0, 4096),
        ("--seed", seed, 0, 2**32 - 1),
    ):
        if not least <= value <= most:
            raise RequestError(flag, value, f"must be a whole number of {least}..{most}")
    names = ("train.csv", "test.csv")
    for name in names:
        if (output / name).exists():
            raise RequestError("--output", str(output), f"it has a {name}; use a folder without {' and '.join(names)}")
    source = _load(data, size, resize)
    for note in source.notes:
        print(note, file=sys.stderr)
    splits = [source.splits[name] for name in ("train", "test", "validation") if name in source.splits]
    labels = np.concatenate([split.labels for split in splits])
    stored = np.concatenate([split.images for split in splits])
    if stored.shape[-1] != 1:
        raise RequestError("--input", data.path or data.name, "its images have colors; use gray images")
    order = np.random.default_rng(seed).permutation(len(labels))
    count = round(0.75 * len(labels))
    if not 0 < count < len(labels):
        raise RequestError("--input", data.path or data.name, f"it has {len(labels)} images; use more")
    copies = 2 * len(labels)  # in their order, and put together
    height, width = (length + 2 * margin for length in stored.shape[1:3])
    check_memory("--margin", margin, copies * height * width)
    check_memory("--image_size", size, copies * size * size)
    stored = np.pad(stored, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    images = resize_images(stored[order], size, resize).reshape(len(labels), -1)
    make_folder("--output", output)
    with contextlib.ExitStack() as stack:
        train, test = (stack.enter_context(replaced(output / name)) for name in names)
        _write(train, "label", labels[order[:count]], images[:count])
        _write(test, "ID", np.arange(len(labels) - count), images[count:])


def _load(data: DataConfig, size: int, resize: str) -> Source:
    """Reads images as they are, or brought to `size` where they differ in theirs."""
    try:
        return load_source(data)[1]
    except RequestError:  # whatever else is wrong is so the second time, too
        return load_source(dataclasses.replace(data, image_size=size, resize=resize))[1]


def _write(file: BinaryIO, key: str, column: np.ndarray, images: np.ndarray) -> None:
    file.write(",".join([key, *(f"pix{number + 1}" for number in range(images.shape[1]))]).encode() + b"\n")
    words = [str(value) for value in range(256)]
    for value, pixels in tracked(zip(column, images, strict=True), f"writing rows of {key}", len(images)):
        file.write(f"{value},{','.join([words[pixel] for pixel in pixels.tolist()])}\n".encode())


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line, its first word being the program.

    Raises:
        RequestError: it is wrong.
    """
    form = argparse.RawDescriptionHelpFormatter
    parser = cli.ArgumentParser("python -m cnnjax.data.to_csv", description=__doc__, formatter_class=form)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--input", help="a file or folder, as data.path")
    which.add_argument("--name", help="a prepared data set, as data.name")
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--resize", choices=("bilinear", "nearest", "pad"), default="bilinear")
    margin = f"pixels put around an image first (default: {_MARGIN}, with --resize=pad none)"
    parser.add_argument("--margin", type=int, help=margin)
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle")
    return parser.parse_args(argv[1:])


def main(options: argparse.Namespace) -> None:
    """Writes what the command line asks for, and prints the folder.

    Raises:
        RequestError: it cannot be done.
    """
    margin = options.margin if options.margin is not None else 0 if options.resize == "pad" else _MARGIN
    data = DataConfig(path=str(expanded("--input", options.input))) if options.input else DataConfig(name=options.name)
    folder = expanded("--output", options.output)
    try:
        to_csv(data, folder, options.image_size, options.resize, margin, options.seed)
    except PathError as error:
        raise error.under("--input") from error
    except RequestError as error:  # of a study's settings, which are flags here
        said = str(error).replace("data.image_size", "--image_size").replace("data.resize = ", "--resize=")
        raise Told(said) from error
    print(folder)


if __name__ == "__main__":
    cli.run(main, parse)
