"""A study that grows in its folder: only what is missing trains, and the results are those of a run from the start."""

import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

import cnnjax
from cnnjax.analysis.read import read_run
from cnnjax.commands import confirm as confirmation
from cnnjax.commands import run as runner
from cnnjax.report.sections.protocol import check
from cnnjax.runs.integrity import read_lines
from cnnjax.training.load import load_trials
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.runs import assert_equal_numbers, assert_no_line_twice, crash_everywhere, run
from tests.support.studies import make_study

pytestmark = pytest.mark.usefixtures("quick", "rough")

STEPS = (
    {},
    {"seeds": (0, 1)},
    {"seeds": (0, 1), "train": {"learning_rate": (0.02, 0.05)}},
    {"seeds": (0, 1), "train": {"learning_rate": (0.02, 0.05), "epochs": (2, 4)}},
    {"seeds": (0, 1, 2), "train": {"learning_rate": (0.02, 0.05), "epochs": (2, 4), "nesterov": (False, True)}},
)
NEW_EPOCHS = (2, 2, 4, 8, 4 * 12 - 16)  # of all members together
CLOSE = {"rtol": 0, "atol": 1e-6}


def trained_epochs(workdir):
    """How many epochs the members of a run have trained, all together."""
    files = workdir.glob("programs/*/metrics.jsonl")
    return sum("member" in line for file in files for line in read_lines(file).intact)


def rows_by_trial(workdir):
    """The rows of trials.csv, with their times, by trial."""
    _, *lines = (workdir / "trials.csv").read_text().splitlines()
    return {line.partition(",")[0]: line for line in lines}


@pytest.mark.slow
def test_every_step_trains_what_is_new_and_ends_as_a_run_from_the_start(tmp_path):
    before, rows = 0, {}
    for changes, new in zip(STEPS, NEW_EPOCHS, strict=True):
        run(make_study(**changes), tmp_path / "grown")
        grown = rows_by_trial(tmp_path / "grown")
        assert {trial: grown[trial] for trial in rows} == rows
        assert trained_epochs(tmp_path / "grown") - before == new
        before, rows = trained_epochs(tmp_path / "grown"), grown
    run(make_study(**STEPS[-1]), tmp_path / "whole")
    assert_equal_numbers(tmp_path / "grown", tmp_path / "whole", **CLOSE)
    assert_no_line_twice(tmp_path / "grown")
    grown, whole = (read_run(tmp_path / name) for name in ("grown", "whole"))
    np.testing.assert_allclose(grown.epochs["val_loss"], whole.epochs["val_loss"], atol=1e-6)
    assert grown.epochs[["member", "epoch"]].equals(whole.epochs[["member", "epoch"]])
    images = np.zeros((2, 8, 8, 1), np.uint8)
    for one, other in zip(*(load_trials(tmp_path / name, [*rows]) for name in ("grown", "whole")), strict=True):
        np.testing.assert_allclose(one.logits(images), other.logits(images), atol=1e-5)


@pytest.mark.slow
def test_asking_for_less_shows_less_and_deletes_nothing(tmp_path):
    whole, part = make_study(seeds=(0, 1), train={"epochs": (1, 2)}), make_study(seeds=(1,), train={"epochs": 1})
    run(whole, tmp_path)
    rows, lines = rows_by_trial(tmp_path), (tmp_path / "metrics.jsonl").read_bytes()
    assert "is finished: 1 trials" in run(part, tmp_path)
    (shown,) = rows_by_trial(tmp_path).items()
    assert shown[1] == rows[shown[0]] and len(cnnjax.load_results(tmp_path)) == 1
    (epoch,) = read_run(tmp_path).epochs.itertuples()
    assert epoch.epoch == 1 and epoch.member == shown[1].split(",")[1]
    hidden = next(trial for trial in rows if trial != shown[0])
    assert cnnjax.load_trial(tmp_path, hidden).trial.id == hidden
    assert "is finished: 4 trials" in run(whole, tmp_path)
    assert rows_by_trial(tmp_path) == rows and (tmp_path / "metrics.jsonl").read_bytes() == lines
    assert "earlier" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.slow
def test_other_values_of_an_axis_keep_those_that_are_there(tmp_path):
    run(make_study(train={"learning_rate": 0.02}), tmp_path)
    run(make_study(train={"learning_rate": 0.05}), tmp_path)
    assert cnnjax.load_results(tmp_path)["learning_rate"].tolist() == [0.05]
    assert "is finished" in run(make_study(train={"learning_rate": (0.05, 0.02)}), tmp_path)
    assert cnnjax.load_results(tmp_path)["learning_rate"].tolist() == [0.05, 0.02]


