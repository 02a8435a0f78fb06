"""What a run's folder keeps in memory of its files: the same as is on disk, whoever wrote it, read once."""

import dataclasses
import json
import os
import random
import time

import numpy as np
import pytest

from cnnjax.analysis.columns import AXES
from cnnjax.runs import run_dir
from cnnjax.runs.run_dir import RunFolder
from cnnjax.runs.trials_csv import TRIAL_COLUMNS, load_results, trial_row
from cnnjax.study.hparams import Static, Traced
from cnnjax.study.plan import list_trials, make_plan
from cnnjax.study.schema import from_config
from tests.support.made_up_run import make_config

STUDY = make_config(list(range(12)), train={"learning_rate": [0.01, 0.03], "epochs": [2, 3]})
MEMBERS = [member for program in make_plan(from_config(STUDY)).programs for member in program.members]


def record(folder, member):
    """Writes down a member's training, as a chunk does."""
    folder.append_metrics({"member": member.id, "epoch": e, "train_loss": 1 / e} for e in (1, 2, 3))
    for trial in member.trials:
        folder.write_predictions(trial.id, logits=np.zeros((2, 2)))
    folder.append_metrics({"trial": trial.id, "epoch": trial.epochs, "f1": float("nan")} for trial in member.trials)
    measured = {"status": "ok", "test_loss": 0.1}
    rows = [trial_row(t, member.id, {**measured, "epochs_run": t.epochs}) for t in member.trials]
    folder.write_trials({row["trial"]: row for row in rows})


def files(folder):
    return (folder.path / "metrics.jsonl").read_bytes(), (folder.path / "trials.csv").read_bytes()


def test_every_hyperparameter_is_a_column_and_an_axis():
    """Trials that differ in a hyperparameter that is no axis would count as seeds of one configuration."""
    hparams = {field.name for field in (*dataclasses.fields(Static), *dataclasses.fields(Traced))}
    hparams = hparams - {"clips"} | {"epochs", "later_stages"}  # whether a trial clips follows from its clip_norm
    assert set(AXES) == hparams
    assert hparams <= set(TRIAL_COLUMNS) and len(set(TRIAL_COLUMNS)) == len(TRIAL_COLUMNS)


def test_trials_that_differ_in_a_later_stage_are_other_configurations():
    stages = [{"optimizer": "adam", "learning_rate": 0.001}, {}, {"learning_rate": 0.1}]
    axes = {"optimizer": "sgd", "learning_rate": [0.001, 0.01], "momentum": [0.0, 0.9], "epochs": [2, 3]}
    for count in (1, 2, 3):
        trials = list_trials(from_config(make_config([0, 1], train={**axes, "stages": stages[:count]})))
        rows = {tuple(trial.row()[axis] for axis in AXES) for trial in trials}
        assert len(rows) == len({(trial.static, trial.stages) for trial in trials}) == len(trials) / 2
    assert trials[-1].row()["later_stages"] == "sgd learning_rate=0.01 momentum=0.9 > learning_rate=0.1"


@pytest.mark.parametrize("name", ["null", "NA", "None", "1"])
def test_a_network_has_the_name_that_was_written(name, tmp_path):
    (trial, *_), folder = MEMBERS[0].trials, RunFolder(tmp_path)
    folder.write_trials({trial.id: trial_row(trial, "t0000", {"status": "ok"}) | {"model": name}})
    table = load_results(tmp_path)
    assert table["model"].tolist() == [name] and table["test_loss"].isna().all() and "crc32" not in table


def test_a_folder_that_remembers_writes_what_one_that_reads_writes(tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "many").mkdir()
    one = RunFolder(tmp_path / "one")
    order = random.Random(0).sample(MEMBERS, len(MEMBERS))
    for count, member in enumerate(order, 1):
        record(one, member)
        record(RunFolder(tmp_path / "many"), member)  # knows nothing of what was there
        assert one.finished(MEMBERS) == {trial.id for m in order[:count] for trial in m.trials}
    assert files(one) == files(RunFolder(tmp_path / "many"))
    fresh = RunFolder(one.path)
    assert one.recorded() == fresh.recorded() and one.recorded().is_whole
    assert [*one.read_trials()] == sorted(trial.id for member in MEMBERS for trial in member.trials)


def test_files_are_read_once_however_many_chunks_there_are(tmp_path, monkeypatch):
    folder, reads = RunFolder(tmp_path), []
    for name in ("read_lines", "read_rows"):
        read = getattr(run_dir, name)
        monkeypatch.setattr(run_dir, name, lambda path, read=read: reads.append(path.name) or read(path))
    for member in MEMBERS:
        folder.finished([member])
        folder.recorded()
        record(folder, member)
    assert sorted(reads) == ["metrics.jsonl", "trials.csv"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-30] ^= 4
    path.write_bytes(data)


def another_line(path):
    with path.open("a") as file:
        file.write(json.dumps({"member": "t0000", "epoch": 9}) + "\n")


@pytest.mark.parametrize("change", [cut, flip])
@pytest.mark.parametrize("name", ["metrics.jsonl", "trials.csv"])
def test_damage_behind_its_back_is_seen(tmp_path, change, name):
    folder = RunFolder(tmp_path)
    first, last = MEMBERS[0], MEMBERS[-1]
    record(folder, first), record(folder, last)
    assert len(folder.finished(MEMBERS)) == 4
    change(tmp_path / name)
    os.utime(tmp_path / name, ns=(0, time.time_ns()))  # the file system's clock may not have moved since the last write
    assert folder.finished(MEMBERS) == {trial.id for trial in (*first.trials, last.trials[0])}
    assert folder.recorded().is_whole == (name == "trials.csv")
    folder.keep_metrics(lambda line: True)
    record(folder, last)
    assert len(folder.finished(MEMBERS)) == 4 and folder.recorded().is_whole


def test_what_another_process_wrote_is_seen(tmp_path):
    folder = RunFolder(tmp_path)
    record(folder, MEMBERS[0])
    folder.recorded()
    another_line(tmp_path / "metrics.jsonl")
    assert 9 in folder.recorded().epochs["t0000"]
    record(RunFolder(tmp_path), MEMBERS[1])
    record(folder, MEMBERS[2])
    assert len(folder.read_trials()) == len(folder.finished(MEMBERS)) == 6


def test_a_file_that_is_not_there_any_more_is_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    record(folder, MEMBERS[0])
    (tmp_path / "trials.csv").unlink(), (tmp_path / "metrics.jsonl").unlink()
    assert folder.finished(MEMBERS) == set() and folder.recorded() == RunFolder(tmp_path).recorded()
