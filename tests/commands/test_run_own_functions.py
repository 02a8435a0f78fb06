"""A study with the loss and the metrics of docs/how-to/own-loss-and-metric.md, from training to the report."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cnnjax
from cnnjax.analysis.compare import compare_configurations
from cnnjax.analysis.compare.sides import read_side
from cnnjax.analysis.read import read_run
from cnnjax.utils.errors import RequestError
from tests.training.test_stages import stops_at

PAGE = Path(__file__).parents[2] / "docs/how-to/own-loss-and-metric.md"
LOSSES, METRICS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
STUDY = """
def get_config():
    return {
        "models": "tiny",
        "seeds": (0, 1),
        "select": "val_top3_accuracy",
        "metrics": NAMES,
        "data": {"train_examples": 200, "validation": 50},
        "train": {"batch_size": 50, "epochs": 8, "learning_rate": (0.01, 0.1), "loss": "losses.py:squared",
                  "class_weights": "balanced", "early_stopping": "val_brier_loss:1"},
    }
"""


def write_study(folder, metrics='("recall", "metrics.py:top3_accuracy", "metrics.py:brier_loss")'):
    (folder / "losses.py").write_text(LOSSES)
    (folder / "metrics.py").write_text(METRICS)
    (folder / "study.py").write_text(STUDY.replace("NAMES", metrics))
    return folder / "study.py"


@pytest.mark.slow
@pytest.mark.usefixtures("dense")
def test_a_study_with_a_loss_and_metrics_of_its_user(tmp_path):
    study, workdir = write_study(tmp_path), tmp_path / "run"
    run = cnnjax.run(study, workdir, progress=False)
    for name in ("losses", "metrics"):
        (tmp_path / f"{name}.py").unlink()  # what follows reads files, and runs no code of the user
    trials, history = run.trials, run.metrics
    assert "test_recall" in trials.dropna(axis=1) and trials["test_precision"].isna().all()
    labels = np.load(workdir / "predictions" / "labels.npz")["labels"]
    for row in trials.itertuples():
        logits = np.load(workdir / "predictions" / f"{row.trial}.npz")["logits"].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        ranks = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)
        assert row.test_top3_accuracy == pytest.approx((ranks < 3).mean(), abs=0.01)  # float16 logits tie
        assert row.test_brier_loss == pytest.approx(((p - np.eye(10)[labels]) ** 2).sum(1).mean(), rel=1e-5)
        of_member = history[history["member"] == row.member]
        assert (row.epochs_run, row.best_epoch) == stops_at(of_member["val_brier_loss"].to_numpy(), "val_loss", 1, 0.0)
        assert row.val_top3_accuracy == of_member.set_index("epoch")["val_top3_accuracy"][row.best_epoch]
    means = trials.groupby("learning_rate")["val_top3_accuracy"].mean()
    assert run.best["learning_rate"] == means.idxmax() and run.best["val_top3_accuracy"] == means.max()
    assert (trials["status"] == "early_stopped").any()  # otherwise the test is weak

    page = run.report().read_text(encoding="utf-8")
    assert "by validation top3 accuracy" in page
    configurations = pd.read_csv(workdir / "report" / "configurations.csv")
    assert {"test_top3_accuracy", "test_brier_loss"} <= {*configurations}
    sides = [read_side(f"{workdir}:learning_rate={rate}") for rate in means.index]
    found = compare_configurations(*sides, "test_brier_loss").comparison
    assert not found.larger_is_better and found.scale.name == "identity"
    errors = trials.groupby("configuration")["test_brier_loss"].mean()
    assert read_run(workdir, "test_brier_loss").best == errors.idxmin()

    other = write_study(tmp_path, '("metrics.py:top3_accuracy", "metrics.py:brier_loss")')
    with pytest.raises(RequestError, match=r"it holds another study, which differs in metrics"):
        cnnjax.run(other, workdir, progress=False)


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (".any(-1)", ".any()", r", line 5: it returns shape \[\] for 4"),
        ("top3", "top4", "did you mean 'top4_accuracy'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_anything_is_written(old, new, problem, tmp_path):
    study = write_study(tmp_path)
    (tmp_path / "metrics.py").write_text(METRICS.replace(old, new))
    with pytest.raises(RequestError, match=rf"metrics='metrics\.py:top3_accuracy': .*metrics\.py.*{problem}"):
        cnnjax.run(study, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
