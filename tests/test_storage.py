"""A run's folder in an object store: killed, moved to other machines, claimed twice, and stores that do not answer."""

import asyncio
import contextlib
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from conftest import make_study
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console
from runs import ROOT, WRITES, Crash, assert_no_line_twice, read_all, read_weights, run

import cnnjax
from cnnjax import checkpoints, runner, storage
from cnnjax import launch as launcher
from cnnjax.overrides import requested_study
from cnnjax.progress import Progress
from cnnjax.records import RunFolder
from cnnjax.storage import claim as claims
from cnnjax.storage import keeper, store
from cnnjax.storage.local import LocalCopy
from cnnjax.storage.store import Store
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


@pytest.fixture(autouse=True)
def soon(monkeypatch, tmp_path):
    """Everything that waits waits shortly, and the user's cache folder is the test's own."""
    monkeypatch.setattr(keeper, "EVERY", 0.05)
    monkeypatch.setattr(claims, "BEAT", 0.2)
    monkeypatch.setattr(claims, "SETTLE", 0.02)
    monkeypatch.setattr(Shaky, "fault", staticmethod(lambda: None))
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "here"))


@pytest.fixture
def url():
    return f"shaky://bucket/{next(numbers)}/run"


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


def test_a_path_is_the_folder_itself(tmp_path):
    with at_hand(tmp_path / "run") as (folder, said):
        assert folder == tmp_path / "run"
    assert said.getvalue() == "" and not (tmp_path / "here").exists()


# Runs


@pytest.mark.usefixtures("quick")
def test_a_run_in_a_store_is_that_of_a_folder_on_every_machine(url, monkeypatch, tmp_path):
    study = make_study(train={"epochs": (1, 2)})
    run(study, tmp_path / "local")
    assert "a new run" in train(study, url)
    assert read_all(fetched(url, monkeypatch, tmp_path)) == read_all(tmp_path / "local")
    assert read_weights(storage.copied(url)) == read_weights(tmp_path / "local")
    assert "is finished" in train(study, url)
    pixels = np.zeros((2, 8, 8, 1), np.uint8)
    one, other = (cnnjax.load_trial(place, "t0001").logits(pixels) for place in (url, tmp_path / "local"))
    np.testing.assert_array_equal(one, other)
    assert list(cnnjax.load_results(url).trial) == ["t0000", "t0001"]


def refused(function):
    with pytest.raises(RequestError) as error:
        function()
    assert "\n" not in str(error.value)
    return error.value


def train_pushing(study, url, place, monkeypatch, number, **options):
    """Trains, pushing before every write; the change of the store of that number does not happen, nor what follows."""
    copy, count = LocalCopy(Store(url), place), itertools.count()
    copy.look()

    def crash():
        if next(count) == number:
            raise Crash

    def push_before(cls, name):
        write = getattr(cls, name)

        def wrapped(self, *arguments, **named):
            copy.push(HELD)
            return write(self, *arguments, **named)

        patch.setattr(cls, name, wrapped)

    with monkeypatch.context() as patch:
        for name in WRITES:
            push_before(RunFolder, name)
        push_before(checkpoints.Checkpoints, "save")
        patch.setattr(Shaky, "fault", staticmethod(crash))
        try:
            run(study, copy.folder, **options)
            copy.push(HELD)
        except Crash:
            return None
    return next(count)


@pytest.mark.usefixtures("quick")
def test_a_kill_before_any_change_of_the_store_changes_nothing(url, monkeypatch, tmp_path):
    study = make_study(train={"epochs": (1, 2)})
    run(study, tmp_path / "local")
    expected, weights = read_all(tmp_path / "local"), read_weights(tmp_path / "local")
    changes = train_pushing(study, url, tmp_path / "place", monkeypatch, None)
    assert changes > 60
    kills = 0
    for number in range(0, changes, changes // 9):
        there = f"{url}{number}"
        kills += train_pushing(study, there, tmp_path / f"place{number}", monkeypatch, number) is None
        elsewhere(monkeypatch, tmp_path)
        train(study, there)
        assert read_all(storage.copied(there)) == expected, number
        assert read_weights(storage.copied(there)) == weights, number
    assert kills > 6  # states are saved in the background: not every run changes the store as often


@pytest.mark.usefixtures("quick")
def test_a_kill_while_another_study_overwrites_never_mixes_the_two(url, monkeypatch, tmp_path):
    before, after = make_study(train={"epochs": 1}), make_study(train={"epochs": 1}, seeds=(7,))
    for name, study in (("before", before), ("after", after)):
        run(study, tmp_path / name)
    outcomes = set()
    for number in (0, 6, 12, 20, 36, 52):
        there, place = f"{url}{number}", tmp_path / f"place{number}"
        train_pushing(before, there, place, monkeypatch, None)
        train_pushing(after, there, place, monkeypatch, number, overwrite=True)
        for study, name in ((after, "after"), (before, "before")):
            elsewhere(monkeypatch, tmp_path)
            try:
                train(study, there)
            except RequestError as error:
                assert "another study" in str(error)
            else:
                outcomes.add(name)
                assert read_all(storage.copied(there)) == read_all(tmp_path / name), number
    assert outcomes == {"before", "after"}


SOON = """
import runpy, sys
from cnnjax.storage import claim, keeper
keeper.EVERY, claim.BEAT, claim.SETTLE = 0.05, 0.3, 0.05
runpy.run_module("cnnjax.launch", run_name="__main__", alter_sys=True)
"""


def test_killed_again_and_again_on_one_machine_after_another(tmp_path):
    """Killed as soon as a file, or the folder of a state that is on its way, appears in the store."""
    overrides = ["models=baseline", "seeds=0,1,2", "data.train_examples=200", "checkpoint.every=1"]
    overrides += [f"train.{name}" for name in ("optimizer=adam", "learning_rate=0.001", "batch_size=50", "epochs=4,8")]
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(config=f"{ROOT}/configs/quickstart.py"):
        run(requested_study(overrides), tmp_path / "whole")
    there = tmp_path / "store/run"
    command = [sys.executable, "-c", SOON, f"--config={ROOT}/configs/quickstart.py", f"--workdir=file://{there}"]
    command += [f"--compilation_cache={tmp_path / 'xla'}", *(f"--config.{override}" for override in overrides)]

    def start(machine):
        environment = {**os.environ, "CNNJAX_CACHE": str(tmp_path / machine)}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **streams)

    for machine, awaited in (("one", "metrics.jsonl"), ("two", "checkpoints/*/*/[5-8]")):
        before, process = set(there.glob(awaited)), start(machine)
        while not set(there.glob(awaited)) - before and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
    process = start("one")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "gave no sign of life: going on in its place" in output and "files were fetched" in output
    assert read_all(there) == read_all(tmp_path / "whole")
    assert read_weights(storage.copied(f"file://{there}")) == read_weights(tmp_path / "whole")
    assert_no_line_twice(there)
    assert (there / "report/index.html").exists()


