"""A run in an object store: in memory, on disk and, where s3fs and moto are installed, by S3's protocol."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import cnnjax
from cnnjax import compare, predict
from cnnjax import launch as launcher
from cnnjax.commands import confirm
from cnnjax.report import __main__ as report
from cnnjax.runs import remote
from cnnjax.study.flags import requested_study
from cnnjax.utils.errors import RequestError
from cnnjax.utils.paths import cache_folder
from tests.support.bare_launch import no_report_process
from tests.support.runs import ROOT, Crash, assert_no_line_twice, read_all, read_weights, run
from tests.support.stores import Shaky, elsewhere, fsspec, local_copy, numbers, refused, said, train, write_small_run
from tests.support.studies import add_tiny, make_quick, make_study


@pytest.fixture
def url(monkeypatch, tmp_path):
    """Of a run's folder in a store in memory, another in each test."""
    monkeypatch.setattr(remote, "_REST", 0.0)
    monkeypatch.setattr(Shaky, "fault", staticmethod(lambda change: None))
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "here"))
    return f"shaky://bucket/{next(numbers)}/run"


def there(url, name):
    return MemoryFileSystem().cat_file(f"{url.removeprefix('shaky:/')}/{name}").decode()


def fail(change):
    raise ConnectionError("no route to host")


# Runs


def train_until(study, url, monkeypatch, number, **options):
    """Trains; the change of the store of that number does not happen, nor any after it. Returns all that did."""
    changes = []

    def crash(change):
        if len(changes) == number and change:
            raise Crash
        changes.extend([change] if change else [])

    with monkeypatch.context() as patch:
        patch.setattr(Shaky, "fault", staticmethod(crash))
        with contextlib.suppress(Crash):
            train(study, url, **options)
    return changes


def read_unordered(workdir):
    """Every number of a run, the lines of metrics.jsonl in an order of their own.

    A kill between two files of a push may leave a shorter trial without its row beside the state of a later epoch. The
    trial is then evaluated again, after the later epoch.
    """
    rows, lines, predictions = read_all(workdir)
    return rows, sorted(lines.splitlines()), predictions


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_kill_before_any_change_of_the_store_changes_nothing(url, monkeypatch, tmp_path):
    study = make_study(train={"epochs": (1, 2)})
    run(study, tmp_path / "local")
    changes = train_until(study, url, monkeypatch, None)
    assert sum(change.endswith("/.push") for change in changes) == 7  # at the start, in two epochs, and at the end
    for number in range(1, len(changes), len(changes) // 9):
        killed = f"{url}{number}"
        train_until(study, killed, monkeypatch, number)
        if number % 2:
            elsewhere(monkeypatch, tmp_path)
        train(study, killed)
        assert read_unordered(remote.copied(killed)) == read_unordered(tmp_path / "local"), number
        assert read_weights(remote.copied(killed)) == read_weights(tmp_path / "local"), number


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_kill_while_another_study_overwrites_never_mixes_the_two(url, monkeypatch, tmp_path):
    studies = {
        "before": make_study(train={"epochs": 1}),
        "after": make_study(train={"epochs": 1}, data={"validation": 60}),
    }
    for name, study in studies.items():
        run(study, tmp_path / name)
    outcomes = set()
    for number in (0, 6, 20, 40, 60):
        killed = f"{url}{number}"
        train(studies["before"], killed)
        train_until(studies["after"], killed, monkeypatch, number, overwrite=True)
        elsewhere(monkeypatch, tmp_path)
        for name, study in studies.items():
            try:
                train(study, killed)
            except RequestError as error:
                assert "another study" in str(error)
            else:
                outcomes.add(name)
                assert read_all(remote.copied(killed)) == read_all(tmp_path / name), number
    assert outcomes == {"before", "after"}


@pytest.mark.slow
def test_ended_by_signals_on_one_machine_after_another(tmp_path, monkeypatch):
    overrides = ["models=baseline", "seeds=0,1,2", "data.train_examples=200", "checkpoint.every=1"]
    overrides += [f"train.{name}" for name in ("optimizer=adam", "learning_rate=0.001", "batch_size=50", "epochs=4,8")]
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(config=f"{ROOT}/configs/quickstart.py"):
        run(requested_study(overrides), tmp_path / "whole")
    store = tmp_path / "store/run"
    command = [sys.executable, "-m", "cnnjax.launch", f"--config={ROOT}/configs/quickstart.py"]
    command += [f"--workdir=file://{store}", f"--compilation_cache={cache_folder() / 'xla'}"]  # as the whole run
    command += [f"--config.{override}" for override in overrides]
    for number, awaited in (
        (signal.SIGKILL, "programs/*/metrics.jsonl"),
        (signal.SIGTERM, "checkpoints/*/*/[5-8]"),
        (0, "never"),
    ):
        environment = {**os.environ, "CNNJAX_CACHE": str(tmp_path / f"machine{number}")}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
            while not [*store.glob(awaited)] and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(number)
            _, output = process.communicate()
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 130, 0: 0}[number], output
    assert "the run was fetched" in output
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "here"))
    assert read_unordered(store) == read_unordered(tmp_path / "whole")
    assert read_weights(remote.copied(f"file://{store}")) == read_weights(tmp_path / "whole")
    assert_no_line_twice(store)
    assert (store / "report/index.html").exists()


