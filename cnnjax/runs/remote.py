"""Runs in object stores, by fsspec: fetched into a local folder, pushed at checkpoints and at the end.

The store's file `.push` contains a token, which each push replaces. A push is refused if the token is not the one that
this launch fetched or wrote last: another launch has pushed since. During a push, the token ends with a plus sign.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cnnjax.runs.lock import LOCK, locked
from cnnjax.runs.run_dir import NO_RUN, RunFolder
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import cache_folder, expanded
from cnnjax.utils.progress import Progress

LARGE = ("checkpoints", "profile", "jobs")  # folders that commands which read only results do not fetch
_ANSWER = 60  # seconds until a store must have answered the first request
_SILENT = 2.0  # seconds before a note shows a long operation
_REST = 9.0  # least ratio of the time until the next push to the time of the last push
_ALLOWED = "; use a folder, or the URL of a store that can be read and written"
_TICK = 0.05  # seconds; more than the resolution of a file system's times
# Files are pushed in this order (all others as 1) and deleted in reverse order. The store is therefore readable at any
# instant: config.json makes a run, a checkpoint counts if its metadata exists, metrics and rows need checkpoints.
_CHECKPOINT = re.compile(r"(?:.*/)?checkpoints/[^/]+/[^/]+/\d+/")
_ORDER = {"config.json": 0, "metadata": 2, "metrics.jsonl": 3, "trials.jsonl": 4, "trials.csv": 4}


class _Refused(RequestError):
    """Another launch has pushed to the store."""


def is_url(workdir: str | Path) -> bool:
    """Returns whether a run's folder is the URL of a store, such as `s3://bucket/runs/grid`."""
    return "://" in str(workdir)


@contextlib.contextmanager
def local_copy(workdir: str | Path, progress: Progress) -> Iterator[Path]:
    """Fetches a run into a local folder, yields the folder, and pushes it at checkpoints and at the end.

    The last push happens even if the block raises. A local path is yielded without fetch and push.

    Args:
        workdir: the run's folder, or its URL.
        progress: shows notes. Its `on_checkpoint` is set.

    Raises:
        RequestError: the store cannot be used, the last push fails, or another launch has pushed.
    """
    if not is_url(workdir):
        yield expanded("workdir", workdir)
        return
    with _opened(workdir, "runs", progress) as copy:
        progress.note(f"the local folder of {copy.url} is {copy.folder}: {copy.begin()}")
        progress.on_checkpoint = copy.push_at_checkpoint
        try:
            yield copy.folder
        except BaseException:
            copy.push_at_checkpoint(is_end=True)
            raise
        copy.push()


def copied(workdir: str | Path, without: tuple[str, ...] = ()) -> Path:
    """Returns a local folder from which to read a run. The run of a URL is fetched.

    Args:
        workdir: the run's folder, or its URL.
        without: names of folders not to fetch.

    Raises:
        RequestError: the store does not answer, or holds no run.
    """
    if not is_url(workdir):
        return expanded("workdir", workdir)
    with _opened(workdir, "copies", Progress(), patience=600.0) as copy:
        if not copy.has_run:
            raise RequestError("workdir", copy.url, "must be the folder of a run (with config.json)")
        copy.fetch(without)
    return copy.folder


def upload(workdir: str | Path, name: str) -> None:
    """Pushes the subfolder `name` of the local folder of `copied`. Raises RequestError if that fails."""
    with _opened(workdir, "copies", Progress(), patience=600.0) as copy, copy.doing("pushing to"):
        copy.put(file for file in copy.files() if file.startswith(f"{name}/"))


