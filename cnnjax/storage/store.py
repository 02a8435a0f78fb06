"""A folder of an object store, through fsspec."""

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from cnnjax.types import RequestError

ANSWER = 60.0  # seconds in which a store has to answer
SLOWEST = 1e5  # bytes per second, at which a file may take longer
_THREADS = 8

_Result = TypeVar("_Result")


def is_url(workdir: str | Path) -> bool:
    """Whether a run's folder is in a store: `s3://bucket/runs/grid`, or of any other protocol that fsspec knows."""
    return "://" in str(workdir)


def said(error: BaseException) -> str:
    """What a store's package, or the operating system, says of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


class Store:
    """A folder of an object store. Its files are named by their paths in it.

    Args:
        url: of the folder.

    Raises:
        RequestError: there is no such protocol, its package is not installed, or it does not connect.
    """

    def __init__(self, url: str):
        self.url = url
        self._files, root = self.ask(self._connect)
        self._root = root.rstrip("/")
        if not self._root.strip("/"):
            raise RequestError("workdir", url, "it names no folder; allowed: a URL such as s3://BUCKET/runs/grid")
        # fsspec's object stores are the asynchronous ones: a file is there when it is whole, and a folder need not be
        # made (they would make a bucket). Elsewhere files grow while they are written, in folders that are there.
        self._is_whole = self._files.async_impl
        self._sizes: dict[str, int] = {}  # of the files that were listed

    def ask(self, function: Callable[[], _Result]) -> _Result:
        """Returns what a function returns that asks the store for something.

        Raises:
            RequestError: it failed, or there is no answer within ANSWER seconds.
        """
        outcome: list[Any] = []

        def answer() -> None:
            try:
                outcome.extend([function(), None])
            except Exception as error:  # a store's package can raise anything
                outcome.extend([None, error])

        thread = threading.Thread(target=answer, daemon=True)  # one that hangs does not hold up the end
        thread.start()
        thread.join(ANSWER)
        if not outcome:
            raise RequestError("workdir", self.url, f"it does not answer within {ANSWER:.0f} seconds")
        result, error = outcome
        if isinstance(error, RequestError):
            raise error
        if error is not None:
            allowed = "allowed: a folder, or a URL of a store to read and write"
            raise RequestError("workdir", self.url, f"{said(error)}; {allowed}") from error
        return result

    def _connect(self) -> tuple[Any, str]:
        import fsspec
        from fsspec.registry import known_implementations

        try:
            return fsspec.url_to_fs(self.url)
        except ImportError as error:
            protocol = re.split("::|://", self.url)[0]
            package = known_implementations.get(protocol, {}).get("class", protocol).partition(".")[0]
            raise RequestError("workdir", self.url, f"{error} (pip install {package})") from error

    def names(self) -> list[str]:
        """Returns what stands directly in the folder, sorted; nothing where there is no folder."""
        self._files.invalidate_cache()
        try:
            return sorted(self._name(path) for path in self._call("ls", self._root, detail=False))
        except FileNotFoundError:
            return []

    def list(self) -> dict[str, str]:
        """Returns every file, and what tells it from what it was before."""
        from fsspec.utils import tokenize

        self._files.invalidate_cache()
        found = self._call("find", self._root, detail=True)
        named = {self._name(path): info for path, info in found.items()}
        self._sizes = {name: info.get("size") or 0 for name, info in named.items()}
        return {name: tokenize(info) for name, info in named.items()}

    def read(self, name: str) -> bytes | None:
        """Returns what a small file holds; None where there is none."""
        try:
            return self._call("cat_file", self._path(name))
        except FileNotFoundError:
            return None

    def get(self, name: str, target: Path) -> None:
        """Copies a file of the store into a local one, which is whole or not there."""
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            self._call("get_file", self._path(name), str(beside), size=self._sizes.get(name, 0))
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)

    def put(self, source: Path, name: str) -> None:
        """Copies a local file into the store, whole or not at all."""
        path = self._path(name)
        if self._is_whole:
            self._call("put_file", str(source), path, size=source.stat().st_size)
            return
        folder, file = path.rpartition("/")[::2]
        self._files.makedirs(folder, exist_ok=True)
        beside = f"{folder}/.{file}.tmp"
        self._files.put_file(str(source), beside)
        self._files.mv(beside, path)

    def delete(self, name: str) -> None:
        """Deletes a file; that there is none is as well."""
        with contextlib.suppress(FileNotFoundError):
            self._call("rm_file", self._path(name))

    def each(self, function: Callable[[str], Any], names: Iterable[str]) -> None:
        """Calls a function with every name, several at once where the store can; raises what one raised."""
        with ThreadPoolExecutor(_THREADS if self._is_whole else 1) as pool:
            calls = [pool.submit(function, name) for name in names]
            try:
                wait(calls, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        for call in calls:
            if not call.cancelled():
                call.result()

    def _call(self, name: str, *arguments: Any, size: int = 0, **named: Any) -> Any:
        """Calls a method of the store's package, which itself tries for many minutes; gives it up after ANSWER seconds.

        What is given up is cancelled, so that no old content comes after new. Packages that are not asynchronous have
        nothing to cancel, and take their time.
        """
        if not self._is_whole:
            return getattr(self._files, name)(*arguments, **named)
        from fsspec.asyn import sync

        async def answer() -> Any:
            async with asyncio.timeout(ANSWER + size / SLOWEST):
                return await getattr(self._files, f"_{name}")(*arguments, **named)

        try:
            return sync(self._files.loop, answer)
        except TimeoutError as error:
            raise TimeoutError(f"it does not answer within {ANSWER:.0f} seconds") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _name(self, path: str) -> str:
        return str(path).removeprefix(self._root).strip("/")


def folder_name(url: str) -> str:
    """Returns the last part of a URL, as a name of a local folder."""
    return re.sub(r"[^\w.-]", "_", PurePosixPath(url.partition("://")[2]).name).strip(".") or "run"
