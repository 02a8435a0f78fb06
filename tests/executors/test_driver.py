"""Programs trained by workers: their files, resuming after kills, and refusals.

The engine of these tests trains in this process. test_engines.py tests Ray and submitit.
"""

import itertools
import json
import pickle
import re
import socket

import numpy as np
import pandas as pd
import pytest

from cnnjax.commands.until import run_until_decided
from cnnjax.executors import base as tasks
from cnnjax.executors import driver, make_engine, worker
from cnnjax.runs.integrity import Damaged, read_json, read_lines
from cnnjax.runs.lock import HOLDER, locked
from cnnjax.runs.run_dir import RunFolder
from cnnjax.training import program as programs
from cnnjax.training.population import Population
from cnnjax.utils.errors import RelayedError, RequestError
from cnnjax.utils.progress import Progress
from tests.support.runs import program_ids, run, trial_ids
from tests.support.studies import add_tiny, make_quick, make_study

# Two programs of two members; a trial of each member is read off a longer one.
TWO = {"seeds": (0, 1), "train": {"batch_size": (50, 40), "epochs": (1, 3)}}


class Kill(BaseException):
    """The process ends here."""


class Here:
    """Trains each task in this process when it is asked for what has ended.

    Args:
        before: called with each task, before it is trained.
    """

    cpus = compilation_cache = None

    def __init__(self, before=lambda task: None):
        self.before, self.canceled = before, False

    def submit(self, workdir, tasks):
        self.tasks = list(tasks)
        return f"{len(tasks)} tasks here"

    def ended(self):
        task = self.tasks.pop(0)
        self.before(task)
        return {task["program"]: worker.work(task)}

    def cancel(self):
        self.canceled = True


@pytest.fixture(autouse=True)
def impatient(quick, monkeypatch):
    """Nobody is waited for."""
    for module in (tasks, worker, driver):
        monkeypatch.setattr(module, "PATIENCE", 0.0, raising=False)


def read_all(workdir):
    """Every number of a run, in an order of its own; none of the times."""
    rows = [line.rsplit(",", 2)[0] for line in (workdir / "trials.csv").read_text().splitlines()]
    lines = sorted((workdir / "metrics.jsonl").read_text().splitlines())
    predictions = {file.name: file.read_bytes() for file in (workdir / "predictions").iterdir()}
    return rows, lines, predictions, read_json(workdir / "plan.json")


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """What the study of two programs writes without workers."""
    workdir = tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch, convolutions=False)
        make_quick(patch)
        run(make_study(**TWO), workdir)
    return workdir


# The same files


@pytest.mark.slow
def test_workers_write_what_one_process_writes(serial, tmp_path):
    said = run(make_study(**TWO), tmp_path, engine=Here())
    assert read_all(tmp_path) == read_all(serial)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in serial.iterdir()}
    for program in program_ids(serial):
        assert f"{program}: process " in said and re.search(rf"{program} m\w+-m\w+ epoch 3/3", said)
    assert "2,400 images in" in said


@pytest.mark.slow
def test_workers_grow_a_study(serial, tmp_path, monkeypatch):
    """A worker finds the earlier study of the run, whose trials the newest does not ask for, in config.json."""
    # Shared ones would count its compilations in other tests.
    monkeypatch.setattr("cnnjax.training.compiler.Population", Population)
    less = {"seeds": (0,), "train": {"batch_size": (50, 40), "epochs": 2}}
    run(make_study(**less), tmp_path)
    run(make_study(**TWO), tmp_path, engine=Here())
    rows, _, predictions, _ = read_all(tmp_path)
    expected_rows, _, expected, _ = read_all(serial)
    assert rows == expected_rows
    assert {name: data for name, data in predictions.items() if name in expected} == expected
    assert len(predictions) == len(expected) + 2  # the two trials of two epochs are hidden


@pytest.mark.slow
def test_workers_train_what_a_search_and_a_look_ask_for_next(tmp_path):
    """They are submitted again for each rung, and for the seeds that a look adds, with the newest config.json."""
    rates = {"learning_rate": "log_uniform(1e-3, 1)", "epochs": 2}
    search = make_study(train=rates, search={"method": "halving", "trials": 2, "factor": 2})
    run(search, tmp_path / "search", engine=Here())
    (decided,) = read_lines(tmp_path / "search" / "search.jsonl").intact
    kept = int(decided["kept"][0])
    epochs = [one["train.epochs"] for one in json.loads((tmp_path / "search/config.json").read_text())["asked"]]
    assert epochs[kept] == 2 and epochs[1 - kept] == 1
    assert sorted(pd.read_csv(tmp_path / "search" / "trials.csv")["epochs_run"]) == [1, 2]

    grid = make_study(seeds=(0, 1), train={"learning_rate": (0.05, 0.055), "epochs": 1})
    with Progress(is_shown=False) as progress:
        said = run_until_decided(grid, tmp_path / "grid", max_seeds=3, progress=progress, engine=Here())
    assert "look 2, 3 seeds" in said and len(pd.read_csv(tmp_path / "grid" / "trials.csv")) == 6