def reads(function: Callable[..., Any], without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Wraps a function whose first argument is a run's folder: the argument may be a URL."""

    @functools.wraps(function)
    def read(workdir: str | Path, *arguments: Any, **named: Any) -> Any:
        return function(copied(workdir, without), *arguments, **named)

    return read


@contextlib.contextmanager
def _opened(workdir: str | Path, kind: str, progress: Progress, patience: float = 0.0) -> "Iterator[_Copy]":
    url = str(workdir)
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(url.partition("://")[2]).name).strip(".") or "run"
    place = cache_folder() / kind / f"{name}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]}"
    place.mkdir(parents=True, exist_ok=True)
    with locked(place, patience=patience, name=url):
        yield _Copy(url, place / name, progress)


class _Copy:
    """The local folder of a run in a store.

    The file .seen next to the folder contains the token of the last fetch or push, and has its time. The file .pushing
    contains the token of an unfinished push.
    """

    def __init__(self, url: str, folder: Path, progress: Progress):
        self.url, self.folder, self._progress, self._next_push = url, folder, progress, 0.0
        self._seen, self._pushing = folder.parent / ".seen", folder.parent / ".pushing"
        with self.doing("connecting to", _ALLOWED):
            self.has_run = self._connect()

    def _connect(self) -> bool:
        import fsspec
        from fsspec.asyn import sync

        fs, root = fsspec.url_to_fs(self.url)  # its ImportError says what to install
        if not root.strip("/"):
            raise RequestError("workdir", self.url, "it names no folder; use a URL such as s3://BUCKET/runs/grid")
        fs.auto_mkdir = True  # for file://; object stores have no folders
        fs.invalidate_cache()
        self._fs, names = fsspec.filesystem("dir", path=root, fs=fs), set()
        with contextlib.suppress(FileNotFoundError):
            ls = functools.partial(sync, fs.loop, fs._ls, timeout=_ANSWER) if fs.async_impl else fs.ls
            names = {PurePosixPath(path).name for path in ls(root, detail=False)}
        if "config.json" not in names and any(not name.startswith(".") for name in names):
            raise RequestError("workdir", self.url, NO_RUN)
        return "config.json" in names

    def begin(self) -> str:
        """Fetches the run, unless the local folder is up to date or ahead. Returns what was done, as text."""
        is_here = (self.folder / "config.json").exists()
        with self.doing("writing to", _ALLOWED):
            token = self._token()
            if not self.has_run:  # fails before training if the store cannot be written
                self._fs.pipe_file(".push", token.encode())
                self._seen.write_text(token)
                os.utime(self._seen, (0, 0))  # every local file is newer
                return "the store will get its run" if is_here else "a new run"
        if is_here and token and token in self._ours():
            return "it is up to date or ahead of the store"
        if is_here and self._seen.exists() and self._changed():
            kept = self.folder.with_name(f"{self.folder.name}-unpushed-{time.strftime('%Y%m%d-%H%M%S')}")
            self.folder.rename(kept)
            self._progress.note(f"another launch has pushed to {self.url}; the unpushed local run is kept in {kept}")
        self.fetch()
        return "the run was fetched"

    def fetch(self, without: tuple[str, ...] = ()) -> None:
        """Makes the local folder equal to the store, except for folders named in `without`."""
        with self.doing("fetching from"):
            for attempt in range(10):
                if not (token := self._token()) or token not in self._ours():
                    shutil.rmtree(self.folder, ignore_errors=True)
                self._seen.unlink(missing_ok=True)
                here = self.files()
                there = _wanted(self._listed(), without)
                new = [name for name, size in there.items() if name not in here or here[name].st_size != size]
                try:
                    self._fs.get(new, [str(self.folder / name) for name in new])
                    break
                except FileNotFoundError:  # a concurrent push has deleted it
                    if attempt == 9:
                        raise
            time.sleep(_TICK)
            self._seen.write_text(token)

    def push_at_checkpoint(self, is_end: bool = False) -> None:
        """Pushes changes, unless a slow push was recent. A failed push is noted and does not stop training."""
        if (start := time.monotonic()) < self._next_push and not is_end:
            return
        try:
            self.push()
        except _Refused:
            raise
        except RequestError as error:
            self._progress.note(str(error))
        self._next_push = time.monotonic() + _REST * (time.monotonic() - start)

    def push(self) -> None:
        """Pushes changes. Raises RequestError if that fails, or if another launch has pushed."""
        here = self.files()
        if "config.json" not in here:
            return
        with self.doing("pushing to", f"; {self.folder} holds the run: run the same command again to push it"):
            self._check(self._ours())
            there = self._listed()
            new = self._changed() | {name for name in here if here[name].st_size != there.get(name)}
            if not new and here.keys() == there.keys():
                return
            token = secrets.token_hex(8)
            time.sleep(_TICK)
            self._pushing.write_text(token)
            self._fs.pipe_file(".push", f"{token}+".encode())
            if "config.json" in new:  # config.json never changes: the store holds another run or none
                self._delete(there.keys() - {"config.json"})
                new, there = {*here}, {}
            self.put(new)
            self._delete(there.keys() - here.keys())
            self._fs.pipe_file(".push", token.encode())
            self._check({token})
            self._pushing.replace(self._seen)

    def put(self, names: Iterable[str]) -> None:
        """Copies local files into the store."""
        for _, group in itertools.groupby(sorted(names, key=_order), _order):
            batch = [*group]
            self._fs.put([str(self.folder / name) for name in batch], batch)

    def _delete(self, names: Iterable[str]) -> None:
        for name in sorted(names, key=_order, reverse=True):
            self._fs.rm_file(name)

    def files(self) -> dict[str, os.stat_result]:
        """Returns the run's local files."""
        found = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        return {name: path.stat() for name, path in found.items() if _is_of_run(name)}

    def _changed(self) -> set[str]:
        since = self._seen.stat().st_mtime_ns if self._seen.exists() else 0
        return {name for name, stat in self.files().items() if stat.st_mtime_ns >= since}

    def _listed(self) -> dict[str, int]:
        self._fs.invalidate_cache()
        return {name: info["size"] for name, info in self._fs.find("", detail=True).items() if _is_of_run(name)}

    def _token(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self._fs.cat_file(".push").decode()
        return ""

    def _ours(self) -> set[str]:
        tokens = {file.read_text() for file in (self._seen, self._pushing) if file.exists()}
        return tokens | {f"{token}+" for token in tokens}

    def _check(self, tokens: set[str]) -> None:
        if self._token() not in tokens:
            how = f"{self.folder} holds this run and can be a --workdir; the same command resumes the store's run"
            raise _Refused("workdir", self.url, f"another launch has pushed to it since the last fetch; {how}")

    @contextlib.contextmanager
    def doing(self, what: str, cure: str = "") -> Iterator[None]:
        """Notes a long operation, and turns exceptions of the store's package into a RequestError."""
        timer = threading.Timer(_SILENT, self._progress.note, [f"{what} {self.url}"])
        timer.daemon = True
        timer.start()
        try:
            yield
        except RequestError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            raise RequestError("workdir", self.url, f"{what} the store failed ({said}){cure}") from error
        finally:
            timer.cancel()


def _is_of_run(name: str) -> bool:
    """Returns whether a file belongs to the run and is not temporary."""
    top, *rest = name.split("/")
    is_temporary = any(part == LOCK or part.endswith(".tmp") or "orbax-checkpoint-tmp" in part for part in rest)
    return top in RunFolder.CONTENTS and not is_temporary and not {"", ".", ".."} & {*rest}


def _wanted(files: dict[str, int], without: tuple[str, ...]) -> dict[str, int]:
    """Returns the files to fetch: none in folders named in `without`, and none of incomplete checkpoints."""
    found = {name: _CHECKPOINT.match(name) for name in files if not {*without} & {*name.split("/")}}
    return {name: files[name] for name, step in found.items() if not step or f"{step[0]}meta/metadata" in files}


def _order(name: str) -> int:
    return _ORDER.get(PurePosixPath(name).name, 1)
