"""Reads the digits of scikit-learn: 1,797 gray 8x8 images."""

from typing import Any

import numpy as np

from cnnjax.data.dataset import Source, Split


def read_digits() -> Source:
    """Returns the digits, with their 17 gray levels scaled to 0..255, and without a test split."""
    from sklearn.datasets import load_digits  # lazily: it takes a second

    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    names = tuple(str(name) for name in digits.target_names)
    return Source(Split(images, digits.target.astype(np.int32)), None, names)