def kill_in_epoch(patch, number):
    """Kills the process before the call number `number` that trains."""
    advance, calls = Population.advance, itertools.count()

    def killed(self, *arguments):
        if next(calls) == number:
            raise Kill
        return advance(self, *arguments)

    patch.setattr(Population, "advance", killed)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["serial", "workers"])
@pytest.mark.parametrize("epoch", [2, 4])
def test_a_study_goes_on_with_workers_and_without(first, epoch, serial, tmp_path):
    study, engines = make_study(**TWO), {"serial": None, "workers": Here()}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Kill):
        kill_in_epoch(patch, epoch)
        run(study, tmp_path, engine=engines.pop(first))
    run(study, tmp_path, engine=next(iter(engines.values())))
    assert read_all(tmp_path) == read_all(serial)


def test_an_interrupt_ends_the_workers_and_keeps_what_they_wrote(serial, tmp_path):
    study, engine = make_study(**TWO), Here()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "work", worker.work)
        advance, calls = Population.advance, itertools.count()

        def interrupted(self, *arguments):
            if next(calls) == 4:
                raise KeyboardInterrupt
            return advance(self, *arguments)

        patch.setattr(Population, "advance", interrupted)
        run(study, tmp_path, engine=engine)
    assert engine.canceled and RunFolder(tmp_path).read_trials().keys() == set(
        pd.read_csv(tmp_path / "trials.csv").trial
    )
    assert len(read_lines(tmp_path / "metrics.jsonl").intact) > len(read_all(serial)[1]) / 2
    run(study, tmp_path)
    assert read_all(tmp_path) == read_all(serial)


def test_a_task_that_breaks_stops_no_other_and_is_raised_at_the_end(serial, tmp_path):
    study, (first, _) = make_study(**TWO), program_ids(serial)

    def break_first(task):
        patch.setattr(worker.programs, "load_data", failing if task["program"] == first else load)

    def failing(study, earlier):
        raise OSError("the cable is out")

    with pytest.MonkeyPatch.context() as patch:
        load = programs.load_data
        with pytest.raises(RuntimeError, match=rf"program {first} on .*: Traceback (.|\n)*OSError: the cable is out"):
            run(study, tmp_path, engine=Here(break_first))
    assert RunFolder(tmp_path).read_trials().keys() == {*trial_ids(serial)[4:]}
    run(study, tmp_path)
    assert read_all(tmp_path) == read_all(serial)


# What a worker runs on is written down


def test_what_a_worker_runs_on_is_kept_and_a_change_is_said(serial, tmp_path, monkeypatch):
    def other(task):
        patch.setattr("cnnjax.runs.environment.processor", lambda: f"processor of {task['program']}")

    with pytest.MonkeyPatch.context() as patch:
        run(make_study(**TWO), tmp_path, engine=Here(other))
    environment, (first, second) = read_json(tmp_path / "environment.json"), program_ids(tmp_path)
    assert environment["processor"] == f"processor of {first}"
    assert environment["tasks"] == {second: {"processor": f"processor of {second}"}}
    assert f"processor was 'processor of {first}', is " in run(make_study(**TWO), tmp_path)


# One process in a program's directory


def killed(study, workdir):
    """Kills a launch with workers, all at once; returns its tasks."""
    tasks = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Kill):
        kill_in_epoch(patch, 1)
        run(study, workdir, engine=Here(tasks.append))
    return tasks


@pytest.mark.parametrize("options", [{}, {"engine": Here()}, {"overwrite": True}])
def test_a_program_that_is_held_is_refused_and_its_holder_named(options, tmp_path):
    study = make_study(**TWO)
    killed(study, tmp_path)
    records = tmp_path / "programs" / program_ids(tmp_path)[0]
    with locked(records), pytest.raises(RequestError, match=rf"{records.name}.*process \d+ on .* works in it"):
        run(study, tmp_path, **options)
    assert (records / "metrics.jsonl").exists() and (tmp_path / "config.json").exists()
    run(study, tmp_path, **options)
    assert len(RunFolder(tmp_path).read_trials()) == 8


