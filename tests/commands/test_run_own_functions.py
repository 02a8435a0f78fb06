"""A study with a loss and metrics of its user, from a file outside the package, from training to the report."""

import numpy as np
import pandas as pd
import pytest

import cnnjax
from cnnjax.analysis.compare import compare_configurations
from cnnjax.analysis.compare.sides import read_side
from cnnjax.analysis.read import read_run
from cnnjax.utils.errors import RequestError
from tests.training.test_stages import stops_at

OWN = """
import jax
import jax.numpy as jnp


def squared(logits, targets):
    return ((logits - 4 * targets) ** 2).mean(-1)


def top3(logits, labels):
    return (jnp.argsort(logits, axis=-1)[:, -3:] == labels[:, None]).any(-1)


def brier_loss(logits, labels):
    return ((jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])) ** 2).sum(-1)
"""
STUDY = """
def get_config():
    return {
        "models": "tiny",
        "seeds": (0, 1),
        "select": "val_top3",
        "metrics": METRICS,
        "data": {"train_examples": 200, "validation": 50},
        "train": {"batch_size": 50, "epochs": 8, "learning_rate": (0.01, 0.1), "loss": "own.py:squared",
                  "class_weights": "balanced", "early_stopping": "val_brier_loss:1"},
    }
"""


def write_study(folder, metrics='("recall", "own.py:top3", "own.py:brier_loss")'):
    (folder / "own.py").write_text(OWN)
    (folder / "study.py").write_text(STUDY.replace("METRICS", metrics))
    return folder / "study.py"


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_study_with_a_loss_and_metrics_of_its_user(tmp_path):
    study, workdir = write_study(tmp_path), tmp_path / "run"
    run = cnnjax.run(study, workdir, progress=False)
    (tmp_path / "own.py").unlink()  # what follows reads files, and runs no code of the user
    trials, history = run.trials, run.metrics
    assert "test_recall" in trials.dropna(axis=1) and trials["test_precision"].isna().all()
    labels = np.load(workdir / "predictions" / "labels.npz")["labels"]
    for row in trials.itertuples():
        logits = np.load(workdir / "predictions" / f"{row.trial}.npz")["logits"].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        ranks = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)
        assert row.test_top3 == pytest.approx((ranks < 3).mean(), abs=0.01)  # float16 logits tie
        assert row.test_brier_loss == pytest.approx(((p - np.eye(10)[labels]) ** 2).sum(1).mean(), rel=1e-5)
        of_member = history[history["member"] == row.member]
        assert (row.epochs_run, row.best_epoch) == stops_at(of_member["val_brier_loss"].to_numpy(), "val_loss", 1, 0.0)
        assert row.val_top3 == of_member.set_index("epoch")["val_top3"][row.best_epoch]
    means = trials.groupby("learning_rate")["val_top3"].mean()
    assert run.best["learning_rate"] == means.idxmax() and run.best["val_top3"] == means.max()
    assert (trials["status"] == "early_stopped").any()  # otherwise the test is weak

    page = run.report().read_text(encoding="utf-8")
    assert "by validation top3" in page
    configurations = pd.read_csv(workdir / "report" / "configurations.csv")
    assert {"test_top3", "test_brier_loss"} <= {*configurations}
    sides = [read_side(f"{workdir}:learning_rate={rate}") for rate in means.index]
    found = compare_configurations(*sides, "test_brier_loss").comparison
    assert not found.larger_is_better and found.scale.name == "identity"
    assert (
        read_run(workdir, "test_brier_loss").best == trials.groupby("configuration")["test_brier_loss"].mean().idxmin()
    )

    with pytest.raises(RequestError, match=r"it holds another study, which differs in metrics"):
        cnnjax.run(write_study(tmp_path, '("own.py:top3", "own.py:brier_loss")'), workdir, progress=False)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [(".any(-1)", ".any()", r", line 10: it returns shape \[\] for 4"), ("top3", "top4", "did you mean 'top4'")],
)
def test_a_metric_that_does_not_fit_is_refused_before_anything_is_written(old, new, problem, tmp_path):
    study = write_study(tmp_path)
    (tmp_path / "own.py").write_text(OWN.replace(old, new))
    with pytest.raises(RequestError, match=rf"metrics='own\.py:top3': .*own\.py.*{problem}"):
        cnnjax.run(study, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
