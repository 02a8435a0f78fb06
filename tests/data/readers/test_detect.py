"""Files named by data.path: IDX folders and .npz, whole and damaged."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import load_dataset
from cnnjax.data.readers.detect import read_path
from cnnjax.data.readers.idx import read_idx
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError

FASHION_MNIST = os.environ.get("CNNJAX_FASHION_MNIST")


def idx_bytes(array: np.ndarray) -> bytes:
    """The published format, from its description: magic number, sizes, bytes."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3": rng.integers(0, 256, (12, 5, 4)),
        "train-labels-idx1": np.arange(12) % 3,
        "t10k-images-idx3": rng.integers(0, 256, (6, 5, 4)),
        "t10k-labels-idx1": np.arange(6) % 3,
    }


@pytest.fixture
def folder(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    for name, array in arrays.items():
        if name.startswith("train"):
            (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (tmp_path / f"{name}-ubyte").write_bytes(idx_bytes(array))
    return tmp_path


def test_idx_folder_is_read_as_written(folder, arrays):
    dataset = load_dataset(DataConfig(validation=0, path=str(folder)))
    np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["train-images-idx3"])
    np.testing.assert_array_equal(dataset.test.images[..., 0], arrays["t10k-images-idx3"])
    np.testing.assert_array_equal(dataset.train.labels, arrays["train-labels-idx1"])
    assert dataset.train.images.dtype == np.uint8 and dataset.train.labels.dtype == np.int32
    assert dataset.classes == ("0", "1", "2") and dataset.image_shape == (5, 4, 1)
    assert dataset.name == folder.name and dataset.test_from == "source"


def test_an_unpacked_file_beside_its_gzip_is_the_same_data(folder, arrays):
    first = load_dataset(DataConfig(validation=0, path=str(folder))).describe()
    for name, array in arrays.items():
        (folder / f"{name}-ubyte").write_bytes(idx_bytes(array))
    assert load_dataset(DataConfig(validation=0, path=str(folder))).describe() == first


def test_capitals_in_a_suffix_are_read_alike(folder, tmp_path_factory):
    first = load_dataset(DataConfig(validation=0, name="a", path=str(folder))).describe()
    for path in folder.glob("*.gz"):
        path.rename(path.with_suffix(".GZ"))
    assert load_dataset(DataConfig(validation=0, name="a", path=str(folder))).describe() == first
    file = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez(file, images=np.zeros((10, 4, 4), np.uint8), labels=np.arange(10) % 2)
    first = load_dataset(DataConfig(validation=0, path=str(file))).describe()
    assert load_dataset(DataConfig(validation=0, path=str(file.rename(file.with_suffix(".NPZ"))))).describe() == first


def test_a_known_name_names_the_classes(folder):
    dataset = load_dataset(DataConfig(validation=0, name="fashion_mnist", path=str(folder)))
    assert dataset.name == "fashion_mnist" and dataset.classes[9] == "Ankle boot"


def test_without_test_files_a_share_of_train_is_taken(folder):
    for path in folder.glob("t10k*"):
        path.unlink()
    dataset = load_dataset(DataConfig(validation=0, path=str(folder), test=0.25))
    assert (len(dataset.train), len(dataset.test), dataset.test_from) == (9, 3, "train")


def damage(folder: Path, kind: str) -> str:
    """Damages a folder in one way; returns what the message must name."""
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "t10k-labels-idx1-ubyte"
    if kind == "cut gzip":
        images.write_bytes(images.read_bytes()[:-40])
    elif kind == "not gzip":
        images.write_bytes(b"hello" * 30)
    elif kind == "flipped byte":
        content = bytearray(images.read_bytes())
        content[-6] ^= 255  # of the checksum
        images.write_bytes(content)
    elif kind == "other magic":
        labels.write_bytes(b"\0\0\x0c\x01" + labels.read_bytes()[4:])
    elif kind == "empty":
        labels.write_bytes(b"")
    elif kind == "huge header":  # 2**60 bytes
        header = struct.pack(">4I", 0x803, 2**20, 2**20, 2**20)
        images.write_bytes(gzip.compress(header + bytes(1000)))
    elif kind == "too short":
        labels.write_bytes(labels.read_bytes()[:-1])
    elif kind == "too long":
        labels.write_bytes(labels.read_bytes() + b"\0")
    elif kind == "counts differ":
        labels.write_bytes(idx_bytes(np.zeros(5)))
        return "6 images"
    elif kind == "label out of range":
        labels.write_bytes(idx_bytes(np.full(6, 7)))
        return "test labels reach 7"
    elif kind == "shapes differ":
        (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((6, 4, 4))))
        return "[4, 4, 1]"
    elif kind == "file missing":
        labels.unlink()
    return (images if kind in ("cut gzip", "not gzip", "flipped byte", "huge header") else labels).name


@pytest.mark.parametrize(
    "kind",
    ["cut gzip", "not gzip", "flipped byte", "other magic", "empty", "huge header", "too short"]
    + ["too long", "counts differ", "label out of range", "shapes differ", "file missing"],
)
def test_damaged_idx_is_one_line_that_names_the_file(folder, kind):
    named = damage(folder, kind)
    with pytest.raises(RequestError) as raised:
        load_dataset(DataConfig(validation=0, path=str(folder)))
    message = str(raised.value)
    assert message.startswith("data.path=") and named in message and "\n" not in message


