"""Axes without effect on some or all trials: identical copies are neither trained nor reported as a tie."""

import json

import pytest

import cnnjax
from cnnjax.commands.plan_table import plan_table
from cnnjax.models.ladder import LADDER
from cnnjax.models.specs import Conv, Dense, Dropout, Relu, Residual
from cnnjax.study import axes
from cnnjax.study.plan import check_axes, make_plan
from cnnjax.utils.errors import RequestError
from tests.support.runs import run
from tests.support.studies import make_study

SGD = {"optimizer": "sgd", "momentum": 0.0}
FIXED = {"init": 0, "order": 0}  # the other streams follow the seed, and not every model uses them
NOWHERE = [
    ("train.dropout_rate", {"models": "baseline", "train": {"dropout_rate": (0.1, 0.5)}}),
    ("train.dropout_rate", {"models": "medium", "train": {"dropout_rate": (None, 0.5)}}),  # the model's own rate
    ("train.momentum", {"train": {"optimizer": "adam", "momentum": (0.5, 0.9)}}),
    ("train.nesterov", {"train": {**SGD, "nesterov": (False, True)}}),
    ("train.b2", {"train": {**SGD, "b2": (0.9, 0.999)}}),
    ("train.optimizer", {"train": {"weight_decay": 0.0, "optimizer": ("adam", "adamw")}}),
    ("train.optimizer", {"train": {**SGD, "weight_decay": 0.1, "optimizer": ("sgd", "sgdw")}}),
    ("train.stage_start", {"train": {"stage_start": ("best", "last")}}),
    ("train.schedule", {"train": {"schedule": ("constant", "piecewise:22=0.1"), "epochs": (5, 10)}}),
    ("train.early_stopping", {"train": {"early_stopping": ("val_loss:20", "val_loss:30"), "epochs": 10}}),
    ("train.convolution", {"models": "dense", "train": {"convolution": ("auto", "patches")}}),
    ("train.learning_rate", {"train": {"learning_rate": (0.1, 0.2), "stages": ({"learning_rate": 0.3},)}}),
    ("streams.augment", {"streams": {"augment": (0, 1)}}),
    ("streams.dropout", {"models": "baseline", "streams": {"dropout": (0, 1)}}),
    ("streams.dropout", {"train": {"dropout_rate": 0.0}, "streams": {"dropout": (0, 1)}}),
    ("streams.order", {"train": {"shuffle": False}, "streams": {"order": (0, 1)}}),
    (
        "seeds",
        {"models": "baseline", "seeds": (0, 1), "streams": FIXED},
    ),  # augment and dropout follow the seed, without effect
]
SOMEWHERE = [
    ("train.dropout_rate", 3, {"models": ("baseline", "medium"), "train": {"dropout_rate": (0.1, 0.5)}}),
    ("train.nesterov", 3, {"train": {"optimizer": "sgd", "momentum": (0.0, 0.9), "nesterov": (False, True)}}),
    ("train.momentum", 3, {"train": {"optimizer": ("adam", "sgd"), "momentum": (0.5, 0.9)}}),
    ("train.optimizer", 3, {"train": {"weight_decay": (0.0, 0.1), "optimizer": ("adam", "adamw")}}),
    ("train.schedule", 3, {"train": {"schedule": ("constant", "piecewise:7=0.1"), "epochs": (5, 10)}}),
    ("streams.order", 3, {"train": {"shuffle": (False, True)}, "streams": {"order": (0, 1)}}),
    ("streams.augment", 3, {"data": {"augment": ("none", "flip+crop")}, "streams": {"augment": (0, 1)}}),
    ("seeds", 3, {"models": ("baseline", "medium"), "seeds": (0, 1), "streams": FIXED}),
]
EVERYWHERE = {
    "models": ("medium", "baseline"),
    "seeds": (0, 1),
    "data": {"augment": ("flip",)},
    "train": {
        **{"optimizer": ("sgd", "sgdw"), "momentum": (0.8, 0.9), "nesterov": (False, True), "weight_decay": 0.1},
        **{"early_stopping": ("off", "val_loss:1"), "schedule": ("constant", "warmup:1")},
        **{"label_smoothing": (0.0, 0.1), "clip_norm": (None, 1.0), "shuffle": (False, True)},
    },
}


