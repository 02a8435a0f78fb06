"""Folders of image files for each class: every mode that is decoded, sizes, the cache, and damage."""

import io
import struct
import subprocess
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnjax.data import load_dataset
from cnnjax.data.readers.detect import read_path
from cnnjax.data.readers.image_files import decode_image
from cnnjax.data.resize import resize_images
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 5, 3), np.uint8)
GRAY = RNG.integers(0, 256, (6, 5), np.uint8)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photos(root: Path, classes: dict[str, int], seed: int = 0, color: bool = True) -> dict[str, np.ndarray]:
    """Writes `classes` of so many images each; returns what was written by class."""
    rng = np.random.default_rng(seed)
    shape = (6, 5, 3) if color else (6, 5)
    written = {name: rng.integers(0, 256, (count, *shape), np.uint8) for name, count in classes.items()}
    for name, images in written.items():
        for index, image in enumerate(images):
            save(root / name / f"{index:02d}.png", image)
    return written


def test_a_folder_for_each_class_is_read_as_written(tmp_path):
    written = photos(tmp_path / "pets", {"dog": 4, "cat": 6})
    (tmp_path / "pets" / ".DS_Store").write_text("")
    (tmp_path / "pets" / "cat" / ".hidden.png").write_text("")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("")
    (tmp_path / "pets" / ".git").mkdir()
    source = read_path(str(tmp_path / "pets"), "pets")
    np.testing.assert_array_equal(source.train.images, np.concatenate([written["cat"], written["dog"]]))
    np.testing.assert_array_equal(source.train.labels, [0] * 6 + [1] * 4)
    assert source.classes == ("cat", "dog") and source.test is None
    assert source.train.images.dtype == np.uint8 and source.train.labels.dtype == np.int32
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / "pets"), test=0.2))
    assert (len(dataset.train), len(dataset.test), dataset.name, dataset.test_from) == (8, 2, "pets", "train")


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "2", "1"], ("1", "2", "10")),
        (["-1", "1.5", "01", "1"], ("-1", "01", "1", "1.5")),
        (["10", "2", "b"], ("10", "2", "b")),
        (["١", "10", "2"], ("10", "2", "١")),
    ],
)
def test_names_that_all_are_numbers_stand_as_numbers(tmp_path, names, ordered):
    written = photos(tmp_path / "a", dict.fromkeys(names, 2))
    source = read_path(str(tmp_path / "a"), "a")
    assert source.classes == ordered and source.train.labels.tolist() == sorted(list(range(len(names))) * 2)
    np.testing.assert_array_equal(source.train.images, np.concatenate([written[name] for name in ordered]))
    (tmp_path / "b").mkdir()
    for name in names:
        np.save(tmp_path / "b" / f"{name}.npy", written[name])
    assert read_path(str(tmp_path / "b"), "b").classes == ordered


def test_train_and_test_folders_are_splits(tmp_path):
    train = photos(tmp_path / "train", {"a": 3, "b": 2}, 1)
    test = photos(tmp_path / "test", {"b": 2}, 2)
    source = read_path(str(tmp_path), "photos")
    assert source.test is not None and source.classes == ("a", "b")
    np.testing.assert_array_equal(source.train.images, np.concatenate([train["a"], train["b"]]))
    np.testing.assert_array_equal(source.test.images, test["b"])
    np.testing.assert_array_equal(source.test.labels, [1, 1])


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path):
    root, below = tmp_path / "photos", ["train/a", "train/b", "test/a"]
    for folder in below:
        photos(root, {folder: 2})
        for name in ("x.HEIC", "y.HEIC", "z.txt", "LICENSE"):
            (root / folder / name).write_text("no image")
    save(root / "train" / "over.png", COLOR)
    (root / "labels.csv").write_text("a,b")
    for junk in ("__MACOSX/train/a/._0.png", "Thumbs.db", "train/desktop.ini", "train/a/.DS_Store", "@eaDir/b/c.png"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_text("")
    expected = (
        "left out, not read as images: 6 .HEIC, 3 .txt, 3 without suffix, 1 .csv",
        "left out, because they are in no class folder: 1 .png",
    )
    for _ in range(2):  # the second time from the cache
        dataset = load_dataset(DataConfig(validation=0, path=str(root)))
        assert (len(dataset.train), len(dataset.test), dataset.notes) == (4, 2, expected)
    for index in range(20):
        (root / "test" / "a" / f"q.{index:02d}").write_text("")
    several = "6 .HEIC, 3 .txt, 3 without suffix, 1 .00, 1 .01, 1 .02, 1 .03, 1 .04, 16 others"
    assert read_path(str(root), "a").notes[0].endswith(several)


def test_a_test_folder_of_images_without_classes_is_left_out_and_named(tmp_path):
    photos(tmp_path, {"train/a": 3, "train/b": 3, "test": 4})
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path), test=0.5))
    assert (len(dataset.train), len(dataset.test)) == (3, 3)
    assert dataset.notes == ("left out, because its images are in no class folder: test",)