@given(
    cut=st.integers(0, 20) | st.integers(0, 400),
    patch=st.binary(max_size=8),
    at=st.integers(0, 300),
    packed=st.booleans(),
)
def test_no_damage_to_an_idx_file_escapes_as_another_error(tmp_path_factory, cut, patch, at, packed):
    content = idx_bytes(np.arange(240).reshape(12, 5, 4))
    content = bytearray(gzip.compress(content) if packed else content)
    content[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if packed else "a")
    path.write_bytes(content[:cut])
    try:
        assert read_idx(path, 3).ndim == 3
    except RequestError as error:
        assert "\n" not in str(error)


def test_npz_in_keras_naming(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (8, 6, 6, 3), np.uint8)
    y = np.arange(8)[:, None] % 2  # Keras's CIFAR-10 has a column of labels
    np.savez_compressed(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(dataset.train.images, x)
    np.testing.assert_array_equal(dataset.test.labels, [0, 1, 0])
    assert dataset.train.labels.dtype == np.int32 and dataset.name == "a"


def test_npz_of_images_and_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((10, 4, 4), np.uint8), labels=np.arange(10) % 2)
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / "a.npz")))
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (8, 2, (4, 4, 1))


FORMS = [("x_{}", "y_{}", "val"), ("x_{}", "y_{}", "valid"), ("{}_images", "{}_labels", "val")]


@pytest.mark.parametrize(("images", "labels", "validation"), FORMS)
def test_npz_with_a_validation_split(tmp_path, images, labels, validation):
    """Keras's names, and MedMNIST's, whose labels are columns."""
    rng, arrays = np.random.default_rng(0), {}
    for name, count in (("train", 9), (validation, 5), ("test", 4)):
        arrays[images.format(name)] = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
        arrays[labels.format(name)] = (np.arange(count) % 3)[:, None].astype(np.uint8)
    np.savez(tmp_path / "a.npz", **arrays)
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / "a.npz")))
    for split, name in (("train", "train"), ("validation", validation), ("test", "test")):
        np.testing.assert_array_equal(dataset.splits[split].images, arrays[images.format(name)])
        np.testing.assert_array_equal(dataset.splits[split].labels, arrays[labels.format(name)][:, 0])
    assert dataset.describe()["validation_from"] == "given" and dataset.notes == ()


def test_arrays_of_an_npz_that_are_not_read_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS, images=IMAGES, names=LABELS)
    assert read_path(str(tmp_path / "a.npz"), "a").notes == ("left out: 2 arrays (images, names)",)


IMAGES, LABELS = np.zeros((4, 4, 4), np.uint8), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"images": IMAGES}, "the file holds ['images']"),
        ({"images": IMAGES / 255, "labels": LABELS}, "float64"),
        ({"images": np.zeros((4, 3, 32, 32), np.uint8), "labels": LABELS}, "[4, 3, 32, 32]"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "3 labels"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "0 images"),
        ({"images": IMAGES, "labels": -LABELS}, "-1..0"),
        ({"images": IMAGES, "labels": LABELS / 2}, "float64"),
        ({"images": IMAGES, "labels": LABELS * 1000}, "1,001 classes"),
        ({"images": IMAGES, "labels": np.array(["a", "b", "a", "b"], object)}, "allow_pickle"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES}, "only one of"),
        ({"x_train": IMAGES, "y_train": LABELS, "y_val": LABELS}, "only one of x_val and y_val"),
        ({"x_train": IMAGES, "x_val": IMAGES, "y_val": LABELS}, "the file holds ['x_train', 'x_val', 'y_val']"),
        ({"x_train": IMAGES, "y_train": LABELS, "train_images": IMAGES}, "train_images and x_train are both the train"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES[:, :2], "y_val": LABELS}, "training and validation"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1}, "reach 2"),
    ],
)
def test_npz_that_does_not_fit_is_refused(tmp_path, arrays, named):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(RequestError) as raised:
        read_path(str(tmp_path / "a.npz"), "a")
    assert named in str(raised.value) and "a.npz" in str(raised.value)


@given(cut=st.integers(0, 900), patch=st.binary(max_size=6), at=st.integers(0, 900))
def test_no_damage_to_an_npz_escapes_as_another_error(tmp_path_factory, cut, patch, at):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[at : at + len(patch)] = patch
    path.write_bytes(content if cut > 800 else content[:cut])
    try:
        read_path(str(path), "a")
    except RequestError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("path", ["nowhere", "a.txt", "a.npz"])
def test_a_path_of_no_known_kind_says_what_is_accepted(tmp_path, path):
    (tmp_path / "a.txt").write_text("label,pix1\n")
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(RequestError, match=r"train-images-idx3-ubyte.*\.npz"):
        load_dataset(DataConfig(validation=0, path=str(tmp_path / path)))


@pytest.mark.skipif(not FASHION_MNIST, reason="CNNJAX_FASHION_MNIST names no folder")
def test_fashion_mnist():
    dataset = load_dataset(DataConfig(validation=0, name="fashion_mnist", path=FASHION_MNIST))
    counts = dataset.describe()["counts"]
    assert counts == {"train": 60_000, "validation": 0, "test": 10_000}
    assert np.bincount(dataset.train.labels).tolist() == [6000] * 10
    np.testing.assert_allclose(dataset.mean, [0.28604], atol=5e-6)
    np.testing.assert_allclose(dataset.std, [0.35302], atol=5e-6)
