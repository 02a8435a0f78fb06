"""A run whose folder is in object storage: it is worked on in a local folder, of which the store keeps a copy.

A store has no appends, renames or locks. So a run never works in it: every 30 seconds, and at the end, what has changed
in the local folder is pushed. The store says which local folder has changed it last: that one is as far as the store,
or further, and stays; any other is made equal to it. So a kill loses what happened since the last push, and that only
where the next launch is on another machine.

What is pushed is one moment of the run, laid aside by hard links and copies before the first byte goes out. A push that
is cut off leaves files of two moments, in an order that makes it what a kill of the run itself could have left: a state
before the metrics and rows that rest on it, and nothing deleted before all that is new is there.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from cnnjax.environment import cache_folder
from cnnjax.lock import locked
from cnnjax.paths import expanded
from cnnjax.progress import Progress
from cnnjax.storage.claim import Claim
from cnnjax.storage.keeper import Keeper
from cnnjax.storage.local import LocalCopy, run_files
from cnnjax.storage.store import Store, folder_name, is_url, said
from cnnjax.types import RequestError

LARGE = ("checkpoints", "profile", "jobs")  # what needs to be fetched by none who only reads results
_Result = TypeVar("_Result")


@contextlib.contextmanager
def at_hand(workdir: str | Path, progress: Progress) -> Iterator[Path]:
    """Keeps a run at hand in a local folder while the block runs, and a copy of it in the store.

    Args:
        workdir: the run's folder: a path, which is the local folder and all there is; or a URL of a store.
        progress: told where the local folder is, and when the store does not answer.

    Yields:
        The local folder.

    Raises:
        RequestError: the store cannot be used, another launch works in it or has taken it, or it did not take the last
            of the run, which then is in the local folder.
    """
    if not is_url(workdir):
        yield expanded("workdir", workdir)
        return
    url, place = str(workdir), _place("runs", str(workdir))
    store = Store(url)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place, name=url):
        copy = LocalCopy(store, place)
        has_run = store.ask(copy.has_run)
        claim = Claim(store, copy.id)
        claim.take(progress.note)
        try:
            progress.note(f"{url} is worked on in {copy.folder}, {_bring(copy, claim, has_run)}")
            yield from _kept(copy, claim, progress)
        finally:
            with contextlib.suppress(Exception):  # else who comes next waits for a sign of life, in vain
                store.ask(claim.release)


def _bring(copy: LocalCopy, claim: Claim, has_run: bool) -> str:
    """Brings the local folder to where the run is; returns what was done."""
    if has_run and not (claim.writer == copy.id and copy.holds_run):
        return f"where {_fetch(copy):,} files were fetched"
    copy.store.ask(copy.look)
    if not copy.holds_run:
        return "a new run"
    return "which is as far, or further" if has_run else "whose run it gets, for it holds none"


def _fetch(copy: LocalCopy, without: tuple[str, ...] = ()) -> int:
    try:
        return copy.fetch(without)
    except Exception as error:  # a store's package can raise anything
        raise RequestError("workdir", copy.store.url, f"it could not be fetched ({said(error)})") from error


def _kept(copy: LocalCopy, claim: Claim, progress: Progress) -> Iterator[Path]:
    keeper = Keeper(copy, claim, progress)
    try:
        yield copy.folder
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and keeper.lost is None:
            progress.note(f"pushing what is new to {copy.store.url}")
        failed = keeper.end()
        if keeper.lost is not None and isinstance(error, KeyboardInterrupt):
            raise keeper.lost from None
        if failed is not None:
            progress.note(str(failed))
        raise
    if (failed := keeper.end()) is not None:
        raise failed


def copied(workdir: str | Path, without: tuple[str, ...] = ()) -> Path:
    """Returns a local folder to read a run in: the run's own or, of a URL, a copy that is made what the store holds.

    Args:
        workdir: the run's folder, or a URL.
        without: folders that are not needed.

    Raises:
        RequestError: the store does not answer, or holds no run.
    """
    if not is_url(workdir):
        return expanded("workdir", workdir)
    url, place = str(workdir), _place("copies", str(workdir))
    store = Store(url)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place, patience=600.0, name=url):
        copy = LocalCopy(store, place)
        if not store.ask(copy.has_run):
            raise RequestError("workdir", url, "allowed: a run's folder (with config.json)")
        _fetch(copy, without)
    return copy.folder


def put_back(workdir: str | Path, name: str) -> None:
    """Copies a folder that was written anew in what `copied` returned into the store.

    Raises:
        RequestError: the store does not take it.
    """
    url = str(workdir)
    store, folder = Store(url), _place("copies", url) / folder_name(url)
    files = [file for file in run_files(folder) if PurePosixPath(file).parts[0] == name]
    try:
        store.each(lambda file: store.put(folder / file, file), files)
    except Exception as error:  # a store's package can raise anything
        raise RequestError("workdir", url, f"it does not take {folder / name} ({said(error)})") from error


def reads(function: Callable[..., _Result], without: tuple[str, ...] = ()) -> Callable[..., _Result]:
    """Returns a function whose first argument, a run's folder, may be a URL too."""

    @functools.wraps(function)
    def read(workdir: str | Path, *arguments: Any, **named: Any) -> _Result:
        return function(copied(workdir, without), *arguments, **named)

    return read


def _place(kind: str, url: str) -> Path:
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()
    return cache_folder() / kind / f"{folder_name(url)}-{digest[:12]}"