def test_an_image_is_known_by_other_suffixes_and_without_one_by_its_content(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for name, kind in (("1.jfif", "jpeg"), ("2.JPE", "jpeg"), ("3", "png"), ("4.pnm", "ppm"), ("5", "webp")):
        Image.fromarray(COLOR).save(folder / name, kind)
    for name, content in (("6", b""), ("7", b"BM"), ("8", b"P6 a text"), ("9", b"%!PS-Adobe-3.0 EPSF-3.0\n")):
        (folder / name).write_bytes(content)
    source = read_path(str(tmp_path), "a")
    assert len(source.train) == 5 and source.notes == ("left out, not read as images: 4 without suffix",)
    (folder / "0").write_bytes(bomb())
    with pytest.raises(RequestError, match=r"a/0': the image cannot be decoded"):
        read_path(str(tmp_path), "a")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Valid", "TEST"), ("train", "validation", "")])
def test_the_splits_that_there_are_are_taken_as_they_are(tmp_path, names):
    written = {name: photos(tmp_path / name, {"2": 3, "10": 2}, seed) for seed, name in enumerate(names) if name}
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path), test=0.4))
    assert dataset.classes == ("2", "10") and dataset.validation_from == "given" and dataset.notes == ()
    for split, name in (("validation", names[1]), ("test", names[2]), ("train", names[0])):
        if name and (names[2] or split != "train"):
            expected = np.concatenate([written[name]["2"], written[name]["10"]])
            np.testing.assert_array_equal(dataset.splits[split].images, expected)
            assert dataset.splits[split].labels.tolist() == [0, 0, 0, 1, 1]
    assert (len(dataset.train), len(dataset.test)) == ((5, 5) if names[2] else (3, 2))


@pytest.mark.parametrize("below", ["", "train"])
@pytest.mark.parametrize(
    ("other", "kind"),
    [("cat.npy", ".npy file"), ("train-labels-idx1-ubyte", "IDX files"), ("data_batch_1.bin", "batches of CIFAR")],
)
def test_a_folder_of_two_kinds_is_refused_and_both_are_named(tmp_path, below, other, kind):
    photos(tmp_path / below, {"a": 2, "b": 2})
    (tmp_path / other).touch()
    with pytest.raises(RequestError, match=rf"^data\.path=.*{kind}.* and a folder of images for each class; use"):
        read_path(str(tmp_path), "a")


@pytest.mark.parametrize("name", ["a/01.png", "c"])
def test_a_link_to_nothing_is_refused_by_name(tmp_path, name):
    photos(tmp_path, {"a": 1, "b": 1})
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(RequestError, match=rf"^data\.path='.*/{name}': the link is broken"):
        read_path(str(tmp_path), "a")


@pytest.mark.parametrize("name", ["a/caf\udce9.png", "caf\udce9/0.png"])
def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path, name):
    photos(tmp_path, {"a": 1, "b": 1})
    save(tmp_path / "0.png", COLOR)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "0.png").rename(tmp_path / name)
    with pytest.raises(RequestError, match=r"^data\.path='.*/caf\\udce9.*its name is not UTF-8") as refused:
        read_path(str(tmp_path), "a")
    str(refused.value).encode()


def test_a_class_may_be_called_train(tmp_path):
    photos(tmp_path, {"train": 2, "car": 2})
    assert read_path(str(tmp_path), "vehicles").classes == ("car", "train")


def test_channels_are_one_only_if_all_images_are_gray(tmp_path):
    gray = photos(tmp_path, {"a": 2, "b": 2}, color=False)
    save(tmp_path / "b" / "02.png", np.repeat(GRAY[..., None], 3, axis=-1))  # gray, written as colors
    images = read_path(str(tmp_path), "a").train.images
    assert images.shape == (5, 6, 5, 1)
    np.testing.assert_array_equal(images[2:4, ..., 0], gray["b"])
    np.testing.assert_array_equal(images[4, ..., 0], GRAY)
    save(tmp_path / "b" / "03.png", COLOR)
    images = read_path(str(tmp_path), "a").train.images
    assert images.shape == (6, 6, 5, 3)
    np.testing.assert_array_equal(images[-1], COLOR)
    np.testing.assert_array_equal(images[4], np.repeat(GRAY[..., None], 3, axis=-1))


