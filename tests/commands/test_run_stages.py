"""Runs whose trials stop early or have several stages: their files, and what a crash at any write leaves of them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

import cnnjax
from cnnjax.runs.integrity import read_lines
from cnnjax.training.population import Population
from tests.support.runs import assert_no_line_twice, crash_everywhere, read_all, run
from tests.support.studies import make_study
from tests.training.test_population import UNSTEADY

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
def test_rows_of_trials_that_stop_early(tmp_path, monkeypatch):
    calls = []
    advance = Population.advance

    def counted(self, state, *arguments):
        calls.append(int(np.asarray(state.epoch).max()))
        return advance(self, state, *arguments)

    monkeypatch.setattr(Population, "advance", counted)
    longest = 60  # a processor that rounds otherwise stops training elsewhere, but hardly so late
    study = make_study(seeds=(0, 1), train={**UNSTEADY, "epochs": (3, longest), "early_stopping": "val_loss:1"})
    said = run(study, tmp_path)
    results = cnnjax.load_results(tmp_path)
    metrics = pd.DataFrame(read_lines(tmp_path / "metrics.jsonl").intact)
    assert "early_stopped" in set(results.status)
    for row in results.itertuples():
        lines = metrics[(metrics.member == row.member) & (metrics.epoch <= row.epochs)].set_index("epoch")
        assert row.epochs_run == lines.index.max() <= row.epochs
        assert row.status == ("early_stopped" if row.epochs_run < row.epochs else "ok")
        assert row.best_epoch == lines.val_loss.idxmin()
        assert row.val_loss == lines.val_loss[row.best_epoch]
        assert row.train_accuracy == lines.train_accuracy[row.best_epoch]
        (evaluated,) = metrics[metrics.trial == row.trial].itertuples()
        assert evaluated.epoch == row.epochs_run
        labels = np.load(tmp_path / "predictions/labels.npz")["labels"]
        logits = np.load(tmp_path / f"predictions/{row.trial}.npz")["logits"]
        assert (logits.argmax(1) == labels).mean() == pytest.approx(row.test_accuracy, abs=1e-6)
    last = int(results.epochs_run.max())
    assert last < longest and len(calls) == last  # nothing trains behind the end of the last member
    seen = metrics.member.notna().sum() * 200
    assert f"{seen:,} images in" in said.replace("\n", " ")


@pytest.mark.slow
def test_images_per_second_are_those_that_were_seen(tmp_path):
    """Not those of epochs that trials which stopped early were spared."""
    run(make_study(seeds=(0, 1), train={**UNSTEADY, "epochs": (2, 400), "early_stopping": "val_loss:1"}), tmp_path)
    results = cnnjax.load_results(tmp_path)
    assert results.epochs_run.max() < 40
    for _, rows in results.groupby("epochs"):
        seconds = rows.seconds.sum()
        # of the seconds there are three digits
        error = 0.001 / seconds + 1e-3
        assert rows.images_per_second.iloc[0] == pytest.approx(200 * rows.epochs_run.sum() / seconds, rel=error)


@pytest.mark.slow
def test_a_validation_split_of_the_data_chooses_weights_without_being_asked_for(tmp_path, monkeypatch):
    """As one that the study asks for: the second stage starts from the weights that are the best on it."""
    monkeypatch.setattr("cnnjax.training.compiler.Population", Population)  # each study compiles its own
    whole = load_digits()
    images, labels = (whole.images * 15).astype(np.uint8), whole.target
    parts = {"train": slice(200), "val": slice(200, 300), "test": slice(300, 400)}
    arrays = {f"x_{name}": images[part] for name, part in parts.items()}
    np.savez(tmp_path / "digits.npz", **arrays, **{f"y_{name}": labels[part] for name, part in parts.items()})
    train = {**UNSTEADY, "learning_rate": 0.5, "stages": ({}, {"optimizer": "sgd", "epochs": 1})}
    runs = {"asked": {"validation_from": "given"}, "unasked": {}, "last": {}}
    for name, settings in runs.items():
        data = {
            "name": "a",
            "path": str(tmp_path / "digits.npz"),
            "train_examples": None,
            "validation": 0.0,
            **settings,
        }
        start = {"stage_start": "last"} if name == "last" else {}
        run(make_study(data=data, select="train_loss", train=train | start), tmp_path / name)
    asked, unasked, last = (read_all(tmp_path / name)[1] for name in runs)
    assert asked == unasked and asked != last and b"val_loss" in asked
    assert cnnjax.load_results(tmp_path / "unasked").val_loss.notna().all()


@pytest.mark.slow
def test_a_crash_before_any_write_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnjax.training.compiler.Population", _once())
    stages = ({}, {"optimizer": "sgd", "epochs": 1})
    study = make_study(train={**UNSTEADY, "epochs": 2, "early_stopping": "val_loss:1", "stages": stages})
    run(study, tmp_path / "whole")
    expected = read_all(tmp_path / "whole")
    for number, workdir in crash_everywhere(study, tmp_path):
        assert read_all(workdir) == expected, number
        assert_no_line_twice(workdir)
    assert number > 10


def _once():
    """A population that is compiled for the first run, and serves all."""
    made = []

    def population(*arguments):
        made.extend([] if made else [Population(*arguments)])
        return made[0]

    return population
