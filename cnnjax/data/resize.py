"""Resizes images by Pillow, or pads them with zeros."""

from collections.abc import Iterable

import numpy as np

from cnnjax.utils.errors import RequestError

_MAX_SIDE = 64  # pixels of a thumbnail
_MAX_BYTES = 8_000_000  # of all thumbnails, before compression


def resize_images(images: Iterable[np.ndarray], size: int, kind: str) -> np.ndarray:
    """Resizes images to squares.

    Args:
        images: uint8 [N, H, W, C], or uint8 [H, W, C] each, whose sizes may differ.
        size: height and width of the result.
        kind: `pad` (centered on zeros, an odd row below, an odd column right), `bilinear` or `nearest`.

    Returns:
        uint8 [N, size, size, C].

    Raises:
        RequestError: an image is too large to be padded.
    """
    if kind == "pad":
        return np.stack([_pad(image, size) for image in images])
    return np.stack([_resize(image, size, kind) for image in images])


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Returns every k-th pixel of the first M of images uint8 [N, H, W, C]: at most 64 pixels a side, and 8 MB."""
    step = -(-max(images.shape[1:3]) // _MAX_SIDE)
    small = images[:, ::step, ::step]
    return small[: _MAX_BYTES // small[0].size]


def _pad(image: np.ndarray, size: int) -> np.ndarray:
    height, width, channels = image.shape
    if max(height, width) > size:
        advice = f"use at least {max(height, width)}, or data.resize = bilinear or nearest"
        raise RequestError("data.image_size", size, f"an image of {height}x{width} cannot be padded to less; {advice}")
    padded = np.zeros((size, size, channels), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    padded[top : top + height, left : left + width] = image
    return padded


def _resize(image: np.ndarray, size: int, kind: str) -> np.ndarray:
    from PIL import Image

    method = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}[kind]
    # By channel: Pillow would take a 2nd or 4th channel for transparency and premultiply by it.
    channels = [Image.fromarray(np.ascontiguousarray(c)) for c in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(channel.resize((size, size), method)) for channel in channels]
    return np.stack(resized, axis=-1)
