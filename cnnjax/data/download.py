"""Downloads, verifies and reads the published archives of data sets."""

import dataclasses
import hashlib
import http.client
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
_CHUNK = 1 << 18  # bytes
_CIFAR10 = "cifar-10-binary.tar.gz"
_IDX = tuple(f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


@dataclasses.dataclass(frozen=True)
class Archive:
    """The URL of a published file, and the SHA-256 of its content."""

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[1]


def _idx_archives(url: str, *sha256: str) -> tuple[Archive, ...]:
    return tuple(Archive(f"{url}/{name}", each) for name, each in zip(_IDX, sha256, strict=True))


PUBLISHED = {
    "cifar10": (
        Archive(
            f"https://www.cs.toronto.edu/~kriz/{_CIFAR10}",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    "mnist": _idx_archives(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion_mnist": _idx_archives(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}


def fetch(archive: Archive, folder: Path) -> None:
    """Downloads an archive into a folder.

    Raises:
        RequestError: the download fails, or the server sends nothing for 10 seconds.
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
    """Yields the content in chunks, each with the total size if the server sends it."""
    answers: queue.Queue = queue.Queue()

    def request() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_TIMEOUT))
        except Exception as error:  # raised below
            answers.put(error)

    # In a thread: the timeout of a socket does not cover the host name's lookup, which can hang without a network.
    threading.Thread(target=request, daemon=True).start()
    try:
        response = answers.get(timeout=_TIMEOUT)
        if isinstance(response, Exception):
            raise response
        with response:
            total = response.length
            while chunk := response.read(_CHUNK):
                yield chunk, total
    except (queue.Empty, OSError, ValueError, http.client.HTTPException) as error:
        timed_out = isinstance(error, queue.Empty | TimeoutError)
        problem = f"no answer for {_TIMEOUT} seconds" if timed_out else str(error)
        advice = "use --archive_dir with the archives if they cannot be downloaded here"
        raise RequestError("download", url, f"{problem}; {advice}") from error


def verify(archive: Archive, folder: Path) -> None:
    """Compares an archive with its published checksum.

    Raises:
        RequestError: the archive is missing, or its checksum differs.
    """
    path = folder / archive.file_name
    if not path.is_file():
        raise RequestError("archive_dir", str(folder), f"the folder lacks {path.name}; get {archive.url}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        problem = f"its sha256 is {found}, but the published one is {archive.sha256}"
        raise RequestError("archive", str(path), f"{problem}; get {archive.url}")


def read_archives(name: str, folder: Path) -> dict[str, Split]:
    """Reads the train and test splits of a data set from its archives, in the published order."""
    if name == "cifar10":
        return {"train": _cifar(folder / _CIFAR10, TRAIN_BATCHES), "test": _cifar(folder / _CIFAR10, (TEST_BATCH,))}
    splits = []
    for images, labels in (_IDX[:2], _IDX[2:]):
        splits.append(Split(read_idx(folder / images, 3)[..., None], read_idx(folder / labels, 1).astype(np.int32)))
    return dict(zip(("train", "test"), splits, strict=True))


def _cifar(path: Path, batches: tuple[str, ...]) -> Split:
    with tarfile.open(path) as archive:
        files = [archive.extractfile(f"cifar-10-batches-bin/{batch}.bin") for batch in batches]
        return read_records(b"".join(file.read() for file in files if file is not None))
