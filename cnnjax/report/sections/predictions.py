"""Unlabeled images with their predicted classes. Imports no jax."""

from collections.abc import Iterator, Sequence

import numpy as np

from cnnjax.report.labels import shortened
from cnnjax.report.sections.data import draw_by_class, mosaic
from cnnjax.report.theme import Plot, canvas, render, themed

_ROWS, _COLUMNS = 4, 8  # of the first images
_OF_A_CLASS = 20
_LONGEST = 16  # characters of a class's name


@themed
def figures(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Iterator[Plot]:
    """Draws the first images with their classes, and the first of each class.

    Args:
        images: uint8 [N, H, W, C].
        labels: int [N], the predicted class of each.
        classes: their names.
    """
    yield _first(images, labels, classes)
    figure, of = draw_by_class(images, labels, classes, _OF_A_CLASS)
    caption = f"The first {_OF_A_CLASS} images, if there are so many, predicted as {of}."
    yield render(figure, "predicted_by_class", "By predicted class", caption)


def _first(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Plot:
    count = min(len(images), _ROWS * _COLUMNS)
    rows = -(-count // _COLUMNS)
    figure, grid = canvas(8, 1.25 * rows, _COLUMNS, rows)
    for index, axes in enumerate(axes for row in grid for axes in row):
        axes.set_axis_off()
        if index < count:
            axes.imshow(mosaic(images[None, index : index + 1]), interpolation="none")
            axes.set_title(shortened(classes[labels[index]], _LONGEST), fontsize=7.5, loc="center")
    caption = f"The first {count} images, each under its predicted class."
    return render(figure, "predicted_first", "The first images", caption)
