"""Programs that workers train: what they write, how it is taken back after any kill, and what they refuse.

The engine here trains each task in this process; test_engines.py has those that others wrote.
"""

import functools
import itertools
import pickle
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from cnnjax.executors import base as tasks
from cnnjax.executors import driver, make_engine, worker
from cnnjax.executors.base import TaskError
from cnnjax.executors.program_dirs import PartFolder, lend, merge
from cnnjax.runs.integrity import Damaged, read_json
from cnnjax.runs.lock import locked
from cnnjax.runs.run_dir import RunFolder, describe_plan
from cnnjax.runs.trials_csv import TRIAL_COLUMNS
from cnnjax.study.plan import make_plan
from cnnjax.training import program as programs
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from tests.support.runs import run
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
    rows = [line.rsplit(",", 3)[0] for line in (workdir / "trials.csv").read_text().splitlines()]
    lines = sorted((workdir / "metrics.jsonl").read_text().splitlines())
    predictions = {file.name: file.read_bytes() for file in (workdir / "predictions").iterdir()}
    return rows, lines, predictions, read_json(workdir / "plan.json")


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """What the study of two programs writes without workers."""
    workdir = tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        make_quick(patch)
        run(make_study(**TWO), workdir)
    return workdir


# The same files


def test_workers_write_what_one_process_writes(serial, tmp_path):
    said = run(make_study(**TWO), tmp_path, engine=Here())
    assert read_all(tmp_path) == read_all(serial)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in serial.iterdir()}
    for program in ("p000", "p001"):
        assert f"{program}: process " in said and f"{program} epoch 3/3" in said
    assert "2,400 images in" in said


def kill_in_epoch(patch, number):
    """Kills the process before the call number `number` that trains."""
    advance, calls = Population.advance, itertools.count()

    def killed(self, *arguments):
        if next(calls) == number:
            raise Kill
        return advance(self, *arguments)

    patch.setattr(Population, "advance", killed)


@pytest.mark.parametrize("first", ["serial", "workers"])
@pytest.mark.parametrize("epoch", [2, 4])
def test_a_study_goes_on_with_workers_and_without(first, epoch, serial, tmp_path):
    study, engines = make_study(**TWO), {"serial": None, "workers": Here()}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Kill):
        kill_in_epoch(patch, epoch)
        run(study, tmp_path, engine=engines.pop(first))
    run(study, tmp_path, engine=next(iter(engines.values())))
    assert read_all(tmp_path) == read_all(serial)


def test_an_interrupt_takes_back_what_was_written(serial, tmp_path):
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
    assert engine.canceled and not (tmp_path / "parts").exists()
    assert len(RunFolder(tmp_path).read_metrics()) > len(read_all(serial)[1]) / 2
    run(study, tmp_path)
    assert read_all(tmp_path) == read_all(serial)


def test_a_task_that_breaks_stops_no_other_and_is_raised_at_the_end(serial, tmp_path):
    study = make_study(**TWO)

    def break_first(task):
        patch.setattr(worker.programs, "load", failing if task["program"] == "p000" else load)

    def failing(study):
        raise OSError("the cable is out")

    with pytest.MonkeyPatch.context() as patch:
        load = programs.load
        with pytest.raises(RuntimeError, match=r"program p000 on .*: Traceback (.|\n)*OSError: the cable is out"):
            run(study, tmp_path, engine=Here(break_first))
    assert sorted(RunFolder(tmp_path).read_trials()) == ["t0004", "t0005", "t0006", "t0007"]
    run(study, tmp_path)
    assert read_all(tmp_path) == read_all(serial)


# What a worker runs on is written down


def test_what_a_worker_runs_on_is_kept_and_a_change_is_said(serial, tmp_path, monkeypatch):
    def other(task):
        patch.setattr("cnnjax.runs.environment._processor", lambda: f"processor of {task['program']}")

    with pytest.MonkeyPatch.context() as patch:
        run(make_study(**TWO), tmp_path, engine=Here(other))
    environment = read_json(tmp_path / "environment.json")
    assert environment["processor"] == "processor of p000"
    assert environment["tasks"] == {"p001": {"processor": "processor of p001"}}
    assert "processor of p000' then" in run(make_study(**TWO), tmp_path)  # the processor of here now


# Taken back after any kill


