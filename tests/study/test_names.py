"""Misspelled names get suggestions, all commands take the same flags, and reports may select by another measure."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import cnnjax
from cnnjax import predict
from cnnjax.analysis.metrics import classification
from cnnjax.analysis.read import read_run
from cnnjax.report import __main__ as report
from cnnjax.report import build_report, summarize_run
from cnnjax.report.sections import protocol
from cnnjax.runs.integrity import read_lines
from cnnjax.study.metrics import EPOCH_MEASURES
from cnnjax.study.overrides import load_study
from cnnjax.study.schema import SELECT, from_config
from cnnjax.utils.errors import RequestError, nearest
from tests.support.made_up_run import make_config, make_run
from tests.support.runs import run
from tests.support.studies import make_study


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *(("lr", "learning_rate"), ("LR", "learning_rate"), ("CIFAR10", "cifar10"), ("CIFAR-10", "cifar10")),
        *(("Fashion MNIST", "fashion_mnist"), ("learnign_rate", "learning_rate"), ("zzz", None), ("", None)),
    ],
)
def test_the_nearest_name(said, meant):
    assert nearest(said, ["learning_rate", "cifar10", "fashion_mnist", "epochs"]) == meant


@pytest.mark.parametrize(
    ("config", "key"),
    [
        *(({"lr": 1}, "train.learning_rate"), ({"train": {"lr": 1}}, "learning_rate")),
        *(({"epochs": 1}, "train.epochs"), ({"Seeds": 1}, "seeds"), ({"train": {"wd": 1}}, "weight_decay")),
    ],
)
def test_the_error_for_an_unknown_key_suggests_a_key(config, key):
    with pytest.raises(RequestError, match=rf"there is no such key; did you mean '{key}'\? Use one of "):
        from_config(config)


def test_a_config_imports_the_files_beside_it_and_the_next_config_those_beside_itself(tmp_path):
    path = list(sys.path)
    for name, seeds in (("a", "(1, 2)"), ("b", "(3,)")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "parts.py").write_text(f"SEEDS = {seeds}")
        text = "from parts import SEEDS\ndef get_config():\n    import parts\n    return {'seeds': parts.SEEDS}"
        (tmp_path / name / "study.py").write_text(text)
    assert [load_study(str(tmp_path / name / "study.py")).seeds for name in "ab"] == [(1, 2), (3,)]
    assert sys.path == path and "parts" not in sys.modules


@pytest.mark.parametrize("command", [report, predict])
def test_the_folder_of_a_run_is_an_argument_or_workdir_as_in_launch(command):
    more = ["--input=a", "--output=b"] if command is predict else []
    for given in (["runs/x"], ["--workdir=runs/x"], ["--workdir", "runs/x"]):
        assert command.parse(["", *more, *given]).workdir == "runs/x"
    for given in ([], ["runs/x", "--workdir=runs/x"]):
        with pytest.raises(RequestError, match="name one run's folder"):
            command.parse(["", *more, *given])


@pytest.mark.slow
def test_a_run_is_inspected_by_its_folder(tmp_path):
    workdir = make_run(tmp_path / "run", make_config([0, 1], data={"name": "digits"}), examples=40)
    command = [sys.executable, "-m", "cnnjax.inspect", f"--workdir={workdir}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "inspect/run/index.html").exists(), done.stderr
    done = subprocess.run([*command[:-1], "--workdir=nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "a run's folder" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_report_selects_by_another_measure_when_it_is_asked_to_and_says_so(tmp_path):
    config = make_config([0, 1], select="val_accuracy", data={"validation": 0.1}, train={"learning_rate": [0.1, 0.2]})
    workdir = make_run(tmp_path / "run", config, examples=40)
    before = (workdir / "config.json").read_bytes()
    found = read_run(workdir, "val_loss")
    means = found.configurations["val_loss"]
    assert found.best == means.idxmin() and found.select == "val_loss"
    assert "selection-afterwards" in [finding.name for finding in protocol.check(found)]
    assert "selection-afterwards" not in [finding.name for finding in protocol.check(read_run(workdir))]
    assert "validation loss" in summarize_run(workdir, "val_loss").lower()
    assert "selection-afterwards" in build_report(workdir, "val_loss").read_text(encoding="utf-8")
    assert (workdir / "config.json").read_bytes() == before
    with pytest.raises(RequestError, match="--select='val_los': did you mean 'val_loss'"):
        read_run(workdir, "val_los")
    content = json.loads(before) | {"data": json.loads(before)["data"] | {"validation": 0.0}, "select": "train_loss"}
    (workdir / "config.json").write_text(json.dumps(content))
    with pytest.raises(RequestError, match="--select='val_loss': needs a validation split"):
        read_run(workdir, "val_loss")


def test_every_recorded_measure_can_be_selected_by():
    """Those of an epoch's record, and those of the test split."""
    tested = {f"test_{name}" for name in classification(np.eye(3), np.arange(3))}
    assert set(SELECT) == {*EPOCH_MEASURES} | tested


@pytest.mark.slow
@pytest.mark.usefixtures("quick", "rough")
def test_a_study_that_selects_by_another_measure_ranks_by_it(tmp_path):
    study = make_study(select="val_f1", data={"validation": 0.2}, train={"learning_rate": (0.01, 0.1)})
    run(study, tmp_path)
    table = cnnjax.load_results(tmp_path)
    last = {
        (line["member"], line["epoch"]): line
        for line in read_lines(tmp_path / "metrics.jsonl").intact
        if "member" in line
    }
    assert table["val_f1"].tolist() == [last[row.member, row.epochs_run]["val_f1"] for row in table.itertuples()]
    found = read_run(tmp_path)
    assert found.best == found.configurations["val_f1"].idxmax()
    shutil.rmtree(tmp_path / "programs")  # as an older run
    table.drop(columns=["val_f1", "val_precision", "val_recall"]).to_csv(tmp_path / "trials.csv", index=False)
    with pytest.raises(RequestError, match=r"--select='val_f1'.* the run did not record it; use one of val_loss"):
        read_run(tmp_path, "val_f1")
