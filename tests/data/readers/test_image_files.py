"""What is trained is what a viewer shows: orientation, transparency, depth, color profiles, frames."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from cnnjax.data import load_dataset
from cnnjax.data.readers.image_files import count_notes, decode_image
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError
from tests.data.readers.test_image_folder import COLOR, GRAY, palette, png16

SIDE = np.full((6, 5, 1), 255, np.uint8)
SIDE[:, :2] = 100  # how opaque the left of an image is
SHAPE = np.zeros((6, 5), np.uint8)
SHAPE[1:4, 2:4] = 255
# The image that each orientation turns into the one that was written, by numpy.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("kind", "pixels"), [("png", COLOR), ("tiff", GRAY), ("webp", COLOR), ("png", GRAY)])
def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path, orientation, kind, pixels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a.{kind}", exif=exif, **lossless)
    found = decode_image(tmp_path / f"a.{kind}")
    np.testing.assert_array_equal(found.pixels, np.atleast_3d(TURNS[orientation](pixels)))
    assert found.notes == ()


def test_a_photograph_is_turned_and_damaged_exif_does_not_matter(tmp_path):
    smooth = np.add.outer(np.arange(32) * 6, np.arange(16)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert np.abs(decode_image(tmp_path / "a.jpg").pixels[..., 0].astype(int) - smooth[::-1, ::-1]).max() < 8
    Image.fromarray(smooth).save(tmp_path / "b.jpg", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.abs(decode_image(tmp_path / "b.jpg").pixels[..., 0].astype(int) - smooth).max() < 8


def on(ground: int, pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = np.atleast_3d(alpha) / 255
    return np.rint(np.atleast_3d(pixels) * share + ground * (1 - share))


@pytest.mark.parametrize(("pixels", "name"), [(COLOR, "a.png"), (GRAY, "a.png"), (COLOR, "a.tiff")])
def test_what_is_transparent_is_put_on_white(tmp_path, pixels, name):
    Image.fromarray(np.concatenate([np.atleast_3d(pixels), SIDE], -1)).save(tmp_path / name)
    found = decode_image(tmp_path / name)
    assert np.abs(found.pixels - on(255, pixels, SIDE)).max() <= 1
    np.testing.assert_array_equal(found.pixels[:, 2:], np.atleast_3d(pixels)[:, 2:])
    assert found.notes == ("transparency, put on white",)


@pytest.mark.parametrize(("level", "ground"), [(0, 255), (100, 255), (255, 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_shape_in_alpha_alone_can_be_seen(tmp_path, level, ground, channels):
    pixels = np.full((6, 5, channels), level, np.uint8)
    Image.fromarray(np.concatenate([pixels, SHAPE[..., None]], -1)).save(tmp_path / "a.png")
    found = decode_image(tmp_path / "a.png")
    np.testing.assert_array_equal(found.pixels, np.where(SHAPE == 255, level, ground)[..., None])
    assert found.notes == ("transparency, put on white" if ground else "white on transparency, put on black",)


def test_a_transparent_level_of_a_palette_or_of_gray(tmp_path):
    shown = np.where(SHAPE == 255, GRAY, 7)
    palette(shown).save(tmp_path / "a.gif", transparency=7)
    palette(shown).save(tmp_path / "a.png", transparency=7)
    for name in ("a.gif", "a.png"):
        expected = np.where(shown == 7, 255, 255 - shown)[..., None]
        np.testing.assert_array_equal(decode_image(tmp_path / name).pixels, expected, name)
    Image.fromarray(shown).save(tmp_path / "b.png", transparency=7)
    np.testing.assert_array_equal(decode_image(tmp_path / "b.png").pixels, np.where(shown == 7, 255, shown)[..., None])
    alphas = bytes(255 - level for level in range(256))  # each level of the palette with an alpha of its own
    palette(GRAY).save(tmp_path / "c.png", transparency=alphas)
    assert np.abs(decode_image(tmp_path / "c.png").pixels - on(255, 255 - GRAY, 255 - GRAY)).max() <= 1


def tiff16(values: np.ndarray, photometric: int) -> bytes:
    """A TIFF of 16 bits, from its specification: Pillow writes none in which white is zero."""
    height, width = values.shape
    entries = [(256, width), (257, height), (258, 16), (259, 1), (262, photometric), (273, 122), (277, 1)]
    entries += [(278, height), (279, values.size * 2)]
    table = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + values.astype("<u2").tobytes()


def test_sixteen_bits_keep_their_range(tmp_path):
    deep = np.linspace(0, 65535, 30).astype(np.uint16).reshape(6, 5)
    Image.fromarray(deep).save(tmp_path / "a.tiff")
    (tmp_path / "a.png").write_bytes(png16(deep, 1))
    (tmp_path / "a.pgm").write_bytes(b"P5 5 6 65535\n" + deep.astype(">u2").tobytes())
    (tmp_path / "zero is black.tiff").write_bytes(tiff16(deep, 1))
    (tmp_path / "zero is white.tiff").write_bytes(tiff16(65535 - deep, 0))
    for path in tmp_path.iterdir():
        found = decode_image(path)
        np.testing.assert_array_equal(found.pixels[..., 0], deep // 256, path.name)
        assert found.notes == ()
    (tmp_path / "12 bits.pgm").write_bytes(b"P5 5 6 4095\n" + (deep // 16).astype(">u2").tobytes())
    np.testing.assert_array_equal(decode_image(tmp_path / "12 bits.pgm").pixels[..., 0], deep // 256)
    (tmp_path / "dark.png").write_bytes(png16(deep // 16, 1))
    found = decode_image(tmp_path / "dark.png")
    assert found.pixels.max() == 15 and "nearly black" in found.notes[0]


def test_floating_point_of_zero_to_one_is_taken_and_else_refused(tmp_path):
    values = np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tiff").pixels[..., 0], np.rint(values * 255))
    for wrong in (values * 255, values - 1, values * np.nan):
        Image.fromarray(wrong).save(tmp_path / "b.tiff")
        with pytest.raises(RequestError, match=r"32 bits, of .*; use 8 or 16 bits, or floating point of 0\.\.1"):
            decode_image(tmp_path / "b.tiff")


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(space: bytes, curve: float) -> bytes:
    """An ICC profile, from its specification: gray, or RGB whose red and green primaries are those of sRGB, swapped."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642) + fixed(1) + fixed(0.8249)}
    tone = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(curve * 256), 0)
    if space == b"GRAY":
        tags[b"kTRC"] = tone
    else:
        primaries = {b"g": (0.4360, 0.2225, 0.0139), b"r": (0.3851, 0.7169, 0.0971), b"b": (0.1431, 0.0606, 0.7141)}
        for name, values in primaries.items():
            tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, values))
            tags[name + b"TRC"] = tone
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(4 + 4 + 2 + 1 + 67)
    at, table, content = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    size = at + len(content)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02100000, b"mntr", space, b"XYZ ", b"acsp")
    header += bytes(68 - len(header)) + fixed(0.9642) + fixed(1) + fixed(0.8249)
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + content