def made_up(workdir):
    """A run of two programs with a line and a row of each trial, and parts of both that hold one more line each."""
    plan = make_plan(make_study(**TWO))
    folder = RunFolder(workdir)
    workdir.mkdir()
    folder.write_json("plan.json", describe_plan(plan, [{} for _ in plan.programs]))
    folder.write_json("environment.json", {"processor": "a", "command": []})
    members = [member for program in plan.programs for member in program.members]
    folder.append_metrics({"member": member.id, "epoch": 1} for member in members)
    folder.append_metrics({"trial": trial.id, "epoch": 1} for trial in plan.trials)
    row = dict.fromkeys(TRIAL_COLUMNS, "")
    folder.write_trials({trial.id: row | {"trial": trial.id} for trial in plan.trials[::2]})
    lend(folder, plan.programs, "now")
    return folder, plan


def train_parts(folder, plan):
    for program in plan.programs:
        part = PartFolder(folder.path, program.id)
        part.append_metrics({"member": member.id, "epoch": 2} for member in program.members)
        trial = program.members[0].trials[0].id
        part.write_trials({**part.read_trials(), trial: {"trial": trial, "status": "ok"}})
        part.update_plan(program.id, {"flops": 7})
        part.write_json("environment.json", {"processor": program.id})


def content(folder):
    files = [folder.path / name for name in ("trials.csv", "plan.json", "environment.json")]
    lines = sorted(map(str, folder.read_metrics()))
    return lines, [file.read_bytes() for file in files], sorted(path.name for path in folder.path.glob("parts/*"))


def kill_at(patch, number):
    """Kills the process before the write number `number`."""
    writes = itertools.count()

    def killing(function):
        @functools.wraps(function)
        def called(*arguments, **named):
            if next(writes) == number:
                raise Kill
            return function(*arguments, **named)

        return called

    for name in ("rename", "replace", "mkdir", "rmdir"):
        patch.setattr(Path, name, killing(getattr(Path, name)))
    patch.setattr(shutil, "rmtree", killing(shutil.rmtree))
    patch.setattr(RunFolder, "append_metrics", killing(RunFolder.append_metrics))


def test_a_kill_while_parts_are_lent_leaves_all_of_one_or_nothing(tmp_path):
    for number in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number + 6)  # behind those that make the run up
            try:
                folder, plan = made_up(tmp_path / str(number))
                break
            except Kill:
                pass
        folder = RunFolder(tmp_path / str(number))
        before = content(folder)[:2]
        plan = make_plan(make_study(**TWO))
        merge(folder, plan.programs)
        assert content(folder)[0] == before[0] and folder.read_trials().keys() == {"t0000", "t0002", "t0004", "t0006"}
        lend(folder, plan.programs, "again")
        assert [path.name for path in sorted(folder.path.glob("parts/p*"))] == ["p000", "p001"]
    assert number > 8


def test_a_kill_while_parts_are_taken_back_changes_nothing(tmp_path):
    folder, plan = made_up(tmp_path / "whole")
    train_parts(folder, plan)
    merge(folder, plan.programs)
    expected = content(folder)
    assert len(expected[0]) == 16 and not expected[2]
    for number in itertools.count():
        folder, plan = made_up(tmp_path / str(number))
        train_parts(folder, plan)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number)
            try:
                merge(folder, plan.programs)
                break
            except Kill:
                pass
        merge(folder, plan.programs)
        merge(folder, plan.programs)
        assert content(folder) == expected, number
    assert number > 8


# One process in a part


@pytest.mark.parametrize("options", [{}, {"engine": Here()}, {"overwrite": True}])
def test_a_part_that_is_held_is_refused_and_its_holder_named(options, tmp_path):
    study = make_study(**TWO)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Kill):
        kill_in_epoch(patch, 1)
        patch.setattr(driver, "merge", lambda *_: None)  # a launcher that was killed takes nothing back
        run(study, tmp_path, engine=Here())
    with locked(tmp_path / "parts/p000"), pytest.raises(RequestError, match=r"p000.*process \d+ on .* works in it"):
        run(study, tmp_path, **options)
    assert (tmp_path / "parts/p000/metrics.jsonl").exists() and (tmp_path / "config.json").exists()
    run(study, tmp_path, **options)
    assert not (tmp_path / "parts").exists()