@pytest.mark.slow
def test_a_job_of_an_earlier_launch_that_starts_late_does_nothing(serial, tmp_path):
    (task,) = killed(make_study(**TWO), tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.json*")}
    with locked(tmp_path):  # by the next launch
        outcome = worker.work(task)
    assert outcome["wrong"] and "or wait for another launch that holds it" in outcome["error"]
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.json*")} == before
    (tmp_path / HOLDER).write_text(task["launch"])  # as a launch leaves it that could not end in order
    assert worker.work(task)["error"] is None
    (tmp_path / HOLDER).unlink()
    assert RunFolder(tmp_path).read_trials().keys() == {*trial_ids(serial)[:4]}
    run(make_study(**TWO), tmp_path)
    assert read_all(tmp_path) == read_all(serial)


# Bad workers


def elsewhere(task, tmp_path):
    """As a worker sees it on whose machine the folder is another."""
    task["workdir"] = str(tmp_path / "elsewhere")


def of_other_version(task, tmp_path):
    task["versions"] = {**task["versions"], "jax": "0.0.1"}


def with_other_data(task, tmp_path):
    task["data"] = "0" * 64


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            elsewhere,
            r"workdir='.*elsewhere': its launcher, process .*, does not hold its lock after \d+ s; use a folder",
        ),
        (of_other_version, r"jax='[\d.]+': the launcher has 0.0.1; install the same version on every machine"),
        (with_other_data, r"data='[0-9a-f]{64}': the launcher has other data \(sha256 0000"),
    ],
)
def test_a_worker_that_cannot_says_why_and_nothing_is_lost(spoil, said, serial, tmp_path):
    study, (first, _) = make_study(**TWO), program_ids(serial)

    def spoil_first(task):
        if task["program"] == first:
            spoil(task, tmp_path)

    workdir = tmp_path / "run"
    with pytest.raises(RelayedError, match=rf"^program {first} on {socket.gethostname()}: {said}") as refused:
        run(study, workdir, engine=Here(spoil_first))
    assert "\n" not in str(refused.value) and "run the same command again to continue" in str(refused.value)
    assert RunFolder(workdir).read_trials().keys() == {*trial_ids(serial)[4:]}
    run(study, workdir)
    assert read_all(workdir) == read_all(serial)


def test_a_worker_without_the_data_says_what_is_not_there(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.zeros((60, 8, 8), np.uint8), labels=np.arange(60) % 3)
    data = {"path": str(tmp_path / "data.npz"), "train_examples": None, "validation": 10, "name": "mine"}
    study = make_study(data=data, train={"batch_size": 10})

    def lose(task):
        (tmp_path / "data.npz").unlink()

    with pytest.raises(RelayedError, match=r"^program p\w+ on .*: data.path='.*data.npz': "):
        run(study, tmp_path / "run", engine=Here(lose))


@pytest.mark.parametrize(
    ("executor", "options", "said"),
    [
        ("ray", {"cluster": "slurm"}, "--cluster='slurm': --executor=ray has no such option"),
        ("ray", {"slurm": ["time=60"]}, "--slurm="),
        ("submitit", {"ray_address": "auto"}, "--ray_address='auto': --executor=submitit has no"),
        ("submitit", {"cluster": "slrm"}, "--cluster='slrm': did you mean 'slurm'?"),
        ("submitit", {"slurm": ["time"]}, "--slurm must be parameters of sbatch"),
    ],
)
def test_a_wrong_option_is_refused(executor, options, said):
    with pytest.raises(RequestError) as refused:
        make_engine(executor, **options)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("executor", "extra"), [("ray", "ray"), ("submitit", "slurm")])
def test_an_engine_that_is_not_installed_is_named_with_its_extra(executor, extra, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, executor, None)
    monkeypatch.delitem(__import__("sys").modules, f"cnnjax.executors.{extra}", raising=False)
    with pytest.raises(RequestError, match=rf"it is not installed; pip install 'cnnjax\[{extra}\]'"):
        make_engine(executor)


def test_what_is_wrong_can_be_sent_to_another_process():
    for error in (RequestError("key", "\x1b[1m", "allowed: 2"), Damaged("file", "cut off"), RelayedError("a line")):
        received = pickle.loads(pickle.dumps(error))
        assert isinstance(received, RequestError) and str(received) == str(error)
