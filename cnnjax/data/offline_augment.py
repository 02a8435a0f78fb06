"""Offline augmentation: fixed versions of every image, stored in the data set."""

import numpy as np

from cnnjax.data.dataset import Split
from cnnjax.utils.errors import RequestError

ZOOM_CROP = 2  # pixels that a zoom takes off each side


def flip_zoom(split: Split) -> Split:
    """Returns each example in four versions: the image, its left-right flip, its zoom, and the flip of the zoom.

    A zoom crops `ZOOM_CROP` pixels from each side and resizes to the old size by `scipy.ndimage.zoom(order=0)`, which
    aligns the centers of the corner pixels. (Pillow and PyTorch align their outer edges.)

    Args:
        split: N examples, images uint8 [N, H, W, C].

    Returns:
        4N examples; 4i to 4i + 3 are the versions of example i.

    Raises:
        RequestError: the images are too small to crop.
    """
    height, width = split.images.shape[1:3]
    if min(height, width) <= 2 * ZOOM_CROP:
        problem = f"images are {height}x{width}; use images of at least {2 * ZOOM_CROP + 1} pixels a side"
        raise RequestError("data.stored_augment", "flip_zoom", problem)
    images = split.images
    zoomed = images[:, _zoom_indices(height)][:, :, _zoom_indices(width)]
    versions = np.stack([images, images[:, :, ::-1], zoomed, zoomed[:, :, ::-1]], axis=1)
    return Split(versions.reshape(-1, *images.shape[1:]), split.labels.repeat(4))


def _zoom_indices(size: int) -> np.ndarray:
    """Returns, for each row (or column) of a zoom, the row of the image that it shows."""
    from scipy.ndimage import zoom  # lazily: other studies do not need SciPy

    kept = np.arange(ZOOM_CROP, size - ZOOM_CROP)
    return zoom(kept, size / len(kept), order=0)
