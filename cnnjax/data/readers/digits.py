"""Reads the digits of scikit-learn: 1,797 gray 8x8 images."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Source, Split


def read_digits() -> Source:
    """Returns the digits, with their 17 gray levels scaled to 0..255, and without a test split."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None, "a dependency"
    # `sklearn.datasets.load_digits` reads the same file; importing it takes a second.
    with gzip.open(Path(spec.origin).parent / "datasets/data/digits.csv.gz", "rt", encoding="ascii") as file:
        rows = np.loadtxt(file, np.int32, delimiter=",")
    images = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return Source(Split(images, rows[:, -1].copy()), None, tuple("0123456789"))
