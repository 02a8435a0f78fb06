"""Tables of a data set: its splits, classes and pixels. Imports no jax."""

from typing import Any

import numpy as np
import pandas as pd

from cnnjax.data import Dataset, normalisation
from cnnjax.data.levels import BLACK, black_share, level_counts, pixel_statistics
from cnnjax.report.tables import Table


def data_tables(dataset: Dataset, kind: str) -> list[Table]:
    """Returns the tables of a data set's splits, classes and pixels.

    Args:
        dataset: the data.
        kind: how a study normalises it, see `normalisation`.
    """
    return [_splits(dataset), _classes(dataset), _pixels(dataset, kind)]


def channel_names(dataset: Dataset) -> tuple[str, ...]:
    """Returns what the channels of the images are called."""
    channels = dataset.image_shape[-1]
    return {1: ("grey",), 3: ("red", "green", "blue")}.get(channels, tuple(map(str, range(channels))))


def class_counts(dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns for each split how many images each class has, int64 [K]."""
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
    note = "How many images each split has, its share of all, and which split of the source they are."
    kinds = {"split": "text", "images": "count", "taken from": "text"}
    return Table("splits", "Splits", note, pd.DataFrame(rows), kinds=kinds)


def _classes(dataset: Dataset) -> Table:
    frame = pd.DataFrame({"label": range(len(dataset.classes)), "class": dataset.classes} | class_counts(dataset))
    kinds = {"label": "whole", "class": "text"} | dict.fromkeys(dataset.splits, "count")
    return Table("classes", "Classes", "How many images of each class each split has.", frame, kinds=kinds)


def _pixels(dataset: Dataset, kind: str) -> Table:
    rows: list[dict[str, Any]] = []
    scales, shifts = normalisation(dataset, kind)
    for name, split in dataset.splits.items():
        counts_of = level_counts(split.images)
        for channel, counts, scale, shift in zip(channel_names(dataset), counts_of, scales, shifts, strict=True):
            before = pixel_statistics(counts)._asdict() | {"black": black_share(counts)}
            after = pixel_statistics(counts, float(scale), float(shift))._asdict()
            del after["pixels"]
            rows.append({"split": name, "channel": channel} | before | {f"{k}_normalised": v for k, v in after.items()})
    note = (
        f"Pixels as stored (0 to 255), and as the network gets them: normalisation {kind}. "
        f"std: population standard deviation; black: share of pixels of at most {BLACK}."
    )
    kinds = {"split": "text", "channel": "text"} | dict.fromkeys(("pixels", "min", "max"), "count")
    return Table("pixels", "Pixels", note, pd.DataFrame(rows), kinds=kinds)
