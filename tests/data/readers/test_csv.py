"""CSV files with an image in each row, labeled and unlabeled, whole and damaged."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import load_dataset
from cnnjax.data.readers.csv import read_labeled_rows, read_unlabeled_rows
from cnnjax.data.readers.detect import read_path
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError


def write_rows(path: Path, images: np.ndarray, first: dict[str, object]) -> Path:
    """Images [N, S, S] as pandas writes them, beside the column `first`."""
    pixels = images.reshape(len(images), -1)
    frame = pd.DataFrame(pixels, columns=[f"pix{i + 1}" for i in range(pixels.shape[1])])
    for at, (name, values) in enumerate(first.items()):
        frame.insert(at, name, values)
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 3, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_labeled_rows_are_read_as_pandas_wrote_them(tmp_path, images, name):
    path = write_rows(tmp_path / name, images, {"label": np.arange(10) % 2})
    split = read_labeled_rows(path)
    np.testing.assert_array_equal(split.images[..., 0], images)
    np.testing.assert_array_equal(split.labels, np.arange(10) % 2)
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
    dataset = load_dataset(DataConfig(validation=0, path=str(path), test=0.2))
    assert (len(dataset.train), len(dataset.test), dataset.test_from) == (8, 2, "train")
    assert dataset.classes == ("0", "1") and dataset.image_shape == (3, 3, 1)


def test_the_label_may_stand_last_and_pixels_may_be_called_otherwise(tmp_path, images):
    frame = pd.DataFrame(images.reshape(10, 9), columns=[f"pixel{i}" for i in range(9)])
    frame.assign(label=3).to_csv(tmp_path / "a.csv", index=False)
    split = read_labeled_rows(tmp_path / "a.csv")
    np.testing.assert_array_equal(split.images[..., 0], images)
    assert (split.labels == 3).all()


def test_unlabeled_rows_keep_their_ids_and_are_no_data_of_a_study(tmp_path, images):
    names = [f"{i:03d}" for i in range(10)]
    path = write_rows(tmp_path / "a.csv", images, {"ID": names})
    ids, read = read_unlabeled_rows(path)
    assert ids == names
    np.testing.assert_array_equal(read[..., 0], images)
    with pytest.raises(RequestError, match=r"a\.csv.* have an ID and no label; use labeled images"):
        load_dataset(DataConfig(validation=0, path=str(path)))
    with pytest.raises(RequestError, match="no column ID"):
        read_unlabeled_rows(write_rows(path, images, {"label": 0}))


HEADER = "label,pix1,pix2,pix3,pix4\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "begins with ''"),
        (HEADER, "0 images"),
        ("1,2,3,4,5\n", "begins with '1,2,3,4,5'"),
        (HEADER + "1,2,3,4,5\n1,2,3,4\n", "Expected 5 columns, got 4"),
        (HEADER + "1,2,3,4,5\n1,2,3,4,5,6\n", "row 3 (the header is 1, empty lines do not count): Expected"),
        (HEADER + "1,2,3,4,5\n1,2,256,4,5\n", "column pix2: invalid value '256'"),
        (HEADER + "\n1,2,3,4,5\n\n1,2,256,4,5\n", "row 3 (the header is 1, empty lines do not count), column pix2"),
        (HEADER + "1,2,-1,4,5\n", "column pix2: invalid value '-1'"),
        (HEADER + "1,2,3,4,nan\n", "column pix4: invalid value 'nan'"),
        (HEADER + "1,2,3,4,\n", "column pix4: invalid value ''"),
        (HEADER + "1,2,3.5,4,5\n", "invalid value '3.5'"),
        (HEADER + '1,2,"a\nb",4,5\n', "invalid value 'a b'"),
        (HEADER + "shirt,2,3,4,5\n", "column label: invalid value 'shirt'"),
        (HEADER + ",2,3,4,5\n", "column label: invalid value ''"),
        (HEADER + "-1,2,3,4,5\n", "-1..-1"),
        (HEADER + "1000,2,3,4,5\n", "1,001 classes"),
        ("label,pix1,pix2,pix3\n1,2,3,4\n", "3 pixels"),
        ("label,pix1,pix3,pix2,pix4\n1,2,3,4,5\n", "'pix3' is no pixel or out of order"),
        ("label,pix1,pix1,pix2,pix3\n1,2,3,4,5\n", "out of order"),
        ("label,pix1,price,pix2,pix3\n1,2,3,4,5\n", "'price' is no pixel"),
        ("label,ID,pix1\n1,2,3\n", "just one of label and ID"),
        ("pix1,pix2,pix3,pix4\n1,2,3,4\n", "just one of label and ID"),
    ],
)
def test_rows_that_do_not_fit_are_one_line_that_names_the_file(tmp_path, text, named):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(RequestError) as raised:
        read_path(str(tmp_path / "a.csv"), "a")
    message = str(raised.value)
    assert message.startswith("data.path=") and named in message and "a.csv" in message and "\n" not in message


@given(
    cut=st.integers(0, 200),
    patch=st.text(max_size=6).map(str.encode) | st.binary(max_size=6),
    at=st.integers(0, 150),
    packed=st.booleans(),
    labeled=st.booleans(),
)
def test_no_damage_to_rows_escapes_as_another_error(tmp_path_factory, cut, patch, at, packed, labeled):
    text = HEADER + "1,2,3,4,5\n0,255,254,253,252\n" * 3
    content = (text if labeled else text.replace("label", "ID")).encode()
    content = bytearray(gzip.compress(content) if packed else content)
    content[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("rows") / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(content[:cut])
    try:
        if labeled:
            assert read_path(str(path), "a").train.images.shape[1:] == (2, 2, 1)
        else:
            ids, images = read_unlabeled_rows(path)
            assert len(ids) == len(images)
    except RequestError as error:
        assert "\n" not in str(error)


def test_a_folder_named_as_a_file_is_of_no_kind(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(RequestError, match="the format is not supported"):
        read_path(str(tmp_path / "a.csv"), "a")


def write_splits(folder: Path, *names: str) -> dict[str, np.ndarray]:
    """Writes a labeled file of each name; returns the images by name."""
    written = {}
    for index, name in enumerate(names):
        written[name] = np.full((4 + index, 3, 3), 10 * index, np.uint8)
        write_rows(folder / name, written[name], {"label": [0, 1] * 2 + [0] * index})
    return written


@pytest.mark.parametrize("path", ["", "train.csv"])
@pytest.mark.parametrize(
    "names", [("train.csv", "val.csv", "test.csv.gz"), ("train.csv", "Validation.CSV", "TEST.csv")]
)
def test_files_that_are_named_as_splits_are_the_splits(tmp_path, path, names):
    written = write_splits(tmp_path, *names)
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / path)))
    for split, name in zip(("train", "validation", "test"), names, strict=True):
        np.testing.assert_array_equal(dataset.splits[split].images[..., 0], written[name])
    assert (dataset.validation_from, dataset.test_from, dataset.notes) == ("given", "source", ())


@pytest.mark.parametrize("path", ["", "train.csv"])
def test_a_test_file_without_labels_is_left_out_and_named(tmp_path, images, path):
    """As `data.to_csv` writes it, or without IDs, too."""
    write_splits(tmp_path, "train.csv")
    write_rows(tmp_path / "test.csv", images, {"ID": range(len(images))})
    (tmp_path / "val.csv").write_text("pix1,pix2\n1,2\n")
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / path), test=0.5))
    assert (len(dataset.train), len(dataset.test), dataset.validation) == (2, 2, None)
    no_header, no_labels = dataset.notes
    assert no_labels == "left out, because its images have no labels: test.csv"
    assert no_header.startswith("left out, because the header begins with 'pix1,pix2'") and no_header.endswith(
        ": val.csv"
    )


def test_what_lies_beside_a_file_of_another_name_is_named(tmp_path):
    write_splits(tmp_path, "digits.csv", "test.csv", "train.csv.gz")
    (tmp_path / "broken").symlink_to("nowhere")
    dataset = load_dataset(DataConfig(validation=0, path=str(tmp_path / "digits.csv"), test=0.5))
    assert len(dataset.train) == len(dataset.test) == 2
    assert dataset.notes == tuple(
        f"left out, because only digits.csv was named: {name}" for name in ("test.csv", "train.csv.gz")
    )


def test_a_packed_copy_is_no_second_file_and_two_files_of_one_split_are_refused(tmp_path):
    write_splits(tmp_path, "train.csv.gz", "train.csv", "val.csv")
    for path, count in (("", 5), ("train.csv", 5), ("train.csv.gz", 4)):
        assert len(read_path(str(tmp_path / path), "a").train) == count
    write_splits(tmp_path, "valid.csv")
    with pytest.raises(RequestError, match=r"valid\.csv': val\.csv in the same folder is the validation split"):
        read_path(str(tmp_path), "a")
