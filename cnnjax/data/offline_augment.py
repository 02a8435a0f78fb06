"""Augmentation that is stored: every image once in each of a few fixed versions."""

import numpy as np

from cnnjax.data.dataset import Split
from cnnjax.utils.errors import RequestError

ZOOM_CROP = 2  # pixels that a zoom takes off each side


def flip_zoom(split: Split) -> Split:
    """Returns every example in four versions that stand side by side.

    They are the image, its left-right flip, its zoom and the flip of the zoom. A zoom is the image without `ZOOM_CROP`
    pixels on each side, brought back to size by the nearest pixel as `scipy.ndimage.zoom(order=0)` has it: the first
    and last pixels of the two grids lie on each other (Pillow and PyTorch let the edges of their pixels do so).

    Args:
        split: images uint8 [N, H, W, C].

    Returns:
        The split with 4N examples; versions 4i to 4i + 3 are of example i.

    Raises:
        RequestError: the images are too small to crop.
    """
    height, width = split.images.shape[1:3]
    if min(height, width) <= 2 * ZOOM_CROP:
        least = f"allowed for images of at least {2 * ZOOM_CROP + 1} pixels a side, not {height}x{width}"
        raise RequestError("data.stored_augment", "flip_zoom", least)
    images = split.images
    zoomed = images[:, _zoomed(height)][:, :, _zoomed(width)]
    versions = np.stack([images, images[:, :, ::-1], zoomed, zoomed[:, :, ::-1]], axis=1)
    return Split(versions.reshape(-1, *images.shape[1:]), split.labels.repeat(4))


def _zoomed(size: int) -> np.ndarray:
    """Which row (or column) of an image of `size` rows each row of its zoom shows."""
    from scipy.ndimage import zoom  # lazily: all else that every study imports does without SciPy

    shown = np.arange(ZOOM_CROP, size - ZOOM_CROP)
    return zoom(shown, size / len(shown), order=0)