def palette(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    image.putpalette(np.stack([np.arange(256)[::-1]] * 3, axis=1).astype(np.uint8).tobytes())
    return image


def png16(values: np.ndarray, colors: int) -> bytes:
    """A PNG of 16 bits, from its specification: Pillow writes none of colors."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2 if colors == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_every_mode_is_brought_to_gray_or_colors(tmp_path):
    opaque = np.full((6, 5, 1), 255, np.uint8)
    wide = RNG.integers(0, 2**16, (6, 5, 3), np.uint16)
    files = {
        "color.png": (Image.fromarray(COLOR), COLOR),
        "color.bmp": (Image.fromarray(COLOR), COLOR),
        "color.PPM": (Image.fromarray(COLOR), COLOR),
        "color.webp": (Image.fromarray(COLOR), COLOR),
        "color.tiff": (Image.fromarray(COLOR), COLOR),
        "opaque.png": (Image.fromarray(np.concatenate([COLOR, opaque], -1)), COLOR),
        "opaque gray.png": (Image.fromarray(np.concatenate([GRAY[..., None], opaque], -1)), GRAY[..., None]),
        "gray.png": (Image.fromarray(GRAY), GRAY[..., None]),
        "palette.png": (palette(GRAY), 255 - GRAY[..., None]),
        "palette.gif": (palette(GRAY), 255 - GRAY[..., None]),
        "bits.png": (Image.fromarray(GRAY > 99), np.uint8(255) * (GRAY > 99)[..., None]),
    }
    for name, (image, expected) in files.items():
        image.save(tmp_path / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
        np.testing.assert_array_equal(decode_image(tmp_path / name).pixels, expected, name)
    for name, values in (("16 bits.png", wide[..., 0]), ("16 bits of color.png", wide)):
        (tmp_path / name).write_bytes(png16(values, 3 if values.ndim == 3 else 1))
        np.testing.assert_array_equal(decode_image(tmp_path / name).pixels, (values // 256).reshape(6, 5, -1), name)


def test_a_jpeg_is_near_what_was_written(tmp_path):
    smooth = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(decode_image(tmp_path / "a.jpg").pixels[..., 0].astype(int) - smooth).max() < 8
    Image.fromarray(np.stack([smooth] * 4, -1), "CMYK").save(tmp_path / "b.jpg", quality=95)
    assert decode_image(tmp_path / "b.jpg").pixels.shape[:2] == (32, 32)


def test_sizes_that_differ_need_one(tmp_path):
    save(tmp_path / "a" / "0.png", COLOR)
    save(tmp_path / "b" / "1.png", COLOR[:4])
    save(tmp_path / "b" / "2.png", COLOR[:, :2])
    with pytest.raises(RequestError, match=r"^data\.image_size=None.*0\.png is 6x5, .*1\.png 4x5; use a size"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path)))
    for resize in ("bilinear", "nearest", "pad"):
        images = read_path(str(tmp_path), "a", 8, resize).train.images
        np.testing.assert_array_equal(images, resize_images([COLOR, COLOR[:4], COLOR[:, :2]], 8, resize))
    with pytest.raises(RequestError, match=r"^data\.image_size=5.*6x5 cannot be padded"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path), image_size=5))


def test_splits_of_two_sizes_need_one(tmp_path):
    save(tmp_path / "train" / "a" / "0.png", COLOR)
    save(tmp_path / "test" / "a" / "0.png", COLOR[:4])
    with pytest.raises(RequestError, match=r"^data\.image_size=None"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path)))


def test_images_are_decoded_once_until_a_file_changes(tmp_path, monkeypatch):
    photos(tmp_path, {"a": 3, "b": 3})
    config = DataConfig(validation=0, path=str(tmp_path), test=0.5)
    first = load_dataset(config).describe()
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("decoded again"))
        assert load_dataset(config).describe() == first
    save(tmp_path / "b" / "01.png", COLOR)
    assert load_dataset(config).describe() != first
    (tmp_path / "b" / "01.png").unlink()
    assert sum(load_dataset(config).describe()["counts"].values()) == 5


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header promises 40,000 x 40,000 pixels."""
    content = bytearray(png16(np.zeros((4, 4), np.uint16), 1))
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def encoded(kind: str, image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "cannot be decoded"),
        (b"no image", "cannot be decoded"),
        (encoded("png", Image.fromarray(COLOR))[:-40], "cannot be decoded"),
        (encoded("jpeg", Image.fromarray(COLOR))[:-40], "cannot be decoded"),
        (encoded("tiff", Image.fromarray(GRAY.astype(np.int32))), "32 bits"),
        (encoded("tiff", Image.fromarray(GRAY.astype(np.float32))), "32 bits"),
        (bomb(), "decompression bomb"),
    ],
)
def test_an_image_that_cannot_be_decoded_is_one_line_that_names_it(tmp_path, content, named):
    photos(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "01.png").write_bytes(content)
    with pytest.raises(RequestError) as raised:
        load_dataset(DataConfig(validation=0, path=str(tmp_path)))
    message = str(raised.value)
    assert message.startswith("data.path=") and "b/01.png" in message and named in message and "\n" not in message


