"""Brings images to one size. Pillow resizes; padding is zeros around the centered image."""

from collections.abc import Iterable

import numpy as np

from cnnjax.utils.errors import RequestError

_EDGE = 64  # pixels of a thumbnail, at most
_BYTES = 8_000_000  # of all thumbnails, before compression


def resize_images(images: Iterable[np.ndarray], size: int, kind: str) -> np.ndarray:
    """Brings every image to a square.

    Args:
        images: uint8 [H, W, C] each, their sizes may differ; or one array [N, H, W, C].
        size: height and width of the result.
        kind: `pad` (zeros around, an odd row below, an odd column right), `bilinear` or `nearest`.

    Returns:
        uint8 [N, size, size, C].

    Raises:
        RequestError: padding to less than an image's height or width.
    """
    if kind == "pad":
        return np.stack([_pad(image, size) for image in images])
    return np.stack([_resize(image, size, kind) for image in images])


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Returns the first images, few and small enough to be stored with every run.

    Args:
        images: uint8 [N, H, W, C].

    Returns:
        uint8 [M, h, w, C], every k-th pixel of the first M images: 8 MB at most, of an edge of 64 pixels at most.
    """
    step = -(-max(images.shape[1:3]) // _EDGE)
    small = images[:, ::step, ::step]
    return small[: _BYTES // small[0].size]


def _pad(image: np.ndarray, size: int) -> np.ndarray:
    height, width, channels = image.shape
    if max(height, width) > size:
        raise RequestError(
            "data.image_size",
            size,
            f"an image of {height}x{width} cannot be padded to less; use at least "
            f"{max(height, width)}, or data.resize = bilinear or nearest",
        )
    padded = np.zeros((size, size, channels), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    padded[top : top + height, left : left + width] = image
    return padded


def _resize(image: np.ndarray, size: int, kind: str) -> np.ndarray:
    from PIL import Image

    method = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}[kind]
    # Channel by channel: Pillow would take a 2nd or 4th channel for transparency and weigh by it.
    channels = [Image.fromarray(np.ascontiguousarray(c)) for c in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(channel.resize((size, size), method)) for channel in channels]
    return np.stack(resized, axis=-1)
