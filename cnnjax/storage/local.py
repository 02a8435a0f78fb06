"""A local folder, and what of it a store holds."""

import contextlib
import itertools
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from cnnjax.lock import LOCK
from cnnjax.records import RunFolder
from cnnjax.sealed import replaced, stamp
from cnnjax.storage.claim import Claim
from cnnjax.storage.store import Store, folder_name
from cnnjax.types import RequestError

_ATTEMPTS = 10  # to see a folder whose files come and go at one moment
_RECORD = ".copy.json"
_ORDER = {"config.json": 0, "metrics.jsonl": 2, "trials.csv": 3}  # in which files are pushed; all others are 1
_Stamp = list[int] | None


class LocalCopy:
    """The local folder of a run, and what the store holds of it.

    Args:
        store: that holds the run.
        place: the local folder of this copy; `folder` in it is the run's.
    """

    def __init__(self, store: Store, place: Path):
        self.store, self.folder = store, place / folder_name(store.url)
        self._record, self._aside = place / _RECORD, place / ".aside"
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
            self.id, self._marks, self._there = found["id"], dict(found["marks"]), dict(found["there"])
        except (OSError, ValueError, KeyError, TypeError):
            self.id, self._marks, self._there = secrets.token_hex(8), {}, {}
            self._write_record()

    @property
    def holds_run(self) -> bool:
        """Whether the local folder holds a run."""
        return (self.folder / "config.json").exists()

    def has_run(self) -> bool:
        """Whether the store holds a run; raises RequestError where it holds something else."""
        names = self.store.names()
        if "config.json" not in names and any(name and not name.startswith(".") for name in names):
            what = "it is not empty and holds no config.json"
            raise RequestError("workdir", self.store.url, f"{what}; allowed: a new or empty folder, or a run's own")
        return "config.json" in names

    def look(self) -> None:
        """Finds out what of the local folder the store holds: what it got from here, and what it still has."""
        self._there = {name: self._there.get(name) for name in self._listed()}

    def fetch(self, without: tuple[str, ...] = ()) -> int:
        """Makes the local folder what the store holds; returns how many files that took.

        Args:
            without: folders that are left out, wherever they are.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._fetch(without)
            except FileNotFoundError as error:  # who writes there has deleted it meanwhile
                gone = error
        raise gone

    def _fetch(self, without: tuple[str, ...]) -> int:
        listed = {name: mark for name, mark in self._listed().items() if not {*without} & {*PurePosixPath(name).parts}}
        for name in [*run_files(self.folder)]:
            if name not in listed:
                (self.folder / name).unlink()
        for path, _, _ in [*os.walk(self.folder, topdown=False)]:
            with contextlib.suppress(OSError):  # something is in it
                Path(path).rmdir()
        here = {name: _stamp(self.folder / name) for name in listed}
        new = [n for n in listed if here[n] is None or (self._marks.get(n), self._there.get(n)) != (listed[n], here[n])]
        self.store.each(lambda name: self.store.get(name, self.folder / name), new)
        self._marks, self._there = listed, {name: _stamp(self.folder / name) for name in listed}
        self._write_record()
        return len(new)

    def push(self, claim: Claim, is_over: Callable[[], bool] = lambda: False) -> None:
        """Makes the store what the local folder is.

        Args:
            claim: on the store.
            is_over: asked between files whether to leave the rest to a later push.

        Raises:
            RequestError: another launch has taken the claim.
            Exception: whatever the store's package raises; to push again is to go on.
        """
        config = _stamp(self.folder / "config.json")
        is_another = self._there.get("config.json") != config  # for it is written once in a run
        if is_another:
            self._there = dict.fromkeys(self._there)
        found = self._lay_aside()
        if config is None or found.get("config.json") != config:
            return

        def put(name: str) -> None:
            if is_over():
                return
            claim.check()
            self._there[name] = None  # it may be cut off
            self.store.put(self._aside / name, name)
            self._there[name] = found[name]

        def delete(name: str) -> None:
            if is_over():
                return
            claim.check()
            self.store.delete(name)
            del self._there[name]

        if is_another:
            self._each(delete, [*self._there], is_reversed=True)
            put("config.json")
            self._write_record()
        changed = [name for name in found if self._there.get(name) != found[name]]
        self._each(put, changed)
        self._each(delete, [name for name in self._there if name not in found], is_reversed=True)
        shutil.rmtree(self._aside, ignore_errors=True)
        if changed:
            self._write_record()

    def _each(self, function: Callable[[str], None], names: list[str], is_reversed: bool = False) -> None:
        names = sorted(names, key=_order, reverse=is_reversed)
        for _, group in itertools.groupby(names, _order):
            self.store.each(function, group)

    def _lay_aside(self) -> dict[str, _Stamp]:
        """Lays aside what has changed, as it is at one moment; returns every file, by what tells it from before.

        Nothing where there is no run, or no such moment was found.
        """
        for _ in range(_ATTEMPTS):
            shutil.rmtree(self._aside, ignore_errors=True)
            config, found = _stamp(self.folder / "config.json"), {}
            try:
                # A row comes after the state that it is of, and a state after its metrics.
                for kind in ("trials.csv", None, "metrics.jsonl"):
                    for name in run_files(self.folder):
                        file = PurePosixPath(name).name
                        if kind == (file if file in ("trials.csv", "metrics.jsonl") else None):
                            found[name] = self._take(name)
            except FileNotFoundError:  # it went before it was taken
                continue
            if found.get("config.json") == config == _stamp(self.folder / "config.json"):
                return found
        return {}

    def _take(self, name: str) -> _Stamp:
        file, aside = self.folder / name, self._aside / name
        if (mark := _stamp(file)) is None:
            raise FileNotFoundError(file)
        if mark == self._there.get(name):
            return mark
        aside.parent.mkdir(parents=True, exist_ok=True)
        if {"checkpoints", "predictions"} & {*PurePosixPath(name).parts}:  # replaced, and never written to again
            try:
                os.link(file, aside)
                return mark
            except FileNotFoundError:
                raise
            except OSError:
                pass  # no links here
        shutil.copyfile(file, aside)
        return mark

    def _listed(self) -> dict[str, str]:
        return {name: mark for name, mark in self.store.list().items() if _is_of_run(name)}

    def _write_record(self) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self._record) as file:
            file.write(json.dumps({"id": self.id, "marks": self._marks, "there": self._there}).encode())


def run_files(folder: Path) -> Iterator[str]:
    """The names of a run's files as they are now, but for what is on its way to be one."""
    for top in RunFolder.CONTENTS:
        if (folder / top).is_dir():
            for path, folders, files in os.walk(folder / top, onerror=_raise):
                folders[:] = [name for name in folders if not _is_on_its_way(name)]
                for file in sorted(files):
                    if not _is_on_its_way(file):
                        yield (Path(path) / file).relative_to(folder).as_posix()
        elif (folder / top).exists():
            yield top


def _raise(error: OSError) -> None:
    raise error


def _is_on_its_way(name: str) -> bool:
    return name == LOCK or name.endswith(".tmp") or "orbax-checkpoint-tmp" in name


def _is_of_run(name: str) -> bool:
    """Whether a file of the store is one of the run's, and nothing else that may lie beside it."""
    top, *rest = name.split("/")
    return top in RunFolder.CONTENTS and not {"", ".", ".."} & {*rest} and not any(map(_is_on_its_way, rest))


def _order(name: str) -> int:
    return _ORDER.get(PurePosixPath(name).name, 1)


def _stamp(file: Path) -> _Stamp:
    found = stamp(file)
    return None if found is None else list(found)
