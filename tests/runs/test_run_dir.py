"""The records of programs and their views: cached records equal the files, which are read once."""

import dataclasses
import random

import numpy as np
import pandas as pd
import pytest

from cnnjax.analysis.columns import AXES
from cnnjax.analysis.read import read_run
from cnnjax.runs import program_records
from cnnjax.runs.integrity import add_checksum, json_lines
from cnnjax.runs.lock import locked
from cnnjax.runs.run_dir import RunFolder
from cnnjax.runs.trials_csv import TRIAL_COLUMNS, load_results, trial_row
from cnnjax.study.hparams import Static, Traced
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError
from tests.support.made_up_run import make_config, make_run

STUDY = make_config(list(range(12)), train={"learning_rate": [0.01, 0.03], "epochs": [2, 3]})
MEMBERS = [member for program in make_plan(from_config(STUDY)).programs for member in program.members]


def begin(path):
    """Returns the empty records of a program."""
    records = RunFolder(path).program("p000")
    records.repair()
    return records


def record(records, member):
    """Records a member's training, as the training loop does."""
    records.append_metrics({"member": member.id, "epoch": e, "train_loss": 1 / e} for e in (1, 2, 3))
    for trial in member.trials:
        RunFolder(records.path.parents[1]).write_predictions(trial.id, logits=np.zeros((2, 2)))
    records.append_metrics({"trial": trial.id, "epoch": trial.epochs, "f1": float("nan")} for trial in member.trials)
    measured = {"status": "ok", "test_loss": 0.1}
    records.append_trials(trial_row(t, member.id, {**measured, "epochs_run": t.epochs}) for t in member.trials)


def trials_of(*members):
    return {trial.id for member in members for trial in member.trials}


def test_every_hyperparameter_is_a_column_and_an_axis():
    """Trials that differ in a hyperparameter that is no axis would count as seeds of one configuration."""
    hparams = {field.name for field in (*dataclasses.fields(Static), *dataclasses.fields(Traced))}
    # Whether a trial clips, or keeps its best weights, follows from the others and from the data; folds repeat a
    # configuration as seeds do. The arguments of optimizers are columns of the tables that have them.
    derived = {"clips", "keeps_best", "plateaus", "parts", "averages"}
    hparams = hparams - {*derived, "fold", "optimizer_args"} | {"epochs", "later_stages"}
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
    (trial, *_), records = MEMBERS[0].trials, begin(tmp_path)
    records.append_trials([trial_row(trial, "t0000", {"status": "ok"}) | {"model": name}])
    table = load_results(tmp_path)
    assert table["model"].tolist() == [name] and table["test_loss"].isna().all() and "crc32" not in table


def test_cached_records_equal_the_files(tmp_path):
    records = begin(tmp_path)
    order = random.Random(0).sample(MEMBERS, len(MEMBERS))
    for count, member in enumerate(order, 1):
        record(records, member)
        fresh = RunFolder(tmp_path).program("p000")
        assert {*records.finished(MEMBERS)} == {*fresh.finished(MEMBERS)} == trials_of(*order[:count])
    assert records.read_metrics(trials_of(order[3])) == fresh.read_metrics(trials_of(order[3]))
    assert RunFolder(tmp_path).read_trials().keys() == trials_of(*MEMBERS)


def test_files_are_read_once_for_any_number_of_batches(tmp_path, monkeypatch):
    begin(tmp_path)
    records, reads = RunFolder(tmp_path).program("p000"), []
    read = program_records.read_lines
    monkeypatch.setattr(program_records, "read_lines", lambda path: reads.append(path.name) or read(path))
    for member in MEMBERS:
        records.finished([member])
        assert records.read_metrics(trials_of(member)) == []
        record(records, member)
    assert sorted(reads) == ["metrics.jsonl", "trials.jsonl"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-30] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("change", [cut, flip])
@pytest.mark.parametrize("name", ["metrics.jsonl", "trials.jsonl"])
def test_a_damaged_line_is_dropped_and_its_trial_is_not_finished(tmp_path, change, name):
    first, last = MEMBERS[0], MEMBERS[-1]
    records = begin(tmp_path)
    record(records, first), record(records, last)
    change(records.path / name)
    records = begin(tmp_path)
    assert {*records.finished(MEMBERS)} == trials_of(first) | {last.trials[0].id}
    record(records, last)
    assert {*begin(tmp_path).finished(MEMBERS)} == trials_of(first, last)


def test_of_a_trial_that_was_trained_again_the_newest_row_counts(tmp_path):
    records = begin(tmp_path)
    for loss in (0.5, 0.25):
        records.append_trials([trial_row(MEMBERS[0].trials[0], "t0000", {"status": "ok", "test_loss": loss})])
    assert load_results(tmp_path)["test_loss"].tolist() == [0.25]
    RunFolder(tmp_path).write_json("config.json", STUDY)
    RunFolder(tmp_path).write_views()
    assert pd.read_csv(tmp_path / "trials.csv")["test_loss"].tolist() == [0.25]


# Runs of an older version, whose records were in the run's own metrics.jsonl and trials.csv


@pytest.fixture
def older(tmp_path):
    return make_run(tmp_path / "run", make_config([0, 1]))


def with_checksums(folder):
    rows = pd.read_csv(folder / "trials.csv", dtype=str, keep_default_na=False).to_dict("records")
    pd.DataFrame(map(add_checksum, rows)).to_csv(folder / "trials.csv", index=False)


@pytest.mark.parametrize("change", [lambda folder: None, with_checksums])
def test_an_older_run_is_read_from_its_trials(older, change):
    expected = pd.read_csv(older / "trials.csv")
    change(older)
    RunFolder(older).write_views()  # of nothing
    table = load_results(older)
    pd.testing.assert_frame_equal(table[["trial", "test_loss"]], expected[["trial", "test_loss"]])
    assert "crc32" not in table and len(read_run(older).trials) == 2
    assert RunFolder(older).read_trials().keys() == {"t0000", "t0001"}


def test_an_older_row_that_is_damaged_is_refused(older):
    with_checksums(older)
    (older / "trials.csv").write_text((older / "trials.csv").read_text().replace("ok", "oh"))
    for read in (load_results, read_run):
        with pytest.raises(RequestError, match=r"trials\.csv, line 2.* damaged"):
            read(older)


def test_an_older_run_is_not_continued(older):
    with pytest.raises(RequestError, match=r"an older version of cnnjax trained its trials; continue with the version"):
        RunFolder(older).check_version()
    plan = RunFolder(older).read_if_intact("plan.json")
    RunFolder(older).write_json("plan.json", plan | {"trial_ids": []})
    RunFolder(older).check_version()


# The rows of a run of someone else


@pytest.mark.parametrize("change", [{"epochs_run": "x"}, {"test_loss": [1]}, {"seed": -1}, {"nesterov": 3}])
def test_a_value_that_no_column_holds_is_damage(change, tmp_path):
    records = begin(tmp_path)
    row = trial_row(MEMBERS[0].trials[0], "t0000", {"status": "ok"})
    (records.path / "trials.jsonl").write_bytes(json_lines([row | change]))
    with pytest.raises(RequestError, match=r"trials\.jsonl, line 1.* damaged"):
        load_results(tmp_path)
    assert RunFolder(tmp_path).read_trials() == {}


def test_a_programs_directory_is_locked(tmp_path):
    records = begin(tmp_path)
    RunFolder(tmp_path).check_free()
    with locked(records.path), pytest.raises(RequestError, match=r"p000.*process \d+ on .* works in it"):
        RunFolder(tmp_path).check_free()
    RunFolder(tmp_path).check_free()
