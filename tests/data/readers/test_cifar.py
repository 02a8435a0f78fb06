"""CIFAR's published folders: read as written, and no pickle runs anything."""

import io
import os
import pickle
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import load_dataset
from cnnjax.data.readers.safe_pickle import read_pickle
from cnnjax.study.schema import DataConfig
from cnnjax.utils.errors import RequestError

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 32, 32, 3), np.uint8) for n in (20, 6))
CLASSES = [b"plane", b"car", b"bird"]


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote, as CIFAR is published: protocol 2, and bytes as text."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, content: bytes) -> None:
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(content)

    dispatch[bytes] = save_bytes


def python2(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def python3(value: Any) -> bytes:
    return pickle.dumps(value, 4)


def planes(images: np.ndarray) -> np.ndarray:
    """Red, green and blue, one after another, in each row."""
    return np.stack([np.concatenate([image[..., c].ravel() for c in range(3)]) for image in images])


def write_cifar(folder: Path, kind: str, dump: Any = python2) -> Path:
    """A published folder; the batches of CIFAR-10 hold every fifth image each."""
    folder.mkdir()
    hundred, binary = "100" in kind, "binary" in kind
    batches = {"train": (TRAIN, np.arange(20) % 3), "test": (TEST, np.arange(6) % 3)}
    if not hundred:
        labels = np.arange(20) % 3
        batches = {f"data_batch_{i + 1}": (TRAIN[4 * i : 4 * i + 4], labels[4 * i : 4 * i + 4]) for i in range(5)}
        batches["test_batch"] = (TEST, np.arange(6) % 3)
    for name, (images, labels) in batches.items():
        if binary:
            coarse = [[9]] * len(labels) if hundred else [[]] * len(labels)
            records = [bytes([*c, y]) + row.tobytes() for c, y, row in zip(coarse, labels, planes(images), strict=True)]
            (folder / f"{name}.bin").write_bytes(b"".join(records))
        else:
            values = {b"fine_labels" if hundred else b"labels": labels.tolist(), b"data": planes(images)}
            extra = {b"coarse_labels": [9] * len(labels)} if hundred else {b"batch_label": b"a batch"}
            (folder / name).write_bytes(dump({**values, **extra, b"filenames": [b"a.png"] * len(labels)}))
    if binary:
        names = "fine_label_names.txt" if hundred else "batches.meta.txt"
        (folder / names).write_text("\n".join(name.decode() for name in CLASSES) + "\n\n")
    else:
        key = b"fine_label_names" if hundred else b"label_names"
        (folder / ("meta" if hundred else "batches.meta")).write_bytes(dump({key: CLASSES, b"num_vis": 3072}))
    return folder


KINDS = ["10 pickled", "10 binary", "100 pickled", "100 binary"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dump", [python2, python3])
def test_a_published_folder_is_read_as_written(tmp_path, kind, dump):
    dataset = load_dataset(DataConfig(validation=0, path=str(write_cifar(tmp_path / "a", kind, dump))))
    np.testing.assert_array_equal(dataset.train.images, TRAIN)
    np.testing.assert_array_equal(dataset.test.images, TEST)
    np.testing.assert_array_equal(dataset.train.labels, np.arange(20) % 3)
    np.testing.assert_array_equal(dataset.test.labels, np.arange(6) % 3)
    assert dataset.train.labels.dtype == np.int32 and dataset.test_from == "source"
    assert dataset.classes == ("plane", "car", "bird")


@pytest.mark.parametrize("kind", KINDS)
def test_without_their_file_classes_are_named_by_the_name_or_the_label(tmp_path, kind):
    folder = write_cifar(tmp_path / "a", kind)
    for path in (*folder.glob("*meta*"), *folder.glob("*names*")):
        path.unlink()
    assert load_dataset(DataConfig(validation=0, path=str(folder))).classes == ("0", "1", "2")
    assert load_dataset(DataConfig(validation=0, name="cifar10", path=str(folder))).classes[9] == "truck"


def test_an_array_in_columns_is_read_as_numpy_reads_it(tmp_path):
    array = np.asfortranarray(planes(TEST))
    (tmp_path / "a").write_bytes(python2({b"data": array}))
    np.testing.assert_array_equal(read_pickle(tmp_path / "a")["data"], array)


class Calls:
    """Pickled, a call of `function`."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def hostile(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    calls = {
        "os.system": Calls(os.system, touch),
        "subprocess": Calls(subprocess.check_output, ["touch", str(marker)]),
        "eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "import": Calls(__import__, "os"),
        "numpy.load": Calls(np.load, str(marker)),
    }
    pickles = {name: pickle.dumps({b"data": call}, 2) for name, call in calls.items()}
    pickles |= {f"{name} alone": pickle.dumps(call, 0) for name, call in calls.items()}
    pickles["inst"] = b"(S'" + touch.encode() + b"'\nios\nsystem\n."
    pickles["stack global"] = (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch.encode() + b"\x85R."
    )
    pickles["dotted name"] = b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.tofile.x\x93."
    pickles["a name of numpy's"] = b"cnumpy.lib.npyio\nload\n(S'/etc/passwd'\ntR."
    pickles["extension"] = b"\x80\x02\x82\x01."
    pickles["persistent"] = b"Pos.system\n."
    pickles["objects in an array"] = pickle.dumps({b"data": np.array([calls["os.system"]], object)}, 2)
    pickles["a subclass"] = pickle.dumps({b"data": np.ma.masked_array([1])}, 2)
    pickles["wide numbers"] = python2({b"data": planes(TEST).astype(np.int64)})
    pickles["a lying shape"] = python2({b"data": planes(TEST)}).replace(b"M\x00\x0c", b"M\xff\x7f")
    return pickles


@pytest.mark.parametrize("kind", hostile(Path("/tmp/x")))
@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_hostile_pickle_is_one_line_and_runs_nothing(tmp_path, kind, name):
    folder = write_cifar(tmp_path / "a", "10 pickled")
    marker = tmp_path / "ran"
    (folder / name).write_bytes(hostile(marker)[kind])
    with pytest.raises(RequestError) as raised:
        load_dataset(DataConfig(validation=0, path=str(folder)))
    message = str(raised.value)
    assert message.startswith("data.path=") and name in message and "\n" not in message
    assert not marker.exists()


def test_the_hostile_pickles_are_hostile(tmp_path):
    for kind in ("os.system", "os.system alone", "subprocess", "eval", "inst", "stack global"):
        marker = tmp_path / kind.replace(" ", "-")
        pickle.loads(hostile(marker)[kind].replace(b"__builtin__", b"builtins"))
        assert marker.exists(), kind


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x3f.",  # LONG_BINPUT: a memo of 2**30 places
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc.",  # BINBYTES8
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"abc.",  # BYTEARRAY8
        b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"N.",  # FRAME
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # BINUNICODE
    ],
)
def test_a_pickle_that_promises_more_than_it_has_takes_no_memory(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(RequestError):
        read_pickle(tmp_path / "a")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def damage(folder: Path, kind: str) -> str:
    """Damages a folder in one way; returns what the message must name."""
    binary, pickled = folder / "data_batch_2.bin", folder / "data_batch_2"
    path = binary if binary.exists() else pickled
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "no test":
        (folder / path.name.replace("data_batch_2", "test_batch")).unlink()
        return "test_batch"
    elif kind == "label without a name":
        if path == binary:
            path.write_bytes(bytes([7]) + path.read_bytes()[1:])
        else:
            path.write_bytes(python2({b"labels": [7], b"data": planes(TEST[:1])}))
        return "training labels reach 7"
    elif kind == "bad names":
        if path == pickled:
            (folder / "batches.meta").write_bytes(python2({b"label_names": [1, 2]}))
        else:
            (folder / "batches.meta.txt").write_bytes(b"\xff\xfe")
        return "batches.meta"
    return "data_batch_2"


@pytest.mark.parametrize("published", ["10 pickled", "10 binary"])
@pytest.mark.parametrize("kind", ["cut", "empty", "missing", "no test", "label without a name", "bad names"])
def test_a_damaged_folder_is_one_line_that_names_the_file(tmp_path, published, kind):
    folder = write_cifar(tmp_path / "a", published)
    named = damage(folder, kind)
    with pytest.raises(RequestError) as raised:
        load_dataset(DataConfig(validation=0, path=str(folder)))
    message = str(raised.value)
    assert message.startswith("data.path=") and named in message and "\n" not in message


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        ({b"labels": [0]}, "data is NoneType"),
        ({b"labels": [0], b"data": TEST[:1]}, "data is [1, 32, 32, 3]"),
        ({b"labels": [0], b"data": [[0] * 3072]}, "data is list"),
        ({b"data": planes(TEST[:1])}, "labels is missing"),
        ({b"labels": [0, 1], b"data": planes(TEST[:1])}, "2 labels"),
        ({b"labels": [-1], b"data": planes(TEST[:1])}, "0..255"),
        ({b"labels": [2**70], b"data": planes(TEST[:1])}, "0..255"),
        ({b"labels": [[0]], b"data": planes(TEST[:1])}, "0..255"),
        ({b"labels": [], b"data": planes(TEST)[:0]}, "0 images"),
        ([1], "the pickle holds a list"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(tmp_path, batch, named):
    folder = write_cifar(tmp_path / "a", "10 pickled")
    (folder / "data_batch_3").write_bytes(python2(batch))
    with pytest.raises(RequestError) as raised:
        load_dataset(DataConfig(validation=0, path=str(folder)))
    assert named in str(raised.value) and "data_batch_3" in str(raised.value)


@given(
    cut=st.integers(0, 600),
    patch=st.binary(max_size=8),
    at=st.integers(0, 500),
    protocol=st.sampled_from([python2, python3]),
)
def test_no_damage_to_a_pickle_escapes_as_another_error(tmp_path_factory, cut, patch, at, protocol):
    content = bytearray(protocol({b"labels": [1, 2], b"data": TEST[:2, :4, :8, 0], b"names": [b"a"] * 20}))
    content[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("pickle") / "a"
    path.write_bytes(content if cut > 500 else content[:cut])
    try:
        assert isinstance(read_pickle(path), dict)
    except RequestError as error:
        assert "\n" not in str(error)
