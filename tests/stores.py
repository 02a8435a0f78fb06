"""A store in memory that fails when it is told to, and what tests do with runs in stores."""

import contextlib
import io
import itertools
import time
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console

from cnnjax import runner, storage
from cnnjax.progress import Progress
from cnnjax.records import RunFolder
from cnnjax.types import RequestError

HELD = SimpleNamespace(check=lambda: None)  # a claim that nobody takes
numbers = itertools.count()


class Shaky(MemoryFileSystem):
    """A store in memory that fails, or hangs, or calls a function before each change."""

    protocol = "shaky"
    cachable = False
    fault = staticmethod(lambda: None)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("shaky://", "memory://"))

    def put_file(self, lpath, rpath, **options):
        Shaky.fault()
        super().put_file(lpath, rpath, **options)

    def rm_file(self, path):
        Shaky.fault()
        super().rm_file(path)

    def cat_file(self, path, **options):
        Shaky.fault()
        return super().cat_file(path, **options)


fsspec.register_implementation("shaky", Shaky, clobber=True)


def elsewhere(monkeypatch, tmp_path):
    """From now on this is another machine."""
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / f"machine{next(numbers)}"))


@contextlib.contextmanager
def at_hand(url):
    """The local folder, and what is said."""
    console = Console(file=io.StringIO(), width=1000)
    with Progress(console) as progress, storage.at_hand(url, progress) as folder:
        yield folder, console.file


def train(study, url, **options):
    """Runs a study whose folder is in a store; returns what was said."""
    with at_hand(url) as (folder, said), Progress(Console(file=said, width=1000)) as progress:
        runner.run(study, folder, progress=progress, **options)
    return said.getvalue()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fetched(url, monkeypatch, tmp_path):
    """What the store holds, as another machine sees it."""
    elsewhere(monkeypatch, tmp_path)
    return storage.copied(url)


def refused(function):
    with pytest.raises(RequestError) as error:
        function()
    assert "\n" not in str(error.value)
    return error.value


def write_small_run(folder):
    RunFolder(folder).path.mkdir(parents=True, exist_ok=True)
    RunFolder(folder).write_json("config.json", {"select": "val_loss"})
    for name in ("checkpoints/p000/t0-t1/4/state", "metrics.jsonl", "trials.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("before")
