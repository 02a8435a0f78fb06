"""Writes gray images as two CSV files: train.csv (label,pix1,...) and test.csv (ID,pix1,..., no labels).

    python -m cnnjax.data.to_csv --input=FOLDER --output=fashion [--resize=pad]
    python -m cnnjax.data.to_csv --name=fashion_mnist --output=fashion

The images of all splits are resized to 32x32 and shuffled. Three quarters become train.csv: 52,500 rows of
Fashion-MNIST, and 17,500 of test.csv. The method behind the published 32x32 images is unknown. Their mean gray level
is 44. Images with a margin of 4 pixels, resized from 36x36 to 32x32, have 44.1, padded images 55.9 and enlarged images
72.8. Images that differ in size are resized to 32x32 before the margin, too.
"""

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnnjax.data.dataset import Source, Split
from cnnjax.data.load import load_source
from cnnjax.data.readers.checks import PathError, check_memory
from cnnjax.data.resize import resize_images
from cnnjax.runs.integrity import replaced
from cnnjax.study.schema import DataConfig
from cnnjax.utils import cli
from cnnjax.utils.errors import RelayedError, RequestError
from cnnjax.utils.paths import expanded, make_folder
from cnnjax.utils.progress import tracked
from cnnjax.utils.text import counted

_MARGIN = 4
_SPLITS = ("train", "test", "validation")  # in the order in which they are shuffled


def to_csv(
    data: DataConfig, output: Path, size: int = 32, resize: str = "bilinear", margin: int = _MARGIN, seed: int = 0
) -> None:
    """Writes train.csv and test.csv, both or neither.

    Args:
        data: which images, by `name` or `path`.
        output: the folder; created if it does not exist.
        size: height and width of the written images.
        resize: the method, as in `resize_images`.
        margin: zero pixels added to each side before resizing (images that differ in size are first resized to `size`).
        seed: seed of the shuffle.

    Raises:
        RequestError: a number is out of range, the data cannot be read, is not gray or has too few images, or a file
            exists.
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
            raise RequestError("--output", str(output), f"{name} exists; use a folder without {' and '.join(names)}")
    source = _load(data, size, resize)
    for note in source.notes:
        print(note, file=sys.stderr)
    everything = Split.concatenate([source.splits[name] for name in _SPLITS if name in source.splits])
    stored, labels = everything.images, everything.labels
    if stored.shape[-1] != 1:
        raise RequestError("--input", data.path or data.name, "the images have colors; use gray images")
    order = np.random.default_rng(seed).permutation(len(labels))
    count = round(0.75 * len(labels))
    if not 0 < count < len(labels):
        raise RequestError("--input", data.path or data.name, f"the data has {counted(len(labels), 'image')}; use more")
    height, width = (length + 2 * margin for length in stored.shape[1:3])
    check_memory("--margin", margin, 2 * len(labels) * height * width)  # padded, and shuffled
    check_memory("--image_size", size, 2 * len(labels) * size * size)  # single images, and stacked
    stored = np.pad(stored, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    images = resize_images(stored[order], size, resize).reshape(len(labels), -1)
    make_folder("--output", output)
    with contextlib.ExitStack() as stack:
        train, test = (stack.enter_context(replaced(output / name)) for name in names)
        _write(train, "label", labels[order[:count]], images[:count])
        _write(test, "ID", np.arange(len(labels) - count), images[count:])


def _load(data: DataConfig, size: int, resize: str) -> Source:
    """Reads images, resized to `size` only if they differ in size."""
    try:
        return load_source(data)[1]
    except RequestError:  # other errors occur again
        return load_source(dataclasses.replace(data, image_size=size, resize=resize))[1]


def _write(file: BinaryIO, key: str, column: np.ndarray, images: np.ndarray) -> None:
    file.write(",".join([key, *(f"pix{number + 1}" for number in range(images.shape[1]))]).encode() + b"\n")
    texts = [str(value) for value in range(256)]
    for value, pixels in tracked(zip(column, images, strict=True), f"writing rows of {key}", len(images)):
        file.write(f"{value},{','.join([texts[pixel] for pixel in pixels.tolist()])}\n".encode())


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line, including the program's name."""
    form = argparse.RawDescriptionHelpFormatter
    parser = cli.ArgumentParser("python -m cnnjax.data.to_csv", description=__doc__, formatter_class=form)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", help="a file or folder, as data.path")
    source.add_argument("--name", help="a prepared data set, as data.name")
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--resize", choices=("bilinear", "nearest", "pad"), default="bilinear")
    margin = f"zero pixels added to each side first (default: {_MARGIN}, or 0 with --resize=pad)"
    parser.add_argument("--margin", type=int, help=margin)
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffle")
    return parser.parse_args(argv[1:])


def main(options: argparse.Namespace) -> None:
    """Writes the files, and prints their folder."""
    margin = options.margin if options.margin is not None else 0 if options.resize == "pad" else _MARGIN
    data = DataConfig(path=str(expanded("--input", options.input))) if options.input else DataConfig(name=options.name)
    folder = expanded("--output", options.output)
    try:
        to_csv(data, folder, options.image_size, options.resize, margin, options.seed)
    except PathError as error:
        raise error.with_key("--input") from error
    except RequestError as error:  # names config keys, which are flags here
        message = str(error).replace("data.image_size", "--image_size").replace("data.resize = ", "--resize=")
        raise RelayedError(message) from error
    print(folder)


if __name__ == "__main__":
    cli.run(main, parse)
