"""Finds image files, and decodes them by Pillow to the pixels that a viewer shows."""

import collections
import contextlib
import functools
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnjax.data.readers.checks import PathError, list_entries
from cnnjax.utils.text import counted, first_line

if TYPE_CHECKING:
    from PIL import Image, ImageCms

# The decoded formats, whatever the suffix. For some others Pillow would run external programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
SUFFIXES = f"{', '.join(_SUFFIXES)}, or of these formats without a suffix"

DECODING = 2  # version of the decoder, in the cache's keys

_FRAMES = "several frames or pages, of which the first is taken"
_ON_WHITE = "transparency, put on white"
_ON_BLACK = "white on transparency, put on black"
_NO_PROFILE = "a color profile that cannot be applied; colors are taken as sRGB"
_CMYK = "CMYK without a color profile, converted as if inks were ideal"
_DARK = "16 bits, of which the upper four are never used: nearly black, as in a viewer"


class DecodedImage(NamedTuple):
    """A decoded image: uint8 [H, W, 1] if every pixel is gray, otherwise [H, W, 3], and notes on its conversion."""

    pixels: np.ndarray
    notes: tuple[str, ...]


def is_image_file(path: Path) -> bool:
    """Whether a file is a supported image, by its suffix, or by its content if it has none. Hidden files are not."""
    return not path.name.startswith(".") and path.is_file() and _is_image(path)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES if file.suffix else _begins_as_image(file)


def _begins_as_image(path: Path) -> bool:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=_FORMATS).close()
    except Image.DecompressionBombError:
        return True  # decoding raises the error
    except Exception:  # Pillow raises many kinds
        return False
    return True


def split_image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns the image files of a folder and its other files; sorts and raises as `list_entries`."""
    images, others, _ = split_entries(folder)
    return images, others


def split_entries(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Returns the image files, the other files and the folders in a folder; sorts and raises as `list_entries`."""
    images: list[Path] = []
    others: list[Path] = []
    folders: list[Path] = []
    for entry in list_entries(folder):
        path = folder / entry.name
        if entry.is_dir():
            folders.append(path)
        else:
            is_image = entry.is_file() and (entry.name.lower().endswith(_SUFFIXES) or _is_image(path))
            (images if is_image else others).append(path)
    return images, others, folders


def count_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Returns each note once, with the number of its images."""
    return tuple(f"{note}: {counted(count, 'image')}" for note, count in collections.Counter(notes).items())


def decode_image(path: Path) -> DecodedImage:
    """Decodes an image file to the pixels that a viewer shows.

    The EXIF orientation is applied. Colors are converted to sRGB by the color profile. Transparency is composited on
    white, or on black if the image would vanish on white. The first frame is taken, and the upper 8 of 16 bits.
    Floating point of 0..1 is scaled to 0..255.

    Raises:
        RequestError: the format is unknown, the file is damaged, Pillow takes its size for a decompression bomb, or
            pixels of 32 bits are not floating point of 0..1.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags and palettes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # An open file, because Pillow maps an uncompressed TIFF of a path in its shape after the rotation.
            with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
                return _decode(image)
    except Exception as error:  # Pillow raises many kinds
        raise PathError(path, f"the image cannot be decoded: {first_line(error)[:160]}") from error


def _decode(image: "Image.Image") -> DecodedImage:
    from PIL import ImageOps

    # Further frames of a photograph (MPO) are previews.
    notes = [_FRAMES] if getattr(image, "is_animated", False) and image.format != "MPO" else []
    image.load()
    with contextlib.suppress(Exception):  # damaged EXIF; viewers show the image nevertheless
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        return DecodedImage(_scale_to_8_bits(image, notes), tuple(notes))
    alpha = _alpha(image)
    opaque = _to_srgb(image, notes)
    pixels = np.array(opaque if alpha is None else _composite(opaque, alpha, notes))
    if pixels.ndim == 2:
        return DecodedImage(pixels[..., None], tuple(notes))
    gray = (pixels == pixels[..., :1]).all()
    return DecodedImage(pixels[..., :1].copy() if gray else pixels, tuple(notes))


def _scale_to_8_bits(image: "Image.Image", notes: list[str]) -> np.ndarray:
    """Scales gray levels of more than 8 bits, by the range of their type, to uint8 [H, W, 1]."""
    levels, tags = np.array(image), getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode == "F":
        if not (levels.min() >= 0 and levels.max() <= 1):
            found = f"pixels have 32 bits, of {levels.min():g}..{levels.max():g}"
            raise ValueError(f"{found}; use 8 or 16 bits, or floating point of 0..1")
        return np.rint(255 * levels).astype(np.uint8)[..., None]
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("pixels have 32 bits; use 8 or 16 bits, or floating point of 0..1")
    bits = tags.get(258, (16,))[0]
    if tags.get(262) == 0:  # 0 is white; Pillow inverts 8 bits only
        levels = 2**bits - 1 - levels
    if 0 < levels.max() < 2 ** (bits - 4):
        notes.append(_DARK)
    if "transparency" in image.info:
        levels[levels == image.info["transparency"]] = 2**bits - 1
        notes.append(_ON_WHITE)
    if "icc_profile" in image.info:
        notes.append(_NO_PROFILE)
    return (levels >> (bits - 8)).astype(np.uint8)[..., None]


def _alpha(image: "Image.Image") -> "Image.Image | None":
    """Returns the alpha channel, or None if every pixel is opaque."""
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha


def _to_srgb(image: "Image.Image", notes: list[str]) -> "Image.Image":
    """Returns the colors without alpha, as mode L if the image is gray, otherwise as RGB."""
    from PIL import ImageCms

    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    opaque = image if image.mode in ("CMYK", "LAB") else image.convert(mode)
    profile = image.info.get("icc_profile")
    if profile or image.mode == "LAB":
        try:
            if transform := _transform(None if image.mode == "LAB" else profile, opaque.mode):
                return transform.apply(opaque).convert(mode)
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append(_NO_PROFILE)
    elif image.mode == "CMYK":
        notes.append(_CMYK)
    return opaque.convert(mode)


@functools.lru_cache(16)
def _transform(profile: bytes | None, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """Returns the transform from a profile (None: CIE L*a*b*) to sRGB, or None if the profile is sRGB."""
    from PIL import ImageCms

    source = ImageCms.getOpenProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    if "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def _composite(opaque: "Image.Image", alpha: "Image.Image", notes: list[str]) -> "Image.Image":
    """Composites on white, or on black if a white shape in the alpha channel would vanish on white."""
    from PIL import Image

    on_white = Image.composite(opaque, Image.new(opaque.mode, opaque.size, "white"), alpha)
    vanishes = not np.ptp(np.asarray(on_white), axis=(0, 1)).any() and np.ptp(np.asarray(alpha))
    notes.append(_ON_BLACK if vanishes else _ON_WHITE)
    return Image.composite(opaque, Image.new(opaque.mode, opaque.size, "black"), alpha) if vanishes else on_white
