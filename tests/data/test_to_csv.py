"""Images written as the two CSV files of a competition."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnjax.data import to_csv as command
from cnnjax.data.readers.csv import read_labeled_rows, read_unlabeled_rows
from cnnjax.utils.errors import RequestError
from tests.data.readers.test_detect import idx_bytes

FASHION_MNIST = os.environ.get("CNNJAX_FASHION_MNIST")
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6), np.uint8)
IMAGES[:, 0, 0] = np.arange(40)  # each is told by its corner, which is its label too


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for prefix, part in (("train", slice(0, 30)), ("t10k", slice(30, 40))):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES[part]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(40)[part] % 10))
    return tmp_path


def write_photos(folder: Path) -> None:
    """Gray images of two sizes, 5x4 and 3x3, of each of two classes."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            pixels = IMAGES[index, :5, :4] if index % 2 else IMAGES[index, :3, :3]
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def run(folder: Path, *options: str) -> Path:
    output = folder / "out"
    command.main(command.parse(["to_csv", f"--input={folder}", f"--output={output}", "--image_size=6", *options]))
    return output


def test_every_image_is_in_just_one_file(folder):
    output = run(folder, "--resize=pad")
    assert sorted(path.name for path in output.iterdir()) == ["test.csv", "train.csv"]
    train, test = (pd.read_csv(output / name) for name in ("train.csv", "test.csv"))
    assert train.columns.tolist() == ["label", *(f"pix{i}" for i in range(1, 37))]
    assert test.columns.tolist() == ["ID", *train.columns[1:]] and test["ID"].tolist() == list(range(10))
    np.testing.assert_array_equal(train["label"], train["pix1"] % 10)
    for table in (train, test):
        expected = IMAGES[table["pix1"].to_numpy()].reshape(len(table), -1)
        np.testing.assert_array_equal(table.drop(columns=table.columns[0]), expected)
    numbers = [*train["pix1"], *test["pix1"]]
    assert sorted(numbers) == list(range(40)) and numbers != sorted(numbers)


def test_what_is_written_is_read(folder):
    output = run(folder, "--resize=pad", "--seed=3")
    train = read_labeled_rows(output / "train.csv")
    ids, test = read_unlabeled_rows(output / "test.csv")
    assert (len(train), len(ids)) == (30, 10) and train.images.shape[1:] == test.shape[1:] == (6, 6, 1)
    everything = {image.tobytes() for image in [*train.images, *test]}
    assert everything == {image.tobytes() for image in IMAGES}


def test_a_margin_is_put_around_before_resizing(folder):
    output = run(folder, "--margin=2")
    pixels = pd.read_csv(output / "train.csv").drop(columns="label").to_numpy(np.uint8)
    padded = [Image.fromarray(np.pad(image, 2)).resize((6, 6), Image.Resampling.BILINEAR) for image in IMAGES]
    assert {row.tobytes() for row in pixels} <= {np.asarray(image).tobytes() for image in padded}


def test_images_that_differ_in_size_are_brought_to_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos")
    arguments = [f"--input={tmp_path / 'photos'}", f"--output={tmp_path / 'out'}", "--image_size=6", "--resize=pad"]
    command.main(command.parse(["to_csv", *arguments]))
    train = read_labeled_rows(tmp_path / "out/train.csv")
    expected = {np.pad(IMAGES[i, :3, :3], ((1, 2), (1, 2))).tobytes() for i in (0, 2)}
    expected |= {np.pad(IMAGES[i, :5, :4], ((0, 1), (1, 1))).tobytes() for i in (1, 3)}
    assert len(train) == 6 and {image.tobytes() for image in train.images} <= expected


@pytest.mark.parametrize(("flag", "named"), [("--image_size=4096", "--image_size=4096"), ("--margin=400", "--margin")])
def test_images_that_memory_cannot_hold_are_refused_before_they_are_made(folder, monkeypatch, flag, named):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**6))
    monkeypatch.setattr(command, "resize_images", lambda *_: pytest.fail("took memory"))
    with pytest.raises(RequestError, match=rf"^{named}.*the images would take .*GB"):
        run(folder, flag)


def test_the_seed_alone_decides_the_order(folder):
    files = []
    for seed in (0, 0, 1):
        output = run(folder, "--resize=pad", f"--seed={seed}")
        files.append((output / "train.csv").read_bytes())
        for path in output.iterdir():
            path.unlink()
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--input={}/nowhere", "--output={}/out"], "--input="),
        (["--name=nothing", "--output={}/out"], "data.name='nothing'"),
        (["--input={}", "--output={}/there"], "test.csv exists"),
        (["--input={}/colors.npz", "--output={}/out"], "the images have colors"),
        (["--input={}/one.npz", "--output={}/out"], "the data has 1 image;"),
        (["--input={}", "--output={}/out", "--image_size=5", "--resize=pad"], "--image_size=5"),
        (["--input={}", "--output={}/out", "--image_size=5", "--resize=pad"], "or --resize=bilinear or nearest"),
        (["--input={}/photos", "--output={}/out", "--image_size=4", "--resize=pad"], "--image_size=4"),
        (["--input={}", "--output={}/one.npz"], "--output='{}/one.npz': File exists"),
        (["--input={}", "--output={}/one.npz/out"], "--output='{}/one.npz/out': Not a directory"),
        (["--input=~nosuchuser/x", "--output={}/out"], "--input='~nosuchuser/x'"),
        (["--input={}", "--output={}/out", "--seed=-1"], "--seed must be a whole number of 0..4294967295, got -1"),
        (["--input={}", "--output={}/out", "--image_size=0"], "--image_size must be a whole number of 1..4096, got 0"),
        (["--input={}", "--output={}/out", "--margin=-1"], "--margin must be a whole number of 0..4096, got -1"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(folder, arguments, named):
    (folder / "there").mkdir()
    (folder / "there" / "test.csv").write_text("")
    np.savez(folder / "colors.npz", images=np.zeros((4, 2, 2, 3), np.uint8), labels=np.zeros(4, int))
    np.savez(folder / "one.npz", images=IMAGES[:1], labels=np.zeros(1, int))
    write_photos(folder / "photos")
    with pytest.raises(RequestError) as refused:
        command.main(command.parse(["to_csv", *(argument.format(folder) for argument in arguments)]))
    assert "\n" not in str(refused.value) and named.format(folder) in str(refused.value)
    assert not (folder / "out").exists() and not (folder / "there" / "train.csv").exists()


def test_a_failure_leaves_no_file(folder, monkeypatch):
    def write(file, key, *_):
        file.write(b"half")
        if key == "ID":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "_write", write)
    with pytest.raises(OSError, match="No space left"):
        run(folder)
    assert list((folder / "out").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST, reason="CNNJAX_FASHION_MNIST names no folder")
def test_fashion_mnist_has_the_published_rows_and_mean(tmp_path):
    command.main(command.parse(["to_csv", f"--input={FASHION_MNIST}", f"--output={tmp_path}"]))
    train = read_labeled_rows(tmp_path / "train.csv")
    ids, test = read_unlabeled_rows(tmp_path / "test.csv")
    assert train.images.shape == (52_500, 32, 32, 1) and test.shape == (17_500, 32, 32, 1)
    assert (ids[0], ids[-1]) == ("0", "17499")
    assert int(train.images.mean()) == 44 and train.images.max() == 255  # what the source prints
