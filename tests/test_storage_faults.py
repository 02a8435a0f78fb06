"""Stores that do not answer, launches that meet in one, and requests that no store can meet: one line each."""

import asyncio
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from absl import flags
from absl.testing import flagsaver
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from runs import ROOT
from stores import Shaky, at_hand, elsewhere, fetched, refused, wait_until, write_small_run

from cnnjax import launch as launcher
from cnnjax import storage
from cnnjax.storage import claim as claims
from cnnjax.storage import keeper, store
from cnnjax.storage.local import LocalCopy
from cnnjax.storage.store import Store

pytestmark = pytest.mark.usefixtures("soon")


# Stores that do not answer


def fail():
    raise ConnectionError("no route to host")


def test_a_store_that_stops_answering_stops_no_training(url, monkeypatch, tmp_path):
    with at_hand(url) as (folder, said):
        monkeypatch.setattr(Shaky, "fault", staticmethod(fail))
        write_small_run(folder)
        wait_until(lambda: "no route to host" in said.getvalue())
        time.sleep(0.3)
        monkeypatch.setattr(Shaky, "fault", staticmethod(lambda: None))
        wait_until(lambda: "takes what is new again" in said.getvalue())
        assert said.getvalue().count("no route to host") == 1
        assert "trials.csv" in Store(url).list()
    assert (fetched(url, monkeypatch, tmp_path) / "metrics.jsonl").read_text() == "before"


@pytest.mark.parametrize("way", ["put", "get"])
def test_what_a_store_hangs_on_is_given_up_and_cancelled(way, monkeypatch, tmp_path):
    ends = []

    async def hang(self, source, target, **options):
        try:
            await asyncio.sleep(60)
        finally:
            ends.append(str(source))

    class Hanging(AsyncFileSystem):
        cachable = False
        _put_file = _get_file = hang

    fsspec.register_implementation("hanging", Hanging, clobber=True)
    monkeypatch.setattr(store, "ANSWER", 0.2)
    file = tmp_path / "file"
    file.write_text("as before")
    it = Store("hanging://bucket/run")
    with pytest.raises(TimeoutError, match="does not answer within"):
        it.put(file, "file") if way == "put" else it.get("file", file)
    assert ends == [str(file) if way == "put" else "bucket/run/file"]
    assert file.read_text() == "as before" and list(tmp_path.iterdir()) == [file]


def test_what_a_store_did_not_take_at_the_end_is_pushed_by_the_same_command(url, monkeypatch, tmp_path):
    def session(change, fault):
        with at_hand(url) as (folder, said):
            if not folder.exists():
                write_small_run(folder)
            monkeypatch.setattr(keeper, "EVERY", 600.0)
            (folder / "trials.csv").write_text(change)
            monkeypatch.setattr(Shaky, "fault", staticmethod(fault))
        return said.getvalue()

    for change in ("first", "second"):  # before the store holds a run, and after
        error = str(refused(lambda change=change: session(change, fail)))
        assert "no route to host" in error and str(tmp_path / "here/runs") in error and "same command" in error
        monkeypatch.setattr(Shaky, "fault", staticmethod(lambda: None))
        with at_hand(url) as (folder, _):
            assert (folder / "trials.csv").read_text() == change
        assert (storage.copied(url) / "trials.csv").read_text() == change
    there = folder
    refused(lambda: session("lost", fail))
    monkeypatch.setattr(Shaky, "fault", staticmethod(lambda: None))
    with pytest.MonkeyPatch.context() as patch:  # another machine has gone on meanwhile
        elsewhere(patch, tmp_path)
        session("third", lambda: None)
    with at_hand(url) as (folder, said):
        assert folder == there and (folder / "trials.csv").read_text() == "third"
    assert "files were fetched" in said.getvalue()


def test_an_interrupted_run_is_pushed(url, monkeypatch):
    monkeypatch.setattr(keeper, "EVERY", 600.0)
    with pytest.raises(KeyboardInterrupt), at_hand(url) as (folder, said):
        write_small_run(folder)
        raise KeyboardInterrupt
    assert "trials.csv" in Store(url).list() and "pushing what is new" in said.getvalue()
    with pytest.raises(KeyboardInterrupt), at_hand(url) as (folder, said):
        (folder / "trials.csv").write_text("after")
        monkeypatch.setattr(Shaky, "fault", staticmethod(fail))
        raise KeyboardInterrupt
    assert "the same command pushes it" in said.getvalue()


# One launch at a time