# What is pushed


def write_small_run(folder):
    RunFolder(folder).path.mkdir(parents=True, exist_ok=True)
    RunFolder(folder).write_json("config.json", {"select": "val_loss"})
    for name in ("checkpoints/p000/t0-t1/4/state", "metrics.jsonl", "trials.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("before")


def test_a_push_is_of_one_moment_however_long_it_takes(url, tmp_path, monkeypatch):
    copy = LocalCopy(Store(url), tmp_path / "place")
    write_small_run(copy.folder)

    def go_on():
        (copy.folder / "metrics.jsonl").open("a").write(" and after")
        (copy.folder / "trials.csv").write_text("after")
        shutil.rmtree(copy.folder / "checkpoints/p000/t0-t1/4", ignore_errors=True)

    monkeypatch.setattr(Shaky, "fault", staticmethod(go_on))
    copy.push(HELD)
    seen = fetched(url, monkeypatch, tmp_path)
    names = ("checkpoints/p000/t0-t1/4/state", "metrics.jsonl", "trials.csv")
    assert [(seen / name).read_text() for name in names] == ["before"] * 3
    copy.push(HELD)
    seen = fetched(url, monkeypatch, tmp_path)
    assert not (seen / names[0]).exists() and (seen / "trials.csv").read_text() == "after"


def test_what_is_not_the_runs_stays_where_it_is(url, tmp_path, monkeypatch):
    files = MemoryFileSystem()
    root = url.removeprefix("shaky://")
    copy = LocalCopy(Store(url), tmp_path / "place")
    write_small_run(copy.folder)
    for name in (".lock", "notes.txt", "checkpoints/p000/5.orbax-checkpoint-tmp/x", "predictions/.t0.npz.1.tmp"):
        (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / name).write_text("")
    files.pipe_file(f"{root}/notes.md", b"mine")
    files.pipe_file(f"{root}/checkpoints/../../escaped", b"")
    copy.look()
    copy.push(HELD)
    pushed = {name for name in Store(url).list() if "escaped" not in name}
    assert pushed == {*("notes.md", "config.json", "metrics.jsonl", "trials.csv", "checkpoints/p000/t0-t1/4/state")}
    assert {path.name for path in fetched(url, monkeypatch, tmp_path).iterdir()} == {
        *("config.json", "metrics.jsonl", "trials.csv", "checkpoints")
    }


def test_only_what_changed_is_pushed_or_fetched(url, tmp_path, monkeypatch):
    copy, changed = LocalCopy(Store(url), tmp_path / "place"), []
    write_small_run(copy.folder)
    copy.push(HELD)
    storage.copied(url)
    (copy.folder / "trials.csv").write_text("after")
    monkeypatch.setattr(Shaky, "fault", staticmethod(lambda: changed.append(1)))
    copy = LocalCopy(Store(url), tmp_path / "place")  # of another process
    copy.look()
    copy.push(HELD)
    copy.push(HELD)
    assert len(changed) == 2  # a file is put beside its place, and moved there
    place = next((tmp_path / "here/copies").iterdir())
    assert LocalCopy(Store(url), place).fetch() == 1
    assert LocalCopy(Store(url), place).fetch() == 0


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


def test_what_a_store_hangs_on_is_given_up_and_cancelled(monkeypatch, tmp_path):
    ends = []

    class Hanging(AsyncFileSystem):
        cachable = False

        async def _put_file(self, lpath, rpath, **options):
            try:
                await asyncio.sleep(60)
            finally:
                ends.append(rpath)

    fsspec.register_implementation("hanging", Hanging, clobber=True)
    monkeypatch.setattr(store, "ANSWER", 0.2)
    (tmp_path / "file").write_text("")
    with pytest.raises(TimeoutError, match="does not answer within"):
        Store("hanging://bucket/run").put(tmp_path / "file", "file")
    assert ends == ["bucket/run/file"]


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