# Pushes


def test_only_what_changed_of_the_run_is_pushed(url, monkeypatch):
    pushed = []
    MemoryFileSystem().pipe_file(f"{url.removeprefix('shaky:/')}/.notes", b"mine")
    with local_copy(url) as (folder, progress):
        write_small_run(folder)
        (folder / "checkpoints/p000/5.orbax-checkpoint-tmp").write_text("")
        progress.on_checkpoint()
        (folder / "trials.csv").write_text("after!")
        (folder / "checkpoints/p000/t0-t1/4/state").unlink()
        monkeypatch.setattr(Shaky, "fault", staticmethod(lambda change: pushed.append(change)))
    root = url.removeprefix("shaky:/")
    names = [change.removeprefix(f"{root}/") for change in pushed if change]
    assert names == [".push", "trials.csv", "checkpoints/p000/t0-t1/4/state", ".push"]
    assert there(url, "trials.csv") == "after!" and there(url, ".notes") == "mine"


def test_a_push_after_another_launch_pushed_is_refused_and_loses_nothing(url, monkeypatch, tmp_path):
    def meet():
        with local_copy(url) as (folder, _):
            write_small_run(folder)
            with pytest.MonkeyPatch.context() as patch:
                elsewhere(patch, tmp_path)
                with local_copy(url) as (other, _):
                    write_small_run(other)
                    (other / "trials.csv").write_text("the other's")

    line = refused(meet)
    assert "another launch has pushed to it" in line and str(tmp_path / "here") in line
    assert there(url, "trials.csv") == "the other's"
    with local_copy(url) as (folder, progress):
        assert (folder / "trials.csv").read_text() == "the other's"
    (kept,) = folder.parent.glob("run-unpushed-*")
    assert (kept / "trials.csv").read_text() == "before" and str(kept) in said(progress)


def test_a_store_that_stops_answering_stops_no_training_and_is_pushed_to_later(url, monkeypatch, tmp_path):
    def lose(end):
        with local_copy(url) as (folder, progress):
            write_small_run(folder)
            with monkeypatch.context() as patch:
                patch.setattr(Shaky, "fault", staticmethod(fail))
                progress.on_checkpoint()
                assert "no route to host" in said(progress)
            monkeypatch.setattr(Shaky, "fault", staticmethod(end))

    line = refused(lambda: lose(fail))
    assert "no route to host" in line and "run the same command again to push it" in line
    monkeypatch.setattr(Shaky, "fault", staticmethod(lambda change: None))
    with local_copy(url) as (_, progress):
        assert "the store will get its run" in said(progress)
    assert there(url, "trials.csv") == "before"


def test_a_long_operation_says_what_it_does(url, monkeypatch):
    monkeypatch.setattr(remote, "_SILENT", 0.05)
    with local_copy(url) as (folder, progress):
        write_small_run(folder)
        monkeypatch.setattr(Shaky, "fault", staticmethod(lambda change: time.sleep(0.1)))
    assert f"pushing to {url}" in said(progress)


# Wrong requests


class Hanging(AsyncFileSystem):
    """A store that never answers."""

    async def _ls(self, path, **options):
        import asyncio

        await asyncio.sleep(60)


fsspec.register_implementation("hanging", Hanging, clobber=True)