def test_a_second_launch_is_refused_and_told_who_is_there(url, monkeypatch, tmp_path):
    with at_hand(url) as (folder, _):
        write_small_run(folder)
        line = str(refused(lambda: at_hand(url).__enter__()))  # on the same machine its folder is locked
        assert url in line and f"process {os.getpid()} on " in line
        with pytest.MonkeyPatch.context() as patch:
            elsewhere(patch, tmp_path)
            line = str(refused(lambda: at_hand(url).__enter__()))
            assert url in line and f"process {os.getpid()} on " in line and "works in it" in line
            assert not list((tmp_path).glob("machine*/runs/*/run"))
    elsewhere(monkeypatch, tmp_path)
    with at_hand(url) as (_, said):
        pass
    assert "sign of life" not in said.getvalue()


def test_the_claim_of_a_dead_launch_is_taken(url, tmp_path):
    claims.Claim(Store(url), "elsewhere").take(print)
    with at_hand(url) as (_, said):
        assert "watching whether" in said.getvalue() and "gave no sign of life" in said.getvalue()
    claims.Claim(Store(url), LocalCopy(Store(url), next((tmp_path / "here/runs").iterdir())).id).take(print)
    with at_hand(url) as (_, said):  # its folder is free, so nothing has to be waited for
        assert "watching" not in said.getvalue()


@pytest.fixture
def interruptible():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_launch_whose_claim_was_taken_ends_and_pushes_nothing(url, monkeypatch):
    def lose():
        with at_hand(url) as (folder, _):
            write_small_run(folder)
            wait_until(lambda: "trials.csv" in Store(url).list())
            claims.Claim(Store(url), "elsewhere")._write()
            (folder / "trials.csv").write_text("never pushed")
            threading.Event().wait(60)

    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr(claims.Claim, "check", lambda self: self.beat())
    assert "works in it" in str(refused(lose))
    assert Store(url).read("trials.csv") == b"before"


def test_of_two_that_claim_at_once_one_holds_it(url):
    one, other = (claims.Claim(Store(url), name) for name in ("one", "other"))
    one._write()
    other._write()
    other.beat()
    assert "works in it" in str(refused(one.check))


def test_a_store_that_hangs_holds_up_all_that_wait_for_it_once(url, monkeypatch):
    asked, claim = [], claims.Claim(Store(url), "here")

    def hang_and_fail():
        asked.append(1)
        time.sleep(0.3)
        fail()

    monkeypatch.setattr(Shaky, "fault", staticmethod(hang_and_fail))
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(claim.check) for _ in range(8)]
    assert all(isinstance(call.exception(), ConnectionError) for call in calls)
    assert len(asked) == 1


# Wrong requests


def hang():
    time.sleep(2)


@pytest.mark.parametrize(
    ("wrong", "fault", "words"),
    [
        ("nowhere://bucket/run", None, ["Protocol not known: nowhere"]),
        ("wandb://bucket/run", None, ["wandb"]),
        ("shaky://", None, ["names no folder"]),
        ("shaky://other/run", None, ["no config.json", "a new or empty folder"]),
        ("shaky://down/run", fail, ["no route to host"]),
        ("shaky://slow/run", hang, ["does not answer within 0 seconds"]),
    ],
)
def test_a_wrong_url_is_one_line(wrong, fault, words, monkeypatch):
    MemoryFileSystem().pipe_file("/other/run/thesis.tex", b"")
    monkeypatch.setattr(store, "ANSWER", 0.3)
    if fault is not None:
        monkeypatch.setattr(Shaky, "fault", staticmethod(fault))
    line = str(refused(lambda: at_hand(wrong).__enter__()))
    assert line.startswith(f"workdir: '{wrong}'") and all(word in line for word in words), line


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert "pip install s3fs" in str(refused(lambda: Store("s3://bucket/run")))


def test_a_store_that_may_only_be_read_is_one_line(tmp_path):
    (tmp_path / "a file").write_text("")
    line = str(refused(lambda: at_hand(f"file://{tmp_path}/a file/run").__enter__()))
    assert "a store to read and write" in line


@pytest.mark.parametrize("flag", [{"coordinator": "host:1"}, {"executor": "ray"}])
def test_many_machines_share_a_folder_not_a_store(flag):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(config=f"{ROOT}/configs/quickstart.py", workdir="s3://bucket/run", **flag):
        line = str(refused(lambda: launcher.main([])))
    assert "s3://bucket/run" in line and f"--{next(iter(flag))}" in line
