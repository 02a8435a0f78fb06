"""Folders of one .npy file for each class, whole and damaged."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import load_dataset
from cnnjax.data.readers.detect import read_path
from cnnjax.data.readers.npy import read_npy
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError

RNG = np.random.default_rng(0)
CAT, DOG = RNG.integers(0, 256, (6, 784), np.uint8), RNG.integers(0, 256, (4, 28, 28), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The class `dog` with the published prefix, in another shape, and first by its file's name."""
    np.save(tmp_path / "moving cat.npy", CAT)
    np.save(tmp_path / "full_numpy_bitmap_sitting dog.npy", DOG)
    (tmp_path / ".hidden.npy").write_text("")
    (tmp_path / "readme.txt").write_text("")
    return tmp_path


def test_a_file_for_each_class_is_read_as_written(folder):
    dataset = load_dataset(DataConfig(validation=0, path=str(folder), test=0.2))
    assert dataset.classes == ("moving cat", "sitting dog") and dataset.image_shape == (28, 28, 1)
    assert (len(dataset.train), len(dataset.test), dataset.test_from) == (8, 2, "train")
    assert dataset.notes == ("left out, not read as arrays: 1 .txt",)
    source = read_path(str(folder), "a").train
    np.testing.assert_array_equal(source.images[:6], CAT.reshape(6, 28, 28, 1))
    np.testing.assert_array_equal(source.images[6:, ..., 0], DOG)
    np.testing.assert_array_equal(source.labels, [0] * 6 + [1] * 4)
    assert type(source.images) is np.ndarray  # in memory: later reads do not wait for a disk


def test_capitals_in_a_suffix_are_read_alike(tmp_path):
    for name, images in (("CAT.npy", CAT), ("dog.npy", DOG)):
        np.save(tmp_path / name, images)
    (tmp_path / "CAT.npy").rename(tmp_path / "CAT.NPY")
    source = read_path(str(tmp_path), "a")
    assert source.classes == ("CAT", "dog") and source.train.labels.tolist() == [0] * 6 + [1] * 4


def test_only_headers_are_read_before_they_are_checked(folder, monkeypatch):
    np.save(folder / "zebra.npy", np.zeros((3, 27, 27), np.uint8))
    monkeypatch.setattr(np, "concatenate", lambda _: pytest.fail("took memory"))
    with pytest.raises(RequestError, match=r"zebra\.npy.*\[27, 27, 1\].*moving cat\.npy \[28, 28, 1\]"):
        read_path(str(folder), "a")


def header(shape: str, dtype: str = "'|u1'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "the file cannot be read"),
        (b"PK\x03\x04 a zip file", "the file cannot be read"),
        (saved(CAT)[:-1], "the file cannot be read"),
        (header(f"({2**40}, 784)") + bytes(784), "the header promises"),
        (header(f"({2**70}, 784)") + bytes(784), "the header promises"),
        (header(f"({2**62}, 4, 784)") + bytes(784), "the header promises"),
        (header("(-1, 784)") + bytes(784), "the file cannot be read"),
        (header("(1, 784") + bytes(784), "the file cannot be read"),
        (header("(1, 784)", "'|O'") + bytes(7840), "the file cannot be read"),
        (header("(1, 784)", "[") + bytes(784), "the file cannot be read"),
        (saved(np.array([{}], object)), "the file cannot be read"),
        (saved(CAT[:0]), "is empty"),
        (saved(CAT / 255), "float64"),
        (saved(CAT[:, :700]), "uint8 [6, 700]"),
        (saved(CAT[0]), "uint8 [784]"),
        (saved(np.zeros((2, 4, 4, 5), np.uint8)), "[2, 4, 4, 5]"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_that_names_it(folder, content, named):
    (folder / "moving cat.npy").write_bytes(content)
    with pytest.raises(RequestError) as raised:
        load_dataset(DataConfig(validation=0, path=str(folder)))
    message = str(raised.value)
    assert message.startswith("data.path=") and named in message and "moving cat.npy" in message
    assert "\n" not in message


def test_a_class_of_two_files_is_refused(folder):
    np.save(folder / "full_numpy_bitmap_moving cat.npy", CAT)
    with pytest.raises(RequestError, match="name the same class"):
        load_dataset(DataConfig(validation=0, path=str(folder)))


@given(
    cut=st.integers(0, 250), patch=st.binary(max_size=6) | st.text(max_size=4).map(str.encode), at=st.integers(0, 250)
)
def test_no_damage_to_a_file_escapes_as_another_error(tmp_path_factory, cut, patch, at):
    content = bytearray(saved(CAT[:2, :64]))
    content[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    path.write_bytes(content if cut > 200 else content[:cut])
    try:
        assert read_npy(path).dtype == np.uint8
    except RequestError as error:
        assert "\n" not in str(error)
