"""What a run refuses, leaving everything as it was."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cnnjax
from cnnjax.models.ladder import LADDER
from cnnjax.models.specs import Gelu, Relu
from cnnjax.runs.run_dir import RunFolder
from cnnjax.utils.errors import RequestError
from tests.support.runs import ROOT, run, trial_ids
from tests.support.studies import make_study

pytestmark = pytest.mark.usefixtures("quick")


def snapshot(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_another_study_in_the_folder_is_refused_or_overwritten(tmp_path):
    run(make_study(), tmp_path)
    before = snapshot(tmp_path)
    other = make_study(seeds=(3,), select="train_loss", data={"validation": 60})
    with pytest.raises(RequestError) as refused:
        run(other, tmp_path)
    for words in ("data.validation (50 there, 60 here)", "select (", "only axes may", "--overwrite"):
        assert words in str(refused.value)
    assert "seeds (" not in str(refused.value)
    assert snapshot(tmp_path) == before
    run(other, tmp_path, overwrite=True)
    assert list(cnnjax.load_results(tmp_path).seed) == [3]
    assert json.loads((tmp_path / "config.json").read_text())["seeds"] == [3]


def write_images(path, first=0):
    """A CSV of 30 images of 8x8 pixels in three classes."""
    rows = [[n % 3, *((first + 7 * n + pixel) % 256 for pixel in range(64))] for n in range(30)]
    header = ["label", *(f"pixel{n}" for n in range(64))]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in [header, *rows]))


@pytest.mark.slow
def test_data_that_moved_are_the_same_and_others_in_their_place_are_not(tmp_path, monkeypatch):
    def ask(path):
        data = {"path": str(path), "name": "mine", "train_examples": None, "validation": 4}
        return run(make_study(data=data, train={"batch_size": 10}), tmp_path / "run")

    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "a.csv")
    ask("a.csv")
    before = snapshot(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.csv").rename(tmp_path / "elsewhere/b.csv")
    for spelled in ("elsewhere/b.csv", "./elsewhere/../elsewhere/b.csv", tmp_path / "elsewhere/b.csv"):
        assert "is finished: 1 trials" in ask(spelled)
    write_images(tmp_path / "a.csv", first=1)
    with pytest.raises(RequestError, match="its trials trained on other data"):
        ask("a.csv")
    assert {file: text for file, text in snapshot(tmp_path / "run").items() if file in before} == before
    (tmp_path / "run/data.json").unlink()  # then nothing says that the data are the same
    with pytest.raises(RequestError, match=r"another study, which differs in data\.path"):
        ask(tmp_path / "elsewhere/b.csv")


@pytest.mark.slow
def test_a_network_edited_under_its_name_is_refused(tmp_path, monkeypatch):
    """Its trials are neither called finished, nor resumed, nor loaded, as those of the other network."""
    study = make_study()
    run(study, tmp_path)
    before = snapshot(tmp_path)
    assert RunFolder(tmp_path).read_config() == study.to_dict()
    monkeypatch.setitem(LADDER, "tiny", tuple(Gelu() if layer == Relu() else layer for layer in LADDER["tiny"]))
    said = r"models='tiny'.* trained another network of that name: layer 3 was Relu\(\) and is Gelu\(\)"
    for ask in (run, lambda study, workdir: cnnjax.load_trial(workdir, *trial_ids(workdir))):
        with pytest.raises(RequestError, match=said):
            ask(study, tmp_path)
    assert snapshot(tmp_path) == before
    run(study, tmp_path, overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text())["networks"]["tiny"][2] == "Gelu()"


@pytest.mark.slow
def test_a_network_edited_under_its_name_is_refused_whatever_was_lost(tmp_path, monkeypatch):
    """A plan.json that is gone or damaged is written anew, of the networks as they are now."""
    study = make_study()
    run(study, tmp_path)
    (tmp_path / "plan.json").unlink()
    monkeypatch.setitem(LADDER, "tiny", tuple(Gelu() if layer == Relu() else layer for layer in LADDER["tiny"]))
    with pytest.raises(RequestError, match="trained another network of that name"):
        run(study, tmp_path)


def test_a_network_that_is_not_on_the_ladder_here_is_said_to_be_the_studys_own(tmp_path, monkeypatch):
    run(make_study(), tmp_path)
    (trial,) = trial_ids(tmp_path)
    monkeypatch.delitem(LADDER, "tiny")
    with pytest.raises(RequestError, match=r"models='tiny'.* the study's file adds to the ladder"):
        cnnjax.load_trial(tmp_path, trial)


def test_a_run_that_stored_no_layers_goes_on(tmp_path):
    run(make_study(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("networks", "crc32")})
    )
    assert "is finished" in run(make_study(), tmp_path)
    assert cnnjax.load_trial(tmp_path, *trial_ids(tmp_path)).trial.epochs == 2


def test_a_wrong_study_does_not_overwrite(tmp_path):
    run(make_study(), tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(RequestError, match=r"train\.batch_size must be .*200, got 201"):
        run(make_study(train={"batch_size": 201}), tmp_path, overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [('{"seeds": [0', "cannot be read"), ("[1]", "no"), ('{"sedes": [0]}', "sedes"), ("\x00", "cannot be read")],
)
def test_a_damaged_config_is_refused_until_overwritten(text, words, tmp_path):
    run(make_study(), tmp_path)
    (tmp_path / "config.json").write_text(text)
    before = snapshot(tmp_path)
    with pytest.raises(RequestError, match=words):
        run(make_study(), tmp_path)
    assert snapshot(tmp_path) == before
    run(make_study(), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text())["seeds"] == [0]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_touched(overwrite, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for workdir, words in ((file, "is a file"), (tmp_path, r"holds no config\.json"), (file / "x", "is a file")):
        with pytest.raises(RequestError, match=words):
            run(make_study(), workdir, overwrite=overwrite)
    assert snapshot(tmp_path) == {file: b"mine"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system without folders of one's own")
def test_a_folder_that_cannot_be_made_is_one_line():
    with pytest.raises(RequestError, match=r"workdir='/proc/run': .*use a folder, or a place for a new one"):
        run(make_study(), Path("/proc/run"))


def test_a_kill_while_the_config_is_written_leaves_a_new_folder(tmp_path):
    (tmp_path / ".config.json.123.tmp").write_text('{"mod')
    run(make_study(), tmp_path)
    assert len(cnnjax.load_results(tmp_path)) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("basline",)}, ["models", "'basline'", "did you mean 'baseline'?"]),
        ({"models": ("tiny", "base")}, ["models", "'base'", "8x8", "too small", "at least 16x16"]),
        ({"train": {"batch_size": (50, 201)}}, ["train.batch_size", "201", "200"]),
        ({"data": {"name": "cifr10", "train_examples": None}}, ["data.name", "'cifr10'", "'cifar10'"]),
        ({"data": {"path": "/nowhere/at/all"}}, ["data.path", "/nowhere/at/all"]),
    ],
)
def test_a_wrong_study_is_refused_and_leaves_nothing(changes, words, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(RequestError) as refused:
        run(make_study(**changes), tmp_path / "run")
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_data_that_is_not_there_is_said_at_once(tmp_path):
    """It takes no longer than to refuse a model, which needs the same imports and no data."""

    def refused(override):
        command = [sys.executable, "-m", "cnnjax.launch", f"--config={ROOT}/configs/quickstart.py", override]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, f"--workdir={tmp_path / 'run'}"],
            **{"cwd": ROOT, "env": {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}},
            **{"capture_output": True, "text": True, "timeout": 60},
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        return time.perf_counter() - start, done.stderr

    model_seconds, _ = refused("--config.models=basline")
    seconds, message = refused("--config.data.name=cifar10")
    assert seconds < model_seconds + 2
    assert all(word in message for word in ("cifar10", str(tmp_path), "TFDS_DATA_DIR", "data.path"))
    assert list(tmp_path.iterdir()) == []