def srgb(levels: np.ndarray, curve: float) -> np.ndarray:
    """What levels of a tone curve are in sRGB, from its definition."""
    light = (levels / 255) ** curve
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def test_colors_are_converted_by_their_profile(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "a.png", icc_profile=profile(b"RGB ", 1.0))
    found = decode_image(tmp_path / "a.png")
    assert np.abs(found.pixels - srgb(COLOR, 1.0)[..., [1, 0, 2]]).max() <= 2 and found.notes == ()
    Image.fromarray(GRAY).save(tmp_path / "b.png", icc_profile=profile(b"GRAY", 1.8))
    found = decode_image(tmp_path / "b.png")
    assert np.abs(found.pixels[..., 0] - srgb(GRAY, 1.8)).max() <= 2 and found.notes == ()
    Image.fromarray(np.concatenate([COLOR, SIDE], -1)).save(tmp_path / "c.png", icc_profile=profile(b"RGB ", 1.0))
    expected = on(255, srgb(COLOR, 1.0)[..., [1, 0, 2]], SIDE)
    assert np.abs(decode_image(tmp_path / "c.png").pixels - expected).max() <= 2


def test_a_profile_of_srgb_changes_no_pixel_and_one_that_does_not_fit_is_said(tmp_path):
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOR).save(tmp_path / "a.png", icc_profile=same)
    found = decode_image(tmp_path / "a.png")
    np.testing.assert_array_equal(found.pixels, COLOR)
    assert found.notes == ()
    for wrong in (profile(b"GRAY", 1.0), b"no profile"):
        Image.fromarray(COLOR).save(tmp_path / "b.png", icc_profile=wrong)
        found = decode_image(tmp_path / "b.png")
        np.testing.assert_array_equal(found.pixels, COLOR)
        assert found.notes == ("a color profile that cannot be applied; colors are taken as sRGB",)


def test_cmyk_and_lab_are_colors(tmp_path):
    inks = np.concatenate([COLOR, np.zeros_like(SIDE)], -1)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tiff")
    found = decode_image(tmp_path / "a.tiff")
    np.testing.assert_array_equal(found.pixels, 255 - COLOR)
    assert "CMYK" in found.notes[0]
    Image.new("LAB", (2, 2), (138, 81 + 128, 70 + 128)).save(tmp_path / "b.tiff")  # the red of sRGB, but for rounding
    assert np.abs(decode_image(tmp_path / "b.tiff").pixels.astype(int) - [255, 0, 0]).max() <= 6


def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path):
    frames = [palette(GRAY), palette(GRAY[::-1])]
    for name in ("a.gif", "a.png", "a.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        found = decode_image(tmp_path / name)
        np.testing.assert_array_equal(found.pixels[..., 0], 255 - GRAY, name)
        assert found.notes == ("several frames or pages, of which the first is taken",)


def test_remarks_are_counted_and_kept_with_the_decoded_images(tmp_path):
    assert count_notes(["a", "b", "a"]) == ("a: 2 images", "b: 1 image")
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        for index in range(5):
            pixels = np.concatenate([COLOR, SIDE if index < 2 else SIDE * 0 + 255], -1)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    config = DataConfig(validation=0, path=str(tmp_path))
    for _ in range(2):  # the second time from the cache
        dataset = load_dataset(config)
        assert dataset.notes == ("transparency, put on white: 4 images",)
        assert dataset.describe()["notes"] == list(dataset.notes)
