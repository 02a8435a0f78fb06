"""Preparing published archives, reading what is prepared, the cache, and data that is not there."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import load_dataset, normalization_map
from cnnjax.data import prepare as command
from cnnjax.data.download import PUBLISHED, Archive, fetch
from cnnjax.data.prepare import prepare
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError
from tests.data.readers.test_detect import idx_bytes

PREPARED = os.environ.get("TFDS_DATA_DIR")
RNG = np.random.default_rng(0)
SPLITS = {"train": 20, "test": 6}
CIFAR = {name: (RNG.integers(0, 256, (n, 32, 32, 3), np.uint8), np.arange(n) % 10) for name, n in SPLITS.items()}
MNIST = {name: (RNG.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n) % 10) for name, n in SPLITS.items()}


def cifar_archive(folder: Path) -> None:
    """CIFAR-10 as published: batches of label, red plane, green plane, blue plane."""
    images, labels = CIFAR["train"]
    batches = {f"data_batch_{i + 1}.bin": (images[i::5], labels[i::5]) for i in range(5)}
    batches["test_batch.bin"] = CIFAR["test"]
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, (batch, batch_labels) in batches.items():
            records = [
                bytes([y]) + b"".join(x[..., channel].tobytes() for channel in range(3))
                for x, y in zip(batch, batch_labels, strict=True)
            ]
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = 3073 * len(records)
            archive.addfile(member, io.BytesIO(b"".join(records)))


def mnist_archives(folder: Path) -> None:
    for prefix, (images, labels) in zip(("train", "t10k"), MNIST.values(), strict=True):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = gzip.compress(idx_bytes(array))
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(content)


def checksums(name: str, folder: Path) -> list[Archive]:
    return [
        dataclasses.replace(
            archive,
            sha256=hashlib.sha256((folder / archive.file_name).read_bytes()).hexdigest(),
        )
        for archive in PUBLISHED[name]
    ]


@pytest.fixture(scope="module")
def archive_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    cifar_archive(folder)
    mnist_archives(folder)
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, archive_dir) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    for name in PUBLISHED:
        prepare(name, folder, archive_dir, checksums(name, archive_dir))
    return folder


@pytest.fixture
def environment(monkeypatch, tmp_path, data_dir) -> Path:
    """Points to the prepared data and to an empty cache, whose folder is returned."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def as_set(images: np.ndarray, labels: np.ndarray) -> set[tuple[bytes, int]]:
    return {(x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_prepared_is_read_by_the_library_and_by_us(name, data_dir, environment):
    import tensorflow_datasets as tfds

    dataset = load_dataset(DataConfig(validation=0, name=name))
    for split, (images, labels) in (CIFAR if name == "cifar10" else MNIST).items():
        theirs = tfds.data_source(name, split=split, data_dir=data_dir, download=False)
        theirs = np.stack([r["image"] for r in theirs]), np.array([r["label"] for r in theirs])
        ours = getattr(dataset, split)
        np.testing.assert_array_equal(ours.images, theirs[0])  # in the same order
        np.testing.assert_array_equal(ours.labels, theirs[1])
        assert as_set(ours.images, ours.labels) == as_set(images, labels)
    assert len(dataset.classes) == 10 and dataset.name == name
    assert tfds.builder(name, data_dir=data_dir).info.features["label"].num_classes == 10
    assert "tensorflow" not in sys.modules


def test_preparing_again_leaves_the_data_alone(data_dir):
    files = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    folder = prepare("mnist", data_dir, Path("no such folder"))
    assert folder == data_dir / "mnist" / "3.0.1"
    assert files == {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}


def test_nothing_but_the_published_content_is_prepared(tmp_path, archive_dir):
    arguments = ["prepare", "mnist", f"--data_dir={tmp_path / 'data'}", f"--archive_dir={archive_dir}"]
    with pytest.raises(RequestError) as refused:
        command.main(command.parse(arguments))
    assert "\n" not in str(refused.value) and PUBLISHED["mnist"][0].sha256 in str(refused.value)
    assert not (tmp_path / "data").exists()


def test_a_missing_archive_is_named_with_its_address(tmp_path):
    with pytest.raises(RequestError, match=r"https://www\.cs\.toronto\.edu"):
        prepare("cifar10", tmp_path / "data", tmp_path)
    with pytest.raises(RequestError, match="did you mean 'cifar10'"):
        prepare("cifar", tmp_path / "data", tmp_path)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(archive_dir):
    handler = functools.partial(QuietHandler, directory=archive_dir)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_archives_are_downloaded_and_verified(tmp_path, archive_dir, server):
    archives = [
        dataclasses.replace(archive, url=f"{server}/{archive.file_name}") for archive in checksums("mnist", archive_dir)
    ]
    folder = prepare("mnist", tmp_path / "good", archives=archives)
    assert (folder / "dataset_info.json").exists()
    archives[1] = dataclasses.replace(archives[1], sha256="0" * 64)
    with pytest.raises(RequestError, match="the sha256 is"):
        prepare("mnist", tmp_path / "bad", archives=archives)
    assert not (tmp_path / "bad").exists()


def test_a_failed_download_is_one_line(tmp_path, server):
    for url, why in ((f"{server}/nothing.gz", "404"), ("http://127.0.0.1:9/a.gz", "refused")):
        with pytest.raises(RequestError, match=why) as raised:
            fetch(Archive(url, ""), tmp_path)
        assert "\n" not in str(raised.value) and url in str(raised.value)


def test_a_host_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnjax.data.download._TIMEOUT", 0.2)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: time.sleep(5))
    with pytest.raises(RequestError, match=r"no answer for 0\.2 seconds"):
        fetch(Archive("https://example.org/a.gz", ""), tmp_path)


def cached_and_fresh(capsys) -> tuple[dict, str]:
    description = load_dataset(DataConfig(validation=0, name="mnist")).describe()
    return description, capsys.readouterr().err


def test_images_are_decoded_once(environment, capsys, monkeypatch):
    first, _ = cached_and_fresh(capsys)
    monkeypatch.setattr("PIL.Image.open", lambda *_: pytest.fail("decoded again"))
    assert cached_and_fresh(capsys) == (first, "")


@pytest.mark.parametrize("kind", ["bit", "cut", "no note", "other note", "not json"])
def test_a_damaged_cache_is_reported_and_rebuilt(environment, capsys, kind):
    first, _ = cached_and_fresh(capsys)
    (arrays,), (note,) = environment.glob("*.npy"), environment.glob("*.json")
    if kind == "bit":
        content = bytearray(arrays.read_bytes())
        content[-1000] ^= 1
        arrays.write_bytes(content)
    elif kind == "cut":
        arrays.write_bytes(arrays.read_bytes()[:-1])
    elif kind == "no note":
        note.unlink()
    else:
        note.write_text("[]" if kind == "other note" else "{")
    again, error = cached_and_fresh(capsys)
    assert again == first
    assert error == f"{arrays} is damaged; decoding the images again\n"
    assert cached_and_fresh(capsys) == (first, "")
    assert len(list(environment.iterdir())) == 2  # nothing else is left there


def test_a_cache_that_cannot_be_written_is_done_without(environment, capsys):
    environment.write_text("a file where the folder should be")
    description, error = cached_and_fresh(capsys)
    assert description["counts"]["train"] == 20
    assert error.count("\n") == 1 and str(environment) in error


def test_a_full_disk_leaves_nothing_in_the_cache(environment, capsys, monkeypatch):
    def save(file, *_, **__):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", save)
    description, error = cached_and_fresh(capsys)
    assert description["counts"]["train"] == 20 and "No space left" in error
    assert list(environment.iterdir()) == []


def test_damaged_prepared_data_is_one_line(environment, data_dir, tmp_path, monkeypatch):
    copy = tmp_path / "copy" / "mnist" / "3.0.1"
    copy.mkdir(parents=True)
    for path in (data_dir / "mnist" / "3.0.1").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "copy"))
    records = copy / "mnist-train.array_record-00000-of-00001"
    records.write_bytes(records.read_bytes()[:3000])
    with pytest.raises(RequestError, match=r"^data\.name='mnist'.* is damaged") as raised:
        load_dataset(DataConfig(validation=0, name="mnist"))
    assert "\n" not in str(raised.value)


