"""Image files: found in a folder, and decoded by Pillow to what a viewer shows."""

import collections
import contextlib
import functools
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnjax.data.readers.checks import PathError, entries
from cnnjax.utils.progress import tracked
from cnnjax.utils.text import counted, first_line

if TYPE_CHECKING:
    from PIL import Image, ImageCms

# Whatever a file is called, nothing but these is decoded: Pillow would run other programs for some.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
SUFFIXES = f"{', '.join(_SUFFIXES)}, or of these formats without a suffix"

DECODING = 2  # a part of the key of decoded images in the cache; another number for another decoding

_FRAMES = "several frames or pages, of which the first is taken"
_ON_WHITE = "transparency, put on white"
_ON_BLACK = "white on transparency, put on black"
_NO_PROFILE = "a color profile that cannot be applied; colors are taken as sRGB"
_CMYK = "CMYK without a color profile, converted as if inks were ideal"
_DARK = "16 bits, of which the upper four are never used: nearly black, as in a viewer"


class Picture(NamedTuple):
    """A decoded image, uint8 [H, W, 1] if every pixel is gray, otherwise [H, W, 3], and what is to be said of it."""

    pixels: np.ndarray
    remarks: tuple[str, ...]


def is_picture(path: Path) -> bool:
    """Whether a file is an image that is read, by its suffix, or by its content if it has none; not if it is hidden."""
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix.lower() in _SUFFIXES if path.suffix else _begins_as_image(path)


def _begins_as_image(path: Path) -> bool:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=_FORMATS).close()
    except Image.DecompressionBombError:
        return True  # which is refused when it is decoded
    except Exception:  # whatever the bytes make Pillow raise
        return False
    return True


def find_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns the image files of a folder and its other files, by name, without hidden ones; refuses as `entries`."""
    found: tuple[list[Path], list[Path]] = [], []
    for path in entries(folder):
        if not path.is_dir():
            found[not is_picture(path)].append(path)
    return found


def decode_pictures(paths: Sequence[Path], description: str) -> Iterator[Picture]:
    """Yields each decoded image, as `decode_picture`, and shows how far it is."""
    return map(decode_picture, tracked(paths, description))


def count_remarks(remarks: Iterable[str]) -> tuple[str, ...]:
    """Returns the remarks on images, each once and with the number of its images."""
    return tuple(f"{remark}: {counted(count, 'image')}" for remark, count in collections.Counter(remarks).items())


def decode_picture(path: Path) -> Picture:
    """Decodes an image file to what a viewer shows.

    The image is turned as its EXIF orientation says, its colors are converted to sRGB by its color profile, and what is
    transparent is put on white, or on black where nothing could be seen on white. Of several frames the first is taken;
    of 16 bits the upper eight; floating point of 0 to 1 becomes 0 to 255.

    Raises:
        RequestError: it is no image of a known format, is damaged, has more pixels than Pillow takes
            for harmless, or pixels of 32 bits that are not floating point of 0 to 1.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags and palettes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Of a path Pillow maps an uncompressed TIFF in the shape that it has after it is turned.
            with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
                return _decode(image)
    except Exception as error:  # a damaged image can make Pillow raise anything
        raise PathError(path, f"it cannot be decoded: {first_line(error)[:160]}") from error


def _decode(image: "Image.Image") -> Picture:
    from PIL import ImageOps

    # A photograph's further frames (MPO) are previews of it.
    remarks = [_FRAMES] if getattr(image, "is_animated", False) and image.format != "MPO" else []
    image.load()
    with contextlib.suppress(Exception):  # of damaged EXIF; a viewer shows the image nevertheless
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        return Picture(_deep_pixels(image, remarks), tuple(remarks))
    alpha = _alpha(image)
    flat = _to_srgb(image, remarks)
    pixels = np.array(flat if alpha is None else _put_on_ground(flat, alpha, remarks))
    if pixels.ndim == 2:
        return Picture(pixels[..., None], tuple(remarks))
    gray = (pixels == pixels[..., :1]).all()
    return Picture(pixels[..., :1].copy() if gray else pixels, tuple(remarks))


def _deep_pixels(image: "Image.Image", remarks: list[str]) -> np.ndarray:
    """Brings gray levels of more than 8 bits to 8, by the range of their type; returns uint8 [H, W, 1]."""
    levels, tags = np.array(image), getattr(image, "tag_v2", {})  # a TIFF's
    if image.mode == "F":
        if not (levels.min() >= 0 and levels.max() <= 1):
            found = f"its pixels have 32 bits, of {levels.min():g}..{levels.max():g}"
            raise ValueError(f"{found}; use 8 or 16 bits, or floating point of 0..1")
        return np.rint(255 * levels).astype(np.uint8)[..., None]
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its pixels have 32 bits; use 8 or 16 bits, or floating point of 0..1")
    bits = tags.get(258, (16,))[0]
    if tags.get(262) == 0:  # white is zero, which Pillow sees to for 8 bits
        levels = 2**bits - 1 - levels
    if 0 < levels.max() < 2 ** (bits - 4):
        remarks.append(_DARK)
    if "transparency" in image.info:
        levels[levels == image.info["transparency"]] = 2**bits - 1
        remarks.append(_ON_WHITE)
    if "icc_profile" in image.info:
        remarks.append(_NO_PROFILE)
    return (levels >> (bits - 8)).astype(np.uint8)[..., None]


def _alpha(image: "Image.Image") -> "Image.Image | None":
    """Returns how opaque each pixel is, or None if all are."""
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha


def _to_srgb(image: "Image.Image", remarks: list[str]) -> "Image.Image":
    """Returns the colors without alpha, as L if they are levels of gray, otherwise as RGB."""
    from PIL import ImageCms

    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    flat = image if image.mode in ("CMYK", "LAB") else image.convert(mode)
    profile = image.info.get("icc_profile")
    if profile or image.mode == "LAB":
        try:
            if transform := _transform(None if image.mode == "LAB" else profile, flat.mode):
                return transform.apply(flat).convert(mode)
        except (ImageCms.PyCMSError, OSError, ValueError):
            remarks.append(_NO_PROFILE)
    elif image.mode == "CMYK":
        remarks.append(_CMYK)
    return flat.convert(mode)


@functools.lru_cache(16)
def _transform(profile: bytes | None, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """Returns what brings colors of a profile (None: CIE L*a*b*) to sRGB; None if they are sRGB."""
    from PIL import ImageCms

    source = ImageCms.getOpenProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    if "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def _put_on_ground(flat: "Image.Image", alpha: "Image.Image", remarks: list[str]) -> "Image.Image":
    """Composites on white; on black where white would hide a shape that lies in alpha alone."""
    from PIL import Image

    shown = Image.composite(flat, Image.new(flat.mode, flat.size, "white"), alpha)
    hidden = not np.ptp(np.asarray(shown), axis=(0, 1)).any() and np.ptp(np.asarray(alpha))
    remarks.append(_ON_BLACK if hidden else _ON_WHITE)
    return Image.composite(flat, Image.new(flat.mode, flat.size, "black"), alpha) if hidden else shown
