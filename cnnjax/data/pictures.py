"""Image files: found in a folder, and decoded by Pillow."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.data.checks import PathError, entries
from cnnjax.progress import tracked
from cnnjax.types import first_line

if TYPE_CHECKING:
    from PIL import Image

# Whatever a file is called, nothing but these is decoded: Pillow would run other programs for some.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SUFFIXES = ", ".join(_SUFFIXES)


def is_picture(path: Path) -> bool:
    """Whether a name is that of an image file, and not hidden."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def find_pictures(folder: Path) -> list[Path]:
    """Returns the image files of a folder by name, without hidden ones; refuses as `entries`."""
    return [path for path in entries(folder) if is_picture(path) and path.is_file()]


def decode_pictures(paths: Sequence[Path], description: str) -> Iterator[np.ndarray]:
    """Yields each decoded image, as `decode_picture`; a terminal shows how far it is."""
    return map(decode_picture, tracked(paths, description))


def decode_picture(path: Path) -> np.ndarray:
    """Decodes an image file.

    Transparency is dropped; of an animation the first frame is taken; of 16 bits the upper eight.

    Returns:
        uint8 [H, W, 1] if every pixel is grey, otherwise [H, W, 3].

    Raises:
        RequestError: it is no image of a known format, is damaged, has more pixels than Pillow takes
            for harmless, or pixels of 32 bits.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags and palettes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return _pixels(image)
    except Exception as error:  # a damaged image can make Pillow raise anything
        raise PathError(path, f"it cannot be decoded: {first_line(error)[:160]}") from error


def _pixels(image: "Image.Image") -> np.ndarray:
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; allowed: 8 or 16")
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
    if image.mode in ("1", "L", "LA"):
        return np.array(image.convert("L"))[..., None]
    pixels = np.array(image.convert("RGB"))
    grey = (pixels == pixels[..., :1]).all()
    return pixels[..., :1].copy() if grey else pixels
