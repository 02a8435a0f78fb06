"""A store in memory that fails when it is told to, and what tests do with runs in stores."""

import contextlib
import io
import itertools

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console

from cnnjax.commands import run
from cnnjax.runs import remote
from cnnjax.runs.run_dir import RunFolder
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress

numbers = itertools.count()


class Shaky(MemoryFileSystem):
    """A store in memory that calls a function, which may raise, before it is listed and before each change."""

    protocol = "shaky"
    cachable = False
    fault = staticmethod(lambda change: None)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("shaky://", "memory://"))

    def ls(self, path, **options):
        Shaky.fault(None)
        return super().ls(path, **options)

    def put_file(self, lpath, rpath, **options):
        Shaky.fault(rpath)
        super().put_file(lpath, rpath, **options)

    def rm_file(self, path):
        Shaky.fault(path)
        super().rm_file(path)

    def pipe_file(self, path, value, **options):
        Shaky.fault(path)
        super().pipe_file(path, value, **options)


fsspec.register_implementation("shaky", Shaky, clobber=True)


def elsewhere(monkeypatch, tmp_path):
    """From now on this is another machine."""
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / f"machine{next(numbers)}"))


@contextlib.contextmanager
def local_copy(url):
    """The local folder, and the progress with a console of its own."""
    with Progress(Console(file=io.StringIO(), width=1000)) as progress, remote.local_copy(url, progress) as folder:
        yield folder, progress


def said(progress):
    return progress._console.file.getvalue()


def train(study, url, **options):
    """Runs a study whose folder is in a store; returns what was said."""
    with local_copy(url) as (folder, progress):
        run.run(study, folder, progress=progress, **options)
    return said(progress)


def refused(function):
    with pytest.raises(RequestError) as error:
        function()
    assert "\n" not in str(error.value)
    return str(error.value)


def write_small_run(folder):
    folder.mkdir(parents=True)
    RunFolder(folder).write_json("config.json", {"select": "val_loss"})
    for name in ("checkpoints/p000/t0-t1/4/state", "metrics.jsonl", "trials.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("before")