def test_between_pillows_warning_and_its_error_a_bomb_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    save(tmp_path / "a.png", COLOR)
    with pytest.raises(RequestError, match="decompression bomb"):
        decode_image(tmp_path / "a.png")


def test_postscript_is_not_run_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("ran Ghostscript"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(RequestError, match=r"a\.png"):
        decode_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        ([], "the format is not supported"),
        (["a", "b"], "a': the class folder has no image; use files named .bmp"),
        (["a/0.png", "b"], "b': the class folder has no image"),
        (["a/0.png", "b/c/0.png"], "b/c': the folder is within a class folder"),
        (["train/0.png", "test/0.png"], "train': the folder has no class folder"),
        (["train/a/0.png", "test"], "test': the folder has no class folder"),
        (["test/a/0.png"], "the folder has the folders test; use"),
        (["train/a/0.png", "extra/a/0.png", "test/a/0.png"], "the folder has the folders extra, test, train; use"),
        (["train/a/0.png", "val/a/0.png", "valid/a/0.png"], "val in the same folder is the validation split, too"),
        (["train/a/0.png", "val/b/0.png"], "val/b': the class is missing in"),
        (["train/a/0.png", "test/b/0.png"], "test/b': the class is missing in"),
        (["train/a/0.png", "test/a"], "test/a': the class folder has no image"),
        (["a/0.png", "b/c.HEIC"], "b': the class folder has no image but 1 .HEIC; use files named .bmp"),
        (["a/c.HEIC"], "a': the class folder has no image but 1 .HEIC"),
    ],
)
def test_folders_that_do_not_fit_are_one_line(tmp_path, folders, named):
    for path in folders:
        if path.endswith(".png"):
            save(tmp_path / path, COLOR)
        elif path.endswith(".HEIC"):
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).touch()
        else:
            (tmp_path / path).mkdir(parents=True)
    with pytest.raises(RequestError) as raised:
        load_dataset(DataConfig(validation=0, path=str(tmp_path)))
    message = str(raised.value)
    assert message.startswith("data.path=") and named in message and "\n" not in message


@given(
    kind=st.sampled_from(["bmp", "gif", "jpeg", "png", "ppm", "tiff", "webp"]),
    cut=st.integers(0, 400),
    patch=st.binary(max_size=8),
    at=st.integers(0, 200),
)
def test_no_damage_to_an_image_escapes_as_another_error(tmp_path_factory, kind, cut, patch, at):
    content = bytearray(encoded(kind, Image.fromarray(COLOR)))
    content[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("image") / f"a.{kind}"
    path.write_bytes(content if cut > 200 else content[:cut])
    try:
        assert decode_image(path).pixels.ndim == 3
    except RequestError as error:
        assert "\n" not in str(error)


def test_names_in_two_unicode_forms_are_one(tmp_path):
    """As of folders that macOS wrote, or of a class that is typed: a letter and its accent, or one letter for both."""
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    photos(tmp_path / "pets/train", {nfd: 4, "tea": 3})
    written = photos(tmp_path / "pets/test", {nfc: 2, "tea": 1}, seed=1)
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / "pets")))
    assert dataset.classes == (nfc, "tea") and dataset.test.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(dataset.test.images[:2], written[nfc])
    for name in (nfc, nfd):
        assert load_dataset(DataConfig(validation=0, path=str(tmp_path / "pets"), classes=("tea", name))).classes == (
            "tea",
            nfc,
        )
    photos(tmp_path / "twice", {nfc: 4, nfd: 4})
    with pytest.raises(RequestError, match="two classes are named 'café' in two Unicode forms"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path / "twice")))
