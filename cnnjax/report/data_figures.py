"""Figures of a data set: samples by class, augmented images, classes, splits and grey levels. Imports no jax."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.data import Dataset, Split
from cnnjax.data.levels import BLACK, black_share, level_counts
from cnnjax.report.data_tables import channel_names, class_counts
from cnnjax.report.lettering import shortened
from cnnjax.report.style import INK, MUTED, PAPER, SERIES, Plot, canvas, context, legend, line_handle, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EXAMPLES = 10  # of a class
_MOST_CLASSES = 100  # of which samples are shown
_NAMED_CLASSES = 60  # names of more cannot be read
_LONGEST = 24  # letters of a class's name
_GAP = 1  # pixel between two images


def draw_data(dataset: Dataset, augmented: np.ndarray | None) -> Iterator[Plot]:
    """Draws a data set.

    Args:
        dataset: the data.
        augmented: uint8 [R, N, H, W, C]: the same N training images in each row, the first row as they are stored, the
            others as they are augmented; None where nothing is.
    """
    with context():
        for name, split in dataset.splits.items():
            yield _samples(name, split, dataset.classes)
        if augmented is not None:
            yield _augmented(augmented)
        yield _class_counts(dataset)
        yield _split_sizes(dataset)
        yield _levels(dataset)


def mosaic(images: np.ndarray) -> np.ndarray:
    """Lays images out in rows and columns, white pixels between them.

    Args:
        images: uint8 [R, N, H, W, C]; of one or two channels the first is shown in grey, of more the first three.

    Returns:
        uint8 [height, width, 3].
    """
    rows, columns, height, width, channels = images.shape
    colours = images[..., :3] if channels >= 3 else np.repeat(images[..., :1], 3, axis=-1)
    tiles = np.full((rows, columns, height + _GAP, width + _GAP, 3), 255, np.uint8)
    tiles[:, :, :height, :width] = colours
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
    caption = f"The first {_EXAMPLES} {name} images of {of}, as stored (before augmentation and normalisation)."
    return render(figure, f"samples_{name}", "Samples by class", caption)


def _augmented(images: np.ndarray) -> Plot:
    names = ["stored", *(f"draw {row}" for row in range(1, len(images)))]
    caption = (
        "The same training images as stored and as the network sees them: each row below the first is another draw of "
        "the study's augmentation, before normalisation."
    )
    return render(_show(images, names), "augmented", "What the network sees", caption)


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
    caption = "How many images of each class each split has, and what share of the split they are."
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
    # red, green and blue where the channels are those, told apart by their lines' colours in the page's palette
    colours = {3: (SERIES[1], SERIES[2], SERIES[0])}.get(len(names), SERIES)
    figure, [[axes]] = canvas(8, 3.2)
    for index, values in enumerate(counts):
        _histogram(axes, first, values[first:], colours[index % len(colours)], alone=len(counts) == 1)
    axes.set_xlim(first - 0.5, 255.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("level of a pixel, as stored")
    axes.set_ylabel("% of these pixels" if first else "% of the pixels")
    if len(names) > 1:
        legend(figure, [line_handle(name, color=colours[i % len(colours)]) for i, name in enumerate(names)])
    which = f"Most training pixels are black: {100 * black:.1f} % are at most {BLACK}. Shown are the others." * (
        first > 0
    )
    which = which or f"All training pixels; {100 * black:.1f} % of them are black (at most {BLACK})."
    return render(figure, "levels", "Pixels", f"How often each level occurs. {which}")


def _histogram(axes: "Axes", first: int, counts: np.ndarray, colour: str, *, alone: bool) -> None:
    edges = np.arange(first, first + len(counts) + 1) - 0.5
    shares = 100 * counts / max(counts.sum(), 1)
    if alone:
        axes.stairs(shares, edges, fill=True, color=PAPER)  # hides the grid
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.45)
    axes.stairs(shares, edges, color=colour if not alone else MUTED, lw=1)
