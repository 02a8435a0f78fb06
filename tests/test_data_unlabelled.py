"""Images to be predicted: every kind that is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_rows import write_rows

from cnnjax.data.unlabelled import read_unlabelled
from cnnjax.types import RequestError

GREY = np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 3), np.uint8)


def test_rows_of_a_csv_file(tmp_path):
    ids, images = read_unlabelled(str(write_rows(tmp_path / "a.csv.gz", GREY, {"ID": [7, 5, 6, 4]})))
    assert ids == ["7", "5", "6", "4"]
    np.testing.assert_array_equal(images, GREY[..., None])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(GREY, GREY[..., None]), (GREY.reshape(4, 9), GREY[..., None]), (COLOUR, COLOUR)],
)
def test_arrays(tmp_path, stored, expected):
    np.save(tmp_path / "a.npy", stored)
    ids, images = read_unlabelled(str(tmp_path / "a.npy"))
    assert ids == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize(("write", "name"), [(np.save, "a.npy"), (np.savez, "a.npz")])
def test_capitals_in_a_suffix_are_read_alike(tmp_path, write, name):
    write(tmp_path / name, **{"arr" if name == "a.npy" else "images": GREY})
    (tmp_path / name).rename(tmp_path / name.upper())
    np.testing.assert_array_equal(read_unlabelled(str(tmp_path / name.upper()))[1], GREY[..., None])


def test_labels_beside_an_array_are_left_alone(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREY.reshape(4, 9), labels=np.array([{}], object))
    ids, images = read_unlabelled(str(tmp_path / "a.npz"))
    assert ids == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(images, GREY[..., None])


def test_a_folder_of_images_of_any_sizes(tmp_path):
    Image.fromarray(COLOUR[0]).save(tmp_path / "b.png")
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    (tmp_path / ".hidden.png").write_text("")
    (tmp_path / "notes.txt").write_text("")
    ids, images = read_unlabelled(str(tmp_path))
    assert ids == ["a.png", "b.png"]
    np.testing.assert_array_equal(images[0], GREY[0][..., None])
    np.testing.assert_array_equal(images[1], COLOUR[0])


def make(path: Path, kind: str) -> Path:
    if kind == "labelled rows":
        return write_rows(path / "a.csv", GREY, {"label": 1})
    if kind == "rows without IDs":
        return write_rows(path / "a.csv", GREY, {})
    if kind == "floats":
        np.save(path / "a.npy", GREY / 255)
        return path / "a.npy"
    if kind == "other arrays":
        np.savez(path / "a.npz", x_train=GREY)
        return path / "a.npz"
    if kind == "no images":
        np.savez(path / "a.npz", images=GREY[:0])
        return path / "a.npz"
    if kind == "cut":
        np.savez(path / "a.npz", images=GREY)
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
        ("labelled rows", "a column label and no column ID"),
        ("rows without IDs", "just one of label and ID"),
        ("floats", "float64"),
        ("other arrays", "it holds ['x_train']; allowed: images"),
        ("no images", "is empty"),
        ("cut", "cannot be read"),
        ("a damaged image", "a.png' is not allowed; it cannot be decoded"),
        ("a link to nothing", "a.png' is not allowed; it is a link to nothing"),
        ("a name of Latin-1", r"caf\udce9.png' is not allowed; its name is not UTF-8"),
        ("text", "of no kind that is read; allowed: a folder of images (.bmp"),
        ("nothing", "no such file"),
        ("an empty folder", "it has no image"),
    ],
)
def test_what_does_not_fit_is_one_line_under_the_flag(tmp_path, kind, named):
    with pytest.raises(RequestError) as raised:
        read_unlabelled(str(make(tmp_path, kind)))
    message = str(raised.value)
    assert message.startswith(f"--input: '{tmp_path}") and named in message and "\n" not in message