@pytest.mark.parametrize(("axis", "changes"), NOWHERE, ids=lambda value: value if isinstance(value, str) else "")
def test_an_axis_without_effect_on_any_trial_is_refused(axis, changes):
    study = make_study(**{"models": "medium"} | changes)
    with pytest.raises(RequestError, match=rf"^{axis}=.* all values train identically, .* matters .*; use one value"):
        check_axes(study, make_plan(study))


@pytest.mark.parametrize(("axis", "count", "changes"), SOMEWHERE, ids=lambda v: v if isinstance(v, str) else "")
def test_points_that_train_identically_are_one_trial(axis, count, changes):
    study = make_study(**{"models": "medium"} | changes)
    check_axes(study, make_plan(study))
    plan = make_plan(study)
    assert (len(plan.trials), plan.repeats) == (count, {axis: 1})
    assert axes.where_it_matters(axis) != axes.where_it_matters("train.learning_rate")


def test_axes_with_an_effect_on_all_trials_are_complete():
    study = make_study(**EVERYWHERE)
    check_axes(study, make_plan(study))
    plan = make_plan(study)
    assert (len(plan.trials), plan.repeats) == (2**10, {})
    read = {json.dumps({**trial.row(), "trial": None}) for trial in plan.trials}
    assert len(read) == 2**10


def test_two_models_with_the_same_layers_are_refused(monkeypatch):
    monkeypatch.setitem(LADDER, "same", LADDER["medium"])
    with pytest.raises(RequestError, match=r"models='same'.*layers of 'medium'"):
        study = make_study(models=("baseline", "medium", "same"))
        check_axes(study, make_plan(study))


def test_layers_within_residuals_count(monkeypatch):
    """Their dropout and their convolutions: the axes have an effect."""
    study = {"models": ("nested",), "train": {"dropout_rate": (0.1, 0.5), "convolution": ("dense", "patches")}}
    monkeypatch.setitem(LADDER, "nested", (Residual(Conv(1), Dropout(0.3)), Dense()))
    assert len(make_plan(make_study(**study)).trials) == 4
    monkeypatch.setitem(LADDER, "nested", (Residual(Relu()), Dense()))
    assert len(make_plan(make_study(**study)).trials) == 1


@pytest.mark.slow
def test_a_run_reports_an_axis_without_effect(quick, rough, monkeypatch, tmp_path):
    monkeypatch.setitem(LADDER, "dull", (Dense(4), Dense()))
    study = make_study(models=("tiny", "dull"), train={"dropout_rate": (0.1, 0.5)})
    line = "1 point of the grid would train identically to another: train.dropout_rate matters for models with dropout"
    assert line in plan_table(study)
    assert line in run(study, tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text())["repeats"] == {"train.dropout_rate": 1}
    rows = cnnjax.load_results(tmp_path)
    assert [*zip(rows.model, rows.dropout_rate, strict=True)] == [("tiny", 0.1), ("tiny", 0.5), ("dull", 0.1)]


@pytest.mark.slow
def test_a_plan_of_a_version_that_trained_copies_is_refused(quick, rough, tmp_path):
    """There, t0001 is another trial. That version numbered the trials."""
    study = make_study()
    run(study, tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    del plan["crc32"], plan["trial_ids"]
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "trials": 2}))
    with pytest.raises(RequestError, match="had 2 trials, and has 1 in this version"):
        cnnjax.load_trial(tmp_path, "t0000")
    with pytest.raises(RequestError, match=r"an older version of cnnjax trained its trials; .*--overwrite it"):
        run(study, tmp_path)


def test_drop_last_without_an_incomplete_batch_is_no_axis(quick, rough, tmp_path):
    study = make_study(train={"drop_last": (False, True), "batch_size": (60, 50)})
    with pytest.raises(RequestError, match=r"train.drop_last=.* no example is left over by batches of 50"):
        run(study, tmp_path / "run")