@pytest.mark.parametrize(
    ("wrong", "fault", "words"),
    [
        ("nowhere://bucket/run", None, ["Protocol not known: nowhere"]),
        ("gs://bucket/run", None, ["install gcsfs"]),
        ("shaky://", None, ["names no folder"]),
        ("shaky://other/run", None, ["no config.json", "a new or empty folder"]),
        ("shaky://down/run", fail, ["no route to host"]),
        ("hanging://bucket/run", None, ["connecting to the store failed", "a store that can be read and written"]),
        (f"file://{__file__}/run", None, ["a store that can be read and written"]),
    ],
)
@pytest.mark.usefixtures("url")
def test_a_wrong_url_is_one_line(wrong, fault, words, monkeypatch):
    MemoryFileSystem().pipe_file("/other/run/thesis.tex", b"")
    monkeypatch.setattr(remote, "_ANSWER", 1)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    if fault is not None:
        monkeypatch.setattr(Shaky, "fault", staticmethod(fault))
    line = refused(lambda: local_copy(wrong).__enter__())
    assert line.startswith(f"workdir='{wrong}'") and all(word in line for word in words), line


@pytest.mark.parametrize("flag", [{"coordinator": "host:1"}, {"executor": "ray"}])
def test_many_machines_share_a_folder_not_a_store(flag):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(config=f"{ROOT}/configs/quickstart.py", workdir="s3://bucket/run", **flag):
        line = refused(lambda: launcher.main([]))
    assert "s3://bucket/run" in line and f"--{next(iter(flag))}" in line


# Commands


STUDY = ["models=tiny", "seeds=0,1", "select=val_loss", "data.train_examples=200", "checkpoint.every=1"]
STUDY += ["train.optimizer=sgd", "train.batch_size=50", "train.learning_rate=0.02,0.05", "train.epochs=2"]


@pytest.fixture(params=["memory", "s3"])
def bucket(request, monkeypatch, tmp_path):
    """The URL of an empty bucket, and studies without reports."""
    add_tiny(monkeypatch, convolutions=False)
    make_quick(monkeypatch)
    monkeypatch.setattr(confirm, "build_report", lambda workdir: None)
    monkeypatch.setattr(launcher, "report_process", no_report_process)
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "here"))
    if request.param == "memory":
        yield f"memory://bucket{next(numbers)}"
        return
    s3fs, moto = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.slow
def test_every_command_answers_of_a_store_as_of_a_folder(bucket, monkeypatch, tmp_path, capfd):
    url, local = f"{bucket}/runs/run", tmp_path / "local"
    flags.FLAGS.mark_as_parsed()

    def launch(workdir, *overrides, **given):
        with flagsaver.flagsaver(config=f"{ROOT}/configs/quickstart.py", workdir=str(workdir), **given):
            launcher.main([*STUDY, *overrides])

    with pytest.raises(RequestError, match=r"with config\.json"):
        compare.main(compare.parse(["", url, url]))
    for place in (url, local):
        launch(place, confirm=2, profile=place == url)
    elsewhere(monkeypatch, tmp_path)
    launch(url, confirm=2)
    assert "is finished" in "".join(capfd.readouterr())
    elsewhere(monkeypatch, tmp_path)
    copy = remote.copied(url)
    fresh = [path.relative_to(local) for path in local.glob("confirm/2/t*")]
    assert len(fresh) == 2 and len([*copy.glob("profile/p*/**/perfetto_trace.json.gz")]) == 1
    for folder in (".", *fresh):
        assert read_all(copy / folder) == read_all(local / folder)
        assert read_weights(copy / folder) == read_weights(local / folder)
    np.save(tmp_path / "new.npy", np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8))
    answers = []
    for place in (url, str(local)):
        output = tmp_path / f"{len(answers)}.csv"
        predict.main(predict.parse(["", place, f"--input={tmp_path / 'new.npy'}", f"--output={output}"]))
        capfd.readouterr()
        compare.main(compare.parse(["", f"{place}:learning_rate=0.02", f"{place}:learning_rate=0.05"]))
        told = capfd.readouterr().out.replace(place, "PLACE").split()
        trials = [*cnnjax.load_results(place).trial]
        logits = cnnjax.load_trial(place, trials[1]).logits(np.zeros((2, 8, 8, 1), np.uint8))
        answers.append((output.read_bytes(), told, logits.tobytes(), trials))
    assert answers[0] == answers[1]
    report.main(report.parse(["", url]))
    files, page = fsspec.url_to_fs(f"{url}/report/index.html")
    assert Path(capfd.readouterr().out.strip()).read_bytes() == files.cat_file(page)
    with pytest.raises(RequestError, match="another study"):
        launch(url, "data.validation=60")
    for place in (url, local):
        launch(place, "data.validation=60", overwrite=True)
    assert read_all(remote.copied(url)) == read_all(local)