@pytest.mark.slow
def test_a_shorter_trial_that_is_asked_for_later_leaves_the_longer_one_alone(tmp_path):
    run(make_study(train={"epochs": 3}), tmp_path / "grown")
    lines = (tmp_path / "grown/metrics.jsonl").read_bytes()
    ((trial, row),) = rows_by_trial(tmp_path / "grown").items()
    run(make_study(train={"epochs": (1, 3, 4)}), tmp_path / "grown")
    run(make_study(train={"epochs": (1, 3, 4)}), tmp_path / "whole")
    assert rows_by_trial(tmp_path / "grown")[trial] == row
    assert (tmp_path / "grown/metrics.jsonl").read_bytes().startswith(lines)
    assert_equal_numbers(tmp_path / "grown", tmp_path / "whole", **CLOSE)
    assert_no_line_twice(tmp_path / "grown")
    for name in rows_by_trial(tmp_path / "grown"):
        assert cnnjax.load_trial(tmp_path / "grown", name).trial.id == name


@pytest.mark.slow
def test_more_epochs_with_less_of_another_axis_train_the_asked_members_only(tmp_path):
    rates = (0.02, 0.05)
    run(make_study(train={"learning_rate": rates}), tmp_path / "grown")
    run(make_study(train={"learning_rate": 0.05, "epochs": 4}), tmp_path / "grown")
    assert trained_epochs(tmp_path / "grown") == 2 * 2 + 2
    run(make_study(train={"learning_rate": rates, "epochs": (2, 4)}), tmp_path / "grown")
    run(make_study(train={"learning_rate": rates, "epochs": (2, 4)}), tmp_path / "whole")
    assert_equal_numbers(tmp_path / "grown", tmp_path / "whole", **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["val_loss:1", "train_loss:5", "val_accuracy:1:0.5"])
def test_more_epochs_go_on_with_early_stopping_as_if_they_had_been_asked_for_at_once(rule, tmp_path):
    stopping = {"early_stopping": ("off", rule), "learning_rate": (0.05, 0.5)}
    run(make_study(train={"epochs": 2, **stopping}), tmp_path / "grown")
    for name in ("grown", "whole"):
        run(make_study(train={"epochs": (2, 6), **stopping}), tmp_path / name)
    assert_equal_numbers(tmp_path / "grown", tmp_path / "whole", **CLOSE)


@pytest.mark.slow
def test_early_stopping_that_is_added_without_a_validation_split_is_another_program(tmp_path):
    less = {"data": {"validation": 0}, "select": "train_loss"}
    run(make_study(**less), tmp_path)
    run(make_study(**less, train={"early_stopping": ("off", "train_loss:1")}), tmp_path)
    assert len(cnnjax.load_results(tmp_path)) == 2 and len([*tmp_path.glob("programs/*")]) == 2


@pytest.mark.slow
def test_diverged_trials_stay_diverged(tmp_path):
    rates = {"learning_rate": (0.05, 1e9)}
    run(make_study(train=rates), tmp_path)
    run(make_study(train={**rates, "epochs": (2, 4)}), tmp_path)
    table = cnnjax.load_results(tmp_path)
    assert table[table.learning_rate > 1].status.tolist() == ["diverged", "diverged"]
    assert table[table.learning_rate < 1].status.tolist() == ["ok", "ok"]


@pytest.mark.slow
def test_a_schedule_with_a_horizon_trains_anew(tmp_path):
    run(make_study(train={"schedule": "cosine"}), tmp_path)
    run(make_study(train={"schedule": "cosine", "epochs": (2, 4)}), tmp_path)
    assert trained_epochs(tmp_path) == 2 + 4


def test_a_value_without_effect_renames_no_trial(tmp_path):
    """Of points of the grid that train identically, the first is the trial; a new first one describes it otherwise."""
    run(make_study(train={"momentum": 0.0, "nesterov": True}), tmp_path)
    (trial,) = rows_by_trial(tmp_path)
    assert "is finished" in run(make_study(train={"momentum": 0.0, "nesterov": False}), tmp_path)
    table = cnnjax.load_results(tmp_path)
    assert table.trial.tolist() == [trial] and table.nesterov.tolist() == [False]


