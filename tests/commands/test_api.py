"""Studies from Python: what `cnnjax.run` takes, what a run says, and that it says what the commands say."""

import contextlib
import html
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

import cnnjax
from cnnjax import compare
from cnnjax.commands import launch as launching
from cnnjax.study.schema import from_config
from cnnjax.training.devices import pinned
from cnnjax.utils.progress import Progress
from tests.support.made_up_run import make_config, make_run, read_answer
from tests.support.runs import ROOT, read_all
from tests.support.studies import TINY

GRID = make_config([0, 1, 2], select="val_accuracy", data={"validation": 0.1}, train={"learning_rate": [0.01, 0.03]})
GRID["models"] = ["<i>small</i>", "big & wide"]
FILE = f"from ml_collections import ConfigDict\ndef get_config(arg=''):\n    return ConfigDict({GRID!r})\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run."""
    return make_run(tmp_path_factory.mktemp("runs") / "grid", GRID, examples=60)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A finished run with other seeds."""
    return make_run(tmp_path_factory.mktemp("runs") / "other", {**GRID, "seeds": [3, 4, 5, 6]}, examples=60)


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """The studies that were launched, in an empty current folder, with their folders and options."""
    calls = []

    def launch(study, place, **options):
        calls.append((study, place, options))
        if not Path(place).exists():
            make_run(Path(place), study.to_dict(), examples=20)

    monkeypatch.setattr(launching, "launch", launch)
    monkeypatch.chdir(tmp_path)
    return calls


# What it takes


def test_a_dict_a_config_dict_and_a_file_are_the_same_trials(launched, tmp_path):
    (tmp_path / "own.py").write_text(FILE)
    mixed = {**GRID, "train": ConfigDict(GRID["train"])}
    configs = (GRID, ConfigDict(GRID), mixed, "own.py", Path("own.py"), "own.py:small", from_config(GRID))
    runs = [cnnjax.run(config, f"runs/{number}", progress=False) for number, config in enumerate(configs)]
    assert [study for study, _, _ in launched] == [from_config(GRID)] * len(configs)
    for run in runs[1:]:
        pd.testing.assert_frame_equal(run.trials, runs[0].trials)


def test_the_folder_is_that_of_the_command_or_named_by_the_study(launched, tmp_path):
    (tmp_path / "own.py").write_text(FILE)
    other = {**GRID, "seeds": [0, 1]}
    configs = ("own.py", "own.py:small", GRID, ConfigDict(GRID), other)
    files, arguments, first, again, another = [cnnjax.run(config, progress=False).workdir for config in configs]
    assert (files, arguments) == (Path("runs/own"), Path("runs/own-small"))
    assert re.fullmatch(r"digits-[0-9a-f]{8}", first.name) and first.parent == Path("runs")
    assert first == again != another


def test_options_are_those_of_the_command(launched):
    given = {"overwrite": True, "confirm": 2, "profile": True, "engine": "engine"}
    given |= {"until": "decided", "max_seeds": 9, "margin": 0.01}
    cnnjax.run(GRID, "here", **given)
    ((_, place, options),) = launched
    progress = options.pop("progress")
    assert isinstance(progress, Progress) and place == "here"
    assert options == {**given, "report": False}


@pytest.mark.parametrize(
    ("config", "options", "line"),
    [
        ({"sedes": 1}, {}, "sedes=1: there is no such key; did you mean 'seeds'?"),
        ({"train": {"lerning_rate": 1}}, {}, "train.lerning_rate=1: there is no such key; did you mean"),
        ({"train.epochs": 1}, {}, "train.epochs=1: there is no such key"),
        (ConfigDict({"seeds": -1}), {}, "seeds must be a whole number"),
        ([], {}, "config must be a mapping, a ConfigDict, or the path of a config file, got []"),
        ("nowhere.py", {}, "--config='nowhere.py': there is no file nowhere.py"),
        (GRID, {"confirm": 1}, "confirm must be a whole number >= 2, or None, got 1"),
        (GRID, {"until": "foo"}, "until must be 'decided', or None, got 'foo'"),
        (GRID, {"until": "decided", "margin": 0}, "margin must be a number > 0, got 0"),
        (GRID, {"max_seeds": 9}, "max_seeds=9: it needs until='decided'"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(launched, config, options, line, tmp_path):
    with pytest.raises(cnnjax.RequestError) as error:
        cnnjax.run(config, **options)
    assert isinstance(error.value, ValueError)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert not launched and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_run_is_not_opened(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(cnnjax.RequestError, match=r"must be a run's folder \(with config\.json\)"):
        cnnjax.open_run(tmp_path / name)


def test_options_of_jax_are_the_users_again_afterwards(launched):
    before = jax.config.jax_debug_nans
    jax.config.update("jax_debug_nans", True)
    try:
        with pinned():
            assert jax.config.jax_debug_nans is False
        assert jax.config.jax_debug_nans is True
    finally:
        jax.config.update("jax_debug_nans", before)
    with jax.enable_x64(True), pytest.raises(cnnjax.RequestError, match="jax_enable_x64 must be False"):
        cnnjax.run(GRID)
    assert not launched and jax.config.jax_enable_x64 is False


# What a run says


def test_the_tables_are_those_of_the_files(folder):
    run = cnnjax.open_run(folder)
    table = pd.read_csv(folder / "trials.csv")
    assert run.trials[["trial", "seed", "test_accuracy"]].equals(table[["trial", "seed", "test_accuracy"]])
    assert run.trials["configuration"].nunique() == 4
    lines = pd.read_json(folder / "metrics.jsonl", lines=True, precise_float=True)
    assert run.metrics[["member", "epoch", "val_loss"]].equals(lines[["member", "epoch", "val_loss"]])
    changed = run.trials
    changed["seed"] = 9
    assert run.trials["seed"].equals(table["seed"])


def test_the_best_is_the_configuration_with_the_best_mean(folder):
    table = pd.read_csv(folder / "trials.csv")
    groups = table.groupby(["model", "learning_rate"])
    model, rate = groups["val_accuracy"].mean().idxmax()
    best, group = cnnjax.open_run(folder).best, groups.get_group((model, rate))
    assert (best["model"], best["learning_rate"], best["n"]) == (model, rate, 3)
    assert best["trials"] == list(group["trial"])
    assert best["test_accuracy"] == pytest.approx(group["test_accuracy"].mean())
    json.dumps(best)  # plain numbers


def test_a_run_without_a_finished_trial_has_no_best_and_says_so(tmp_path):
    run = cnnjax.open_run(make_run(tmp_path / "run", GRID, keep=0, examples=20))
    assert run.best is None and len(run.trials) == 0 and run.verdict().fields == {}
    assert repr(run.verdict()) == "No trial has finished with a value to select by."
    assert "0 of 12 trials finished" in run._repr_html_()
    assert repr(run) == f"StudyRun({str(tmp_path / 'run')!r}, 0 of 12 trials)"


def test_the_verdict_is_the_answer_of_the_report_with_its_numbers(folder):
    run = cnnjax.open_run(folder)
    verdict = run.verdict()
    assert verdict.replace("\n\n", " ") == read_answer(folder) and repr(verdict) == str(verdict)
    means = run.trials.groupby("configuration")["val_accuracy"].mean().sort_values()
    fields = verdict.fields
    assert (fields["measure"], fields["seeds"]) == ("val_accuracy", 3)
    assert fields["difference"] == pytest.approx(means.iloc[-1] - means.iloc[-2])
    assert fields["low"] < fields["difference"] < fields["high"]
    assert fields["verdict"] == "undecided" and f"{fields['more_seeds']} more seeds of each would decide" in verdict
    assert f"undecided against {fields['undecided'] - 1} other configurations" in verdict


def test_html_shows_the_answer_and_the_ranking_with_names_escaped(folder, tmp_path):
    shown = cnnjax.open_run(folder)._repr_html_()
    assert "<i>" not in shown and "&lt;i&gt;small&lt;/i&gt;" in shown and "big &amp; wide" in shown
    assert html.escape(read_answer(folder).split(". ")[0]) in shown
    assert shown.count("<tr>") == 5 and "12 of 12 trials finished" in shown  # the head and four configurations
    assert not re.search(r"<script|<link|src=|href=", shown)


def test_html_names_a_report_that_is_not_older_than_the_results(tmp_path):
    run = cnnjax.open_run(make_run(tmp_path / "run", make_config([0]), examples=20))
    page = tmp_path / "run/report/index.html"
    assert "call .report()" in run._repr_html_()
    page.parent.mkdir()
    page.touch()
    assert str(page) in run._repr_html_()
    later = page.stat().st_mtime + 1
    os.utime(tmp_path / "run/trials.csv", (later, later))
    assert "call .report()" in run._repr_html_()


@pytest.mark.slow
def test_the_report_is_built_where_the_command_builds_it(tmp_path):
    run = cnnjax.open_run(make_run(tmp_path / "run", make_config([0]), examples=20))
    page = run.report()
    assert page == tmp_path / "run/report/index.html" and str(page) in run._repr_html_()
    assert html.escape(run.verdict().partition("\n")[0]) in page.read_text()


@pytest.mark.parametrize("as_runs", [False, True])
def test_compare_runs_is_what_the_command_prints(folder, other, as_runs):
    def printed(form):
        with contextlib.redirect_stdout(out := io.StringIO()):
            compare.main(compare.parse(["compare", str(folder), str(other), "--margin=0.01", f"--format={form}"]))
        return out.getvalue()

    sides = [cnnjax.open_run(side) if as_runs else side for side in (folder, other)]
    found = cnnjax.compare_runs(*sides, margin=0.01)
    assert f"{found!r}\n" == printed("text")
    assert found.fields == json.loads(printed("json"))
    with pytest.raises(cnnjax.RequestError, match="same trials"):
        cnnjax.compare_runs(folder, folder)


# In a process


def test_importing_it_imports_neither_numpy_nor_absl():
    script = "import sys, cnnjax; print({'numpy', 'jax', 'absl', 'pandas', 'rich'} & {*sys.modules}, dir(cnnjax))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("set()") and "'run'" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_program_with_flags_of_its_own_may_run_a_study():
    script = """
from absl import flags
flags.DEFINE_string("config", None, "of the program")
flags.DEFINE_string("workdir", None, "of the program")
import cnnjax
try:
    cnnjax.run({"sedes": 1})
except cnnjax.RequestError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("sedes=1: there is no such key"), done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_interrupted_and_called_again_a_run_ends_as_without(tmp_path, monkeypatch):
    config = {**TINY, "seeds": (0, 1), "train": {**TINY["train"], "epochs": 3}}
    whole = cnnjax.run(config, tmp_path / "whole", progress=False)
    assert len(whole.trials) == 2 and set(whole.trials["status"]) == {"ok"}
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cnnjax.run(config, tmp_path / "run", progress=False)
    assert len(cnnjax.open_run(tmp_path / "run").trials) == 0
    run = cnnjax.run(config, tmp_path / "run", progress=False)
    assert read_all(tmp_path / "run") == read_all(tmp_path / "whole")
    trial = run.best["trials"][0]
    images = np.zeros((2, 8, 8, 1), np.uint8)
    expected = cnnjax.load_trial(tmp_path / "whole", trial).logits(images)
    np.testing.assert_array_equal(run.load(trial).logits(images), expected)
    assert not (tmp_path / "run/report").exists()  # until it is asked for
