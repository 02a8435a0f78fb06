"""The data of a study: samples, classes, splits and pixels. Imports no jax."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cnnjax.data import Dataset, Split, normalization_map
from cnnjax.data.normalization import BLACK, black_share, level_counts, pixel_statistics
from cnnjax.report.labels import shortened
from cnnjax.report.tables import Table
from cnnjax.report.theme import INK, MUTED, PAPER, SERIES, Plot, as_rgb, canvas, legend, line_handle, render, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EXAMPLES = 10  # of a class
_MOST_CLASSES = 100  # of which samples are shown
_NAMED_CLASSES = 60  # names of more cannot be read
_LONGEST = 24  # characters of a class's name
_GAP = 1  # pixel between two images


def tables(dataset: Dataset, kinds: Sequence[str]) -> list[Table]:
    """Returns tables of a data set's splits, classes and pixels.

    Args:
        dataset: the data.
        kinds: how a study normalizes it, see `data.normalization`. Each kind has a table of pixels.
    """
    named = {kind: "pixels" if len(kinds) == 1 else f"pixels_{kind}" for kind in kinds}
    return [_splits(dataset), _classes(dataset), *(_pixels(dataset, kind, name) for kind, name in named.items())]


@themed
def figures(dataset: Dataset, augmented: Mapping[str, np.ndarray]) -> Iterator[Plot]:
    """Draws a data set.

    Args:
        dataset: the data.
        augmented: for each augmentation of the study, the same N training images in each row, uint8 [R, N, H, W, C]:
            as stored in the first row, augmented in the others.
    """
    for name, split in dataset.splits.items():
        yield _samples(name, split, dataset.classes)
    for number, (name, images) in enumerate(augmented.items(), 1):
        yield _augmented(name, images, "augmented" if len(augmented) == 1 else f"augmented_{number}")
    yield _class_counts(dataset)
    yield _split_sizes(dataset)
    yield _levels(dataset)


def channel_names(dataset: Dataset) -> tuple[str, ...]:
    """Returns the names of the channels of the images."""
    channels = dataset.image_shape[-1]
    return {1: ("gray",), 3: ("red", "green", "blue")}.get(channels, tuple(map(str, range(channels))))


def class_counts(dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns the number of images of each class, int64 [K], for each split."""
    return {name: np.bincount(split.labels, minlength=len(dataset.classes)) for name, split in dataset.splits.items()}


def _splits(dataset: Dataset) -> Table:
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    test_from = "test" if dataset.test_from == "source" else dataset.test_from
    validation_from = "validation" if dataset.validation_from == "given" else dataset.validation_from
    origin = {"train": "train", "validation": validation_from, "test": test_from}
    rows = [
        {"split": name, "images": size, "share": size / sum(sizes.values()), "taken from": origin[name]}
        for name, size in sizes.items()
    ]
    note = "The number of images of each split, their share of all images, and their split in the source."
    kinds = {"split": "text", "images": "count", "taken from": "text"}
    return Table("splits", "Splits", note, pd.DataFrame(rows), kinds=kinds)


def _classes(dataset: Dataset) -> Table:
    frame = pd.DataFrame({"label": range(len(dataset.classes)), "class": dataset.classes} | class_counts(dataset))
    kinds = {"label": "whole", "class": "text"} | dict.fromkeys(dataset.splits, "count")
    return Table("classes", "Classes", "The number of images of each class in each split.", frame, kinds=kinds)


def _pixels(dataset: Dataset, kind: str, file: str) -> Table:
    rows: list[dict[str, Any]] = []
    scales, shifts = normalization_map(dataset, kind)
    for name, split in dataset.splits.items():
        counts_of = level_counts(split.images)
        for channel, counts, scale, shift in zip(channel_names(dataset), counts_of, scales, shifts, strict=True):
            before = pixel_statistics(counts)._asdict() | {"black": black_share(counts)}
            after = pixel_statistics(counts, float(scale), float(shift))._asdict()
            del after["pixels"]
            rows.append({"split": name, "channel": channel} | before | {f"{k}_normalized": v for k, v in after.items()})
    note = (
        f"Pixels as stored (0 to 255), and as the network gets them (normalization {kind}). std: population standard "
        f"deviation. Black: share of pixels of at most {BLACK}."
    )
    kinds = {"split": "text", "channel": "text"} | dict.fromkeys(("pixels", "min", "max"), "count")
    return Table(file, "Pixels", note, pd.DataFrame(rows), kinds=kinds)


def mosaic(images: np.ndarray) -> np.ndarray:
    """Lays images out in rows and columns, white pixels between them.

    Args:
        images: uint8 [R, N, H, W, C]; of one or two channels the first is shown in gray, of more the first three.

    Returns:
        uint8 [height, width, 3].
    """
    rows, columns, height, width, _ = images.shape
    tiles = np.full((rows, columns, height + _GAP, width + _GAP, 3), 255, np.uint8)
    tiles[:, :, :height, :width] = as_rgb(images)
    whole = tiles.swapaxes(1, 2).reshape(rows * (height + _GAP), columns * (width + _GAP), 3)
    return whole[:-_GAP, :-_GAP]