@pytest.mark.slow
def test_an_unfinished_study_grows(tmp_path, monkeypatch):
    advance, calls = Population.advance, []

    def stop_in_epoch_3(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    monkeypatch.setattr(Population, "advance", stop_in_epoch_3)
    with pytest.raises(KeyboardInterrupt):
        run(make_study(train={"epochs": 4}), tmp_path / "grown")
    run(make_study(seeds=(0, 1), train={"epochs": (1, 4, 5)}), tmp_path / "grown")
    assert trained_epochs(tmp_path / "grown") == 10 and len(calls) == 3 + 3 + 5  # the state of epoch 1 is still there
    run(make_study(seeds=(0, 1), train={"epochs": (1, 4, 5)}), tmp_path / "whole")
    assert_equal_numbers(tmp_path / "grown", tmp_path / "whole", **CLOSE)


@pytest.mark.slow
def test_a_crash_before_any_write_of_growing_changes_nothing(tmp_path):
    def start(workdir):
        shutil.copytree(tmp_path / "started", workdir)

    study = make_study(seeds=(0, 1), train={"epochs": (1, 2, 3)})
    run(make_study(), tmp_path / "started")
    start(tmp_path / "whole")
    run(study, tmp_path / "whole")
    expected = {trial: row.rsplit(",", 2)[0] for trial, row in rows_by_trial(tmp_path / "whole").items()}
    for number, workdir in crash_everywhere(study, tmp_path, start):
        found = {trial: row.rsplit(",", 2)[0] for trial, row in rows_by_trial(workdir).items()}
        assert found == expected, number
        assert_no_line_twice(workdir)
        assert trained_epochs(workdir) == 6
    assert number > 15


@pytest.mark.slow
def test_a_confirmation_is_made_anew_after_the_study_has_grown(tmp_path, monkeypatch):
    monkeypatch.setattr(confirmation, "build_report", lambda workdir: None)

    def confirm(study):
        with Progress(Console(file=io.StringIO(), width=200)) as progress:
            runner.run(study, tmp_path, progress=progress)
            return confirmation.confirm(study, tmp_path, 2, progress=progress)

    def findings():
        return [finding.name for finding in check(read_run(tmp_path))]

    rates = {"learning_rate": (0.05, 0.02), "epochs": 1}
    confirm(make_study(train=rates))
    assert "confirmation-outdated" not in findings()
    run(make_study(seeds=(0, 1), train=rates), tmp_path)  # 1 was a fresh seed
    assert "confirmation-outdated" in findings()
    confirm(make_study(seeds=(0, 1), train=rates))
    assert "confirmation-outdated" not in findings()
    fresh = json.loads((tmp_path / "confirm/2/confirmation.json").read_text())
    assert fresh["fresh_seeds"] == [2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"data": {"train_examples": 200}}, {"data": {"train_examples": (100, 200)}}),
        ({"streams": {"split": 0}}, {"streams": {"split": (1, 0)}, "data": {"normalization": "standard"}}),
        ({"data": {"augment": "flip"}}, {"data": {"augment": ["none", "flip", "flip+crop"]}}),
        ({"data": {"normalization": "half"}}, {"data": {"normalization": ("standard", "half", "unit")}}),
    ],
)
def test_axes_of_data_grow(less, more, tmp_path):
    run(make_study(**less), tmp_path / "grown")
    (trial,) = rows_by_trial(tmp_path / "grown")
    for name in ("grown", "whole"):
        run(make_study(**more), tmp_path / name)
    assert_equal_numbers(tmp_path / "grown", tmp_path / "whole", **CLOSE)
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1)).astype(np.uint8)
    for name in rows_by_trial(tmp_path / "whole"):
        one, other = (cnnjax.load_trial(tmp_path / folder, name).logits(images) for folder in ("grown", "whole"))
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert cnnjax.load_trial(tmp_path / "grown", trial).trial.id == trial  # also if it is not asked for any more


def test_what_is_no_axis_is_refused_with_what_is_allowed(tmp_path):
    run(make_study(), tmp_path)
    said = r"workdir=.*differs in data\.validation \(50 there, 60 here\); only axes may have other values .*--overwrite"
    with pytest.raises(RequestError, match=said):
        run(make_study(seeds=(0, 1), data={"validation": 60}), tmp_path)
    assert trained_epochs(tmp_path) == 2