def test_a_job_of_an_earlier_launch_that_starts_late_does_nothing(tmp_path):
    late = []
    run(make_study(**TWO), tmp_path, engine=Here(lambda task: late.append(task)))
    before = read_all(tmp_path)
    outcome = worker.work(late[0])
    assert outcome["wrong"] and "another launch took the program" in outcome["error"]
    assert read_all(tmp_path) == before and not (tmp_path / "parts").exists()


# Bad workers


def elsewhere(task, tmp_path):
    """As a worker sees it on whose machine the folder is another."""
    task["workdir"] = str(tmp_path / "elsewhere")


def with_other_config(task, tmp_path):
    elsewhere(task, tmp_path)
    RunFolder(tmp_path / "elsewhere").path.mkdir(exist_ok=True)
    RunFolder(tmp_path / "elsewhere").write_json("config.json", {"models": "others"})


def of_other_version(task, tmp_path):
    task["versions"] = {**task["versions"], "jax": "0.0.1"}


def with_other_data(task, tmp_path):
    task["data"] = "0" * 64


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            elsewhere,
            r"workdir: '.*elsewhere' is not allowed; it holds no config.json after \d+ s; put the run's",
        ),
        (with_other_config, r"workdir: '.*elsewhere' is not allowed; it holds another config.json than the launcher's"),
        (of_other_version, r"jax: '[\d.]+' is not allowed; the launcher has 0.0.1; install the same on every machine"),
        (with_other_data, r"data: '[0-9a-f]{64}' is not allowed; the launcher's data is another \(sha256 0000"),
    ],
)
def test_a_worker_that_cannot_says_why_and_nothing_is_lost(spoil, said, serial, tmp_path):
    study = make_study(**TWO)

    def spoil_first(task):
        if task["program"] == "p000":
            spoil(task, tmp_path)

    workdir = tmp_path / "run"
    with pytest.raises(TaskError, match=rf"^program p000 on {socket.gethostname()}: {said}") as refused:
        run(study, workdir, engine=Here(spoil_first))
    assert "\n" not in str(refused.value) and "the same command goes on" in str(refused.value)
    assert sorted(RunFolder(workdir).read_trials()) == ["t0004", "t0005", "t0006", "t0007"]
    run(study, workdir)
    assert read_all(workdir) == read_all(serial)


def test_a_worker_without_the_data_says_what_is_not_there(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.zeros((60, 8, 8), np.uint8), labels=np.arange(60) % 3)
    data = {"path": str(tmp_path / "data.npz"), "train_examples": None, "validation": 10, "name": "mine"}
    study = make_study(data=data, train={"batch_size": 10})

    def lose(task):
        (tmp_path / "data.npz").unlink()

    with pytest.raises(TaskError, match=r"^program p000 on .*: data.path: '.*data.npz' is not allowed; "):
        run(study, tmp_path / "run", engine=Here(lose))


@pytest.mark.parametrize(
    ("executor", "options", "said"),
    [
        ("ray", {"cluster": "slurm"}, "--cluster: 'slurm' is not allowed; --executor=ray has no such option"),
        ("ray", {"slurm": ["time=60"]}, "--slurm: "),
        ("submitit", {"ray_address": "auto"}, "--ray_address: 'auto' is not allowed; --executor=submitit has no"),
        ("submitit", {"cluster": "slrm"}, "--cluster: 'slrm' is not allowed; did you mean 'slurm'?"),
        ("submitit", {"slurm": ["time"]}, "--slurm: 'time' is not allowed; allowed: parameters of sbatch"),
    ],
)
def test_a_wrong_option_is_refused(executor, options, said):
    with pytest.raises(RequestError) as refused:
        make_engine(executor, **options)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("executor", "extra"), [("ray", "ray"), ("submitit", "slurm")])
def test_an_engine_that_is_not_installed_is_named_with_its_extra(executor, extra, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, executor, None)
    monkeypatch.delitem(__import__("sys").modules, f"cnnjax.executors.{executor}_engine", raising=False)
    with pytest.raises(RequestError, match=rf"it is not installed; pip install 'cnnjax\[{extra}\]'"):
        make_engine(executor)


def test_what_is_wrong_can_be_sent_to_another_process():
    for error in (RequestError("key", "\x1b[1m", "allowed: 2"), Damaged("file", "cut off"), TaskError("a line")):
        received = pickle.loads(pickle.dumps(error))
        assert isinstance(received, RequestError) and str(received) == str(error)
