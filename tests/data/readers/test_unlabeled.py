"""Images to be predicted: every kind that is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.data.readers.unlabeled import read_unlabeled
from cnnjax.utils.errors import RequestError
from tests.data.readers.test_csv import write_rows

GRAY = np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 3), np.uint8)


def test_rows_of_a_csv_file(tmp_path):
    ids, images, *_ = read_unlabeled(str(write_rows(tmp_path / "a.csv.gz", GRAY, {"ID": [7, 5, 6, 4]})))
    assert ids == ["7", "5", "6", "4"]
    np.testing.assert_array_equal(images, GRAY[..., None])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(GRAY, GRAY[..., None]), (GRAY.reshape(4, 9), GRAY[..., None]), (COLOR, COLOR)],
)
def test_arrays(tmp_path, stored, expected):
    np.save(tmp_path / "a.npy", stored)
    ids, images, *_ = read_unlabeled(str(tmp_path / "a.npy"))
    assert ids == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize(("write", "name"), [(np.save, "a.npy"), (np.savez, "a.npz")])
def test_capitals_in_a_suffix_are_read_alike(tmp_path, write, name):
    write(tmp_path / name, **{"arr" if name == "a.npy" else "images": GRAY})
    (tmp_path / name).rename(tmp_path / name.upper())
    np.testing.assert_array_equal(read_unlabeled(str(tmp_path / name.upper()))[1], GRAY[..., None])


def test_labels_beside_an_array_are_left_alone(tmp_path):
    np.savez(tmp_path / "a.npz", images=GRAY.reshape(4, 9), labels=np.array([{}], object))
    ids, images, *_ = read_unlabeled(str(tmp_path / "a.npz"))
    assert ids == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(images, GRAY[..., None])


def test_a_folder_of_images_of_any_sizes(tmp_path):
    Image.fromarray(COLOR[0]).save(tmp_path / "b.png")
    Image.fromarray(GRAY[0]).save(tmp_path / "a.png")
    (tmp_path / ".hidden.png").write_text("")
    (tmp_path / "notes.txt").write_text("")
    ids, images, _, notes = read_unlabeled(str(tmp_path))
    assert ids == ["a.png", "b.png"] and notes == ("left out, not read as images: 1 .txt",)
    np.testing.assert_array_equal(images[0], GRAY[0][..., None])
    np.testing.assert_array_equal(images[1], COLOR[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_floating_point_of_either_range_is_brought_to_bytes(tmp_path, dtype, kind):
    for scale in (1, 255):
        stored = (GRAY / 255 * scale).astype(dtype)
        np.save(tmp_path / "a.npy", stored)
        np.savez(tmp_path / "a.npz", images=stored)
        images = read_unlabeled(str(tmp_path / f"a.{kind}")).images
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, GRAY[..., None])
    for black in (np.zeros_like(GRAY, dtype), np.zeros_like(GRAY)):
        np.save(tmp_path / "a.npy", black)
        assert not read_unlabeled(str(tmp_path / "a.npy")).images.any()
    np.save(tmp_path / "a.npy", GRAY.astype(np.int64))
    np.testing.assert_array_equal(read_unlabeled(str(tmp_path / "a.npy")).images, GRAY[..., None])


@pytest.mark.parametrize("name", ["a.png", "a.jfif", "a.JPE", "a"])
def test_one_image(tmp_path, name):
    smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    Image.fromarray(smooth).save(tmp_path / name, "png" if name == "a.png" else "jpeg", quality=95)
    ids, (image,), classes, notes = read_unlabeled(str(tmp_path / name))
    assert (ids, classes, notes) == ([name], None, ())
    assert image.shape == (16, 16, 1) and np.abs(image[..., 0].astype(int) - smooth).max() < 8


def test_a_folder_for_each_class(tmp_path):
    for name in ("dog/0.png", "dog/1.png", "cat/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(GRAY[0]).save(tmp_path / name)
    for junk in ("__MACOSX/dog/0.png", "cat/Thumbs.db", "cat/.DS_Store"):
        (tmp_path / junk).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / junk).touch()
    (tmp_path / "cat/1.HEIC").touch()
    ids, images, classes, notes = read_unlabeled(str(tmp_path))
    assert (ids, classes) == (["cat/0.png", "dog/0.png", "dog/1.png"], ["cat", "dog", "dog"]) and len(images) == 3
    assert notes == ("left out, not read as images: 1 .HEIC",)
    Image.fromarray(GRAY[0]).save(tmp_path / "z.png")
    ids, _, classes, notes = read_unlabeled(str(tmp_path))
    assert (ids, classes, notes) == (["z.png"], None, ("left out: 2 folders (cat, dog) with 3 images",))
    for name in ("all/train/cat/0.png", "all/test/cat/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(GRAY[0]).save(tmp_path / name)
    with pytest.raises(RequestError, match=r"the folder has no image, .* did you mean .*all/train\?"):
        read_unlabeled(str(tmp_path / "all"))


DARK = np.arange(36).reshape(4, 3, 3)
WRONG = {"floats": DARK / 2, "negative": DARK / 35 - 1, "not a number": DARK * np.nan, "dark": DARK}


def make(path: Path, kind: str) -> Path:
    if kind == "labeled rows":
        return write_rows(path / "a.csv", GRAY, {"label": 1})
    if kind == "rows without IDs":
        return write_rows(path / "a.csv", GRAY, {})
    if kind in WRONG:
        np.save(path / "a.npy", WRONG[kind])
        return path / "a.npy"
    if kind == "flags":
        np.savez(path / "a.npz", images=GRAY > 99)
        return path / "a.npz"
    if kind == "folders alone":
        for name in ("a/0.HEIC", "a/1.HEIC", "a/README"):
            (path / "a").mkdir(exist_ok=True)
            (path / name).write_text("no image")
        return path
    if kind == "other arrays":
        np.savez(path / "a.npz", x_train=GRAY)
        return path / "a.npz"
    if kind == "no images":
        np.savez(path / "a.npz", images=GRAY[:0])
        return path / "a.npz"
    if kind == "cut":
        np.savez(path / "a.npz", images=GRAY)
        (path / "a.npz").write_bytes((path / "a.npz").read_bytes()[:-60])
        return path / "a.npz"
    if kind == "a damaged image":
        (path / "a.png").write_bytes(b"no image")
    if kind == "a link to nothing":
        (path / "a.png").symlink_to("nowhere")
    if kind == "a name of Latin-1":
        (path / "caf\udce9.png").touch()
    if kind == "text":
        (path / "a.txt").write_text("a")
        return path / "a.txt"
    return path / "nowhere" if kind == "nothing" else path


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("labeled rows", "a column label and no column ID"),
        ("rows without IDs", "just one of label and ID"),
        (
            "floats",
            "the array is float64 of 0..17.5; use uint8, floating point of 0..1, or numbers of 0..255 with",
        ),
        ("negative", "float64 of -1..0"),
        ("not a number", "float64 of nan..nan"),
        ("dark", "int64 of 0..35"),
        ("flags", "images is bool [4, 3, 3, 1]"),
        ("folders alone", "the folder has no image but 2 .HEIC, 1 without suffix; use"),
        ("other arrays", "the file holds ['x_train']; use images"),
        ("no images", "is empty"),
        ("cut", "cannot be read"),
        ("a damaged image", "a.png': the image cannot be decoded"),
        ("a link to nothing", "a.png': the link is broken"),
        ("a name of Latin-1", r"caf\udce9.png': its name is not UTF-8"),
        ("text", "the format is not supported; use an image or a folder of images (.bmp"),
        ("nothing", "no such file"),
        ("an empty folder", "the folder has no image"),
    ],
)
def test_what_does_not_fit_is_one_line_under_the_flag(tmp_path, kind, named):
    with pytest.raises(RequestError) as raised:
        read_unlabeled(str(make(tmp_path, kind)))
    message = str(raised.value)
    assert message.startswith(f"--input='{tmp_path}") and named in message and "\n" not in message