def test_damage_of_which_a_package_says_nothing_is_called_by_its_kind(environment, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("cnnjax.data.readers.tfds.cached", fail)
    with pytest.raises(RequestError, match=r"^data\.name='mnist'.* is damaged \(RuntimeError\)"):
        load_dataset(DataConfig(validation=0, name="mnist"))


@pytest.fixture
def sizes_differ(environment, tmp_path, monkeypatch) -> None:
    """A prepared data set `photos`: images of their own sizes, no test split."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "photos"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["cat", "dog"])
            image = tfds.features.Image(shape=(None, None, 3))
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(10):
                file = io.BytesIO()
                Image.new("RGB", (4 + index, 8), (index, 0, 0)).save(file, "png")
                file.seek(0)
                yield index, {"image": file, "label": index % 2}

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    Photos(data_dir=tmp_path, file_format="array_record").download_and_prepare()


def test_images_of_several_sizes_need_one(sizes_differ):
    with pytest.raises(RequestError, match=r"^data\.image_size=None"):
        load_dataset(DataConfig(validation=0, name="photos"))
    dataset = load_dataset(DataConfig(validation=0, name="photos", image_size=6, resize="nearest"))
    assert dataset.describe()["counts"] == {"train": 8, "validation": 0, "test": 2}
    assert dataset.classes == ("cat", "dog") and dataset.image_shape == (6, 6, 3)
    for part in (dataset.train, dataset.test):
        assert (part.images[:, 0, 0, 0] % 2 == part.labels).all()
    padded = load_dataset(DataConfig(validation=0, name="photos", image_size=13))
    assert padded.image_shape == (13, 13, 3)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("cifar10", "python -m cnnjax.data.prepare cifar10"),
        ("cifar_10", "did you mean 'cifar10'?"),
        ("imagenette", "cifar10, digits, fashion_mnist, mnist"),
    ],
)
def test_missing_data_answers_within_two_seconds(tmp_path, name, named):
    program = (
        "import sys, cnnjax.data, cnnjax.study.schema, cnnjax.utils.errors\n"
        f"try: cnnjax.data.load_dataset(cnnjax.study.schema.DataConfig(validation=0, name={name!r}))\n"
        "except cnnjax.utils.errors.RequestError as error: print(error)\n"
        "print(sorted({'jax', 'tensorflow_datasets', 'sklearn'} & set(sys.modules)))"
    )
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 2
    message, imported = run.stdout.splitlines()
    assert imported == "[]"
    assert message.startswith(f"data.name='{name}'") and named in message
    assert str(tmp_path / name) in message and ".npz" in message and "data.path" in message


def test_what_is_prepared_is_a_known_name(environment):
    with pytest.raises(RequestError, match="did you mean 'fashion_mnist'"):
        load_dataset(DataConfig(validation=0, name="fashionmnist"))


def test_a_validation_split_is_taken_as_it_is(environment, data_dir, tmp_path, monkeypatch):
    """The prepared test split, called validation."""
    expected = load_dataset(DataConfig(validation=0, name="mnist")).test
    (source,) = (data_dir / "mnist").iterdir()
    folder = tmp_path / "data" / "mnist" / source.name
    folder.mkdir(parents=True)
    for path in source.iterdir():
        content = path.read_bytes()
        if path.name == "dataset_info.json":
            content = content.replace(b'"test"', b'"validation"')
        (folder / path.name.replace("-test.", "-validation.")).write_bytes(content)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    for _ in range(2):  # the second time from the cache
        dataset = load_dataset(DataConfig(validation=0, name="mnist", test=0.25))
        np.testing.assert_array_equal(dataset.validation.images, expected.images)
        np.testing.assert_array_equal(dataset.validation.labels, expected.labels)
        assert (dataset.validation_from, len(dataset.train), len(dataset.test)) == ("given", 15, 5)


def test_versions_and_configs(environment, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    for version in ("emnist/letters/3.0.9", "emnist/letters/3.0.10", "emnist/digits/3.0.0"):
        folder = tmp_path / "data" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
        (folder / "features.json").write_text("{}")
    with pytest.raises(RequestError, match="emnist/digits, emnist/letters"):
        load_dataset(DataConfig(validation=0, name="emnist"))
    with pytest.raises(RequestError, match=r"3\.0\.10 holds tfrecord"):
        load_dataset(DataConfig(validation=0, name="emnist/letters"))


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    if not PREPARED or not (Path(PREPARED) / "cifar10").is_dir():
        pytest.skip("TFDS_DATA_DIR names no folder with cifar10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        first = load_dataset(DataConfig(validation=0, name="cifar10"))
        start = time.monotonic()
        again = load_dataset(DataConfig(validation=0, name="cifar10"))
        assert time.monotonic() - start < 5 and again.describe() == first.describe()
    return first


@pytest.mark.slow
def test_cifar10(cifar10):
    assert cifar10.describe()["counts"] == {"train": 50_000, "validation": 0, "test": 10_000}
    assert np.bincount(cifar10.train.labels).tolist() == [5000] * 10
    assert np.bincount(cifar10.test.labels).tolist() == [1000] * 10
    np.testing.assert_allclose(cifar10.mean, [0.49140, 0.48216, 0.44653], atol=5e-6)
    np.testing.assert_allclose(cifar10.std, [0.24703, 0.24349, 0.26159], atol=6e-6)
    for channel, scale, shift in zip(range(3), *normalization_map(cifar10, "standard"), strict=True):
        pixels = cifar10.train.images[..., channel] * np.float64(scale) + shift
        assert abs(pixels.mean()) < 1e-5 and pixels.var() == pytest.approx(1, abs=1e-5)
    assert cifar10.classes[:2] == ("airplane", "automobile") and cifar10.image_shape == (32, 32, 3)