def _show(images: np.ndarray, names: list[str]) -> "Figure":
    """A figure of images [R, N, H, W, C] with a name before each row."""
    rows, _, height, *_ = images.shape
    picture = mosaic(images)
    figure, [[axes]] = canvas(8, 8 * 0.86 * picture.shape[0] / picture.shape[1] + 0.2)
    axes.imshow(picture, interpolation="none")
    axes.set_yticks((np.arange(rows) + 0.5) * (height + _GAP) - 1, names)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


def draw_by_class(images: np.ndarray, labels: np.ndarray, classes: Sequence[str], count: int) -> tuple["Figure", str]:
    """Draws a row of images of each class, and says which: the first `count`, of at most `_MOST_CLASSES` classes.

    Args:
        images: uint8 [N, H, W, C].
        labels: int [N], the class of each.
        classes: their names.
        count: images of a class, at most.
    """
    shown = list(classes[:_MOST_CLASSES])
    rows = np.full((len(shown), count, *images.shape[1:]), 255, np.uint8)
    for label, row in enumerate(rows):
        found = images[np.flatnonzero(labels == label)[:count]]
        row[: len(found)] = found
    of = f"the first {len(shown)} of {len(classes)} classes" if len(shown) < len(classes) else "each class"
    return _show(rows, [shortened(name, _LONGEST) for name in shown]), of


def _samples(name: str, split: Split, classes: tuple[str, ...]) -> Plot:
    figure, of = draw_by_class(split.images, split.labels, classes, _EXAMPLES)
    caption = f"The first {_EXAMPLES} {name} images of {of}, as stored (before augmentation and normalization)."
    return render(figure, f"samples_{name}", "Samples by class", caption)


def _augmented(name: str, images: np.ndarray, file: str) -> Plot:
    names = ["stored", *(f"draw {row}" for row in range(1, len(images)))]
    caption = (
        "The same training images as stored, and as the network sees them: each row below the first is another draw of "
        f"the study's augmentation ({name}), before normalization."
    )
    return render(_show(images, names), file, "What the network sees", caption)


def _class_counts(dataset: Dataset) -> Plot:
    counts, classes = class_counts(dataset), len(dataset.classes)
    figure, [row] = canvas(8, min(9, 1.2 + 0.13 * classes * (1 + len(counts))), columns=2, sharey=True)
    thick = 0.8 / len(counts)
    for index, (_, values) in enumerate(counts.items()):
        at = np.arange(classes) + (index - (len(counts) - 1) / 2) * thick
        for axes, lengths in zip(row, (values, 100 * values / values.sum()), strict=True):
            axes.barh(at, lengths, 0.92 * thick, color=SERIES[index])
    for axes, title in zip(row, ("images", "% of the split"), strict=True):
        axes.set_xlabel(title)
        axes.grid(False, axis="y")
    names = [shortened(name, _LONGEST) for name in dataset.classes]
    row[0].set_yticks(range(classes), names if classes <= _NAMED_CLASSES else [""] * classes)
    row[0].tick_params(axis="y", length=0)
    row[0].set_ylim(classes - 0.5, -0.5)
    legend(figure, [line_handle(name, color=SERIES[i], lw=5) for i, name in enumerate(counts)])
    caption = "The number of images of each class in each split, and their share of the split."
    return render(figure, "class_counts", "Classes and splits", caption)


def _split_sizes(dataset: Dataset) -> Plot:
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    total = sum(sizes.values())
    figure, [[axes]] = canvas(5.6, 1 + 0.45 * len(sizes))
    for index, (name, size) in enumerate(sizes.items()):
        axes.barh(name, size, 0.7, color=SERIES[index])
        axes.annotate(
            f"{size:,} ({100 * size / total:.1f} %)",
            (size, index),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * max(sizes.values()))
    axes.set_xlabel("images")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return render(figure, "split_sizes", "Classes and splits", "The size of each split, and its share of all images.")


def _levels(dataset: Dataset) -> Plot:
    counts = level_counts(dataset.train.images)
    black = black_share(counts)
    first = BLACK + 1 if black > 0.5 and black < 1 else 0
    names = channel_names(dataset)
    # red, green and blue where the channels are those, told apart by their lines' colors in the page's palette
    colors = {3: (SERIES[1], SERIES[2], SERIES[0])}.get(len(names), SERIES)
    figure, [[axes]] = canvas(8, 3.2)
    for index, values in enumerate(counts):
        _histogram(axes, first, values[first:], colors[index % len(colors)], alone=len(counts) == 1)
    axes.set_xlim(first - 0.5, 255.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("level of a pixel, as stored")
    axes.set_ylabel("% of these pixels" if first else "% of the pixels")
    if len(names) > 1:
        legend(figure, [line_handle(name, color=colors[i % len(colors)]) for i, name in enumerate(names)])
    which = f"Most training pixels are black: {100 * black:.1f} % are at most {BLACK}. Shown are the others." * (
        first > 0
    )
    which = which or f"All training pixels; {100 * black:.1f} % of them are black (at most {BLACK})."
    return render(figure, "levels", "Pixels", f"How often each level occurs. {which}")


def _histogram(axes: "Axes", first: int, counts: np.ndarray, color: str, *, alone: bool) -> None:
    edges = np.arange(first, first + len(counts) + 1) - 0.5
    shares = 100 * counts / max(counts.sum(), 1)
    if alone:
        axes.stairs(shares, edges, fill=True, color=PAPER)  # hides the grid
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.45)
    axes.stairs(shares, edges, color=color if not alone else MUTED, lw=1)
