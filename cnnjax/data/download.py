"""The published archives of the data sets that can be prepared: where they are, what they hold."""

import contextlib
import dataclasses
import hashlib
import queue
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Split
from cnnjax.data.readers.cifar import TEST_BATCH, TRAIN_BATCHES, read_records
from cnnjax.data.readers.idx import read_idx
from cnnjax.utils.errors import RequestError

_TIMEOUT = 10  # seconds without a byte
_CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Archive:
    """A published file and the checksum its content must have."""

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[1]


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist"
_FASHION = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
PUBLISHED = {
    "cifar10": (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    "mnist": (
        Archive(
            f"{_MNIST}/train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        Archive(
            f"{_MNIST}/train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        Archive(
            f"{_MNIST}/t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        Archive(
            f"{_MNIST}/t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion_mnist": (
        Archive(
            f"{_FASHION}/train-images-idx3-ubyte.gz",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        Archive(
            f"{_FASHION}/train-labels-idx1-ubyte.gz",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        Archive(
            f"{_FASHION}/t10k-images-idx3-ubyte.gz",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        Archive(
            f"{_FASHION}/t10k-labels-idx1-ubyte.gz",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
}


def fetch(archive: Archive, folder: Path) -> None:
    """Downloads an archive into a folder.

    Raises:
        RequestError: no answer for 10 seconds, or any other failure of the network.
    """
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    bar = Progress(
        *Progress.get_default_columns(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with (folder / archive.file_name).open("wb") as file, bar:
        task = bar.add_task(archive.file_name, total=None)
        for chunk, total in _chunks(archive.url):
            file.write(chunk)
            bar.update(task, advance=len(chunk), total=total)


def _chunks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """Yields the content in pieces, each with the size of the whole where the server names it.

    A thread reads, because the socket's timeout does not cover the look-up of the host's name,
    which can hang for minutes without a network.
    """
    pieces: queue.Queue = queue.Queue(maxsize=16)
    stop = threading.Event()

    def put(piece: tuple[bytes, int | None] | Exception) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return pieces.put(piece, timeout=1)

    def read() -> None:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
                total = response.length
                while chunk := response.read(_CHUNK):
                    put((chunk, total))
            put((b"", None))
        except Exception as error:  # handed to the reader, which raises it
            put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            piece = pieces.get(timeout=_TIMEOUT)
            if isinstance(piece, Exception):
                raise _failed(url, str(piece)) from piece
            if not piece[0]:
                return
            yield piece
    except queue.Empty:
        raise _failed(url, f"no answer for {_TIMEOUT} seconds") from None
    finally:
        stop.set()


def _failed(url: str, why: str) -> RequestError:
    how = "must be a reachable address, or --archive_dir with the files already downloaded"
    return RequestError("download", url, f"{why}; {how}")


def verify(archive: Archive, folder: Path) -> None:
    """Checks that an archive is there and has the published content.

    Raises:
        RequestError: it is missing, or its checksum is another.
    """
    path = folder / archive.file_name
    if not path.is_file():
        raise RequestError("archive_dir", str(folder), f"it lacks {path.name}: get {archive.url}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise RequestError("archive", str(path), f"its sha256 is {found}; use {archive.sha256}")


def read_archives(name: str, folder: Path) -> dict[str, Split]:
    """Reads the train and test splits out of the archives of a data set, in the published order."""
    if name == "cifar10":
        path = folder / "cifar-10-binary.tar.gz"
        return {"train": _cifar(path, TRAIN_BATCHES), "test": _cifar(path, (TEST_BATCH,))}
    return {
        split: Split(
            read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)[..., None],
            read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1).astype(np.int32),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def _cifar(path: Path, batches: tuple[str, ...]) -> Split:
    with tarfile.open(path) as archive:
        files = [archive.extractfile(f"cifar-10-batches-bin/{batch}.bin") for batch in batches]
        return read_records(b"".join(file.read() for file in files if file is not None))
