"""A run's folder in an object store: the numbers of one in a folder, killed, and moved to other machines."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from conftest import make_study
from fsspec.implementations.memory import MemoryFileSystem
from runs import ROOT, WRITES, Crash, assert_no_line_twice, read_all, read_weights, run
from stores import HELD, Shaky, at_hand, elsewhere, fetched, train, write_small_run

import cnnjax
from cnnjax import checkpoints, storage
from cnnjax.overrides import requested_study
from cnnjax.records import RunFolder
from cnnjax.storage.local import LocalCopy
from cnnjax.storage.store import Store
from cnnjax.types import RequestError

pytestmark = pytest.mark.usefixtures("soon")


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
