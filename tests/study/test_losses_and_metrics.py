"""The values of `train.loss`, `train.class_weights` and `metrics`, and which measures a study may select by."""

import math

import pytest

from cnnjax.analysis.columns import bounds, larger_is_better, measure_label
from cnnjax.data.load import load_checked
from cnnjax.study.metrics import MEASURES
from cnnjax.study.plan import check_axes, make_plan
from cnnjax.study.schema import Study, from_config
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"train": {"loss": "hinge"}}, "train.loss must be one of cross_entropy, .*, got 'hinge'"),
        ({"train": {"loss": "focal:-1"}}, "train.loss must be one of"),
        ({"train": {"loss": "focal:nan"}}, "train.loss must be one of"),
        ({"train": {"loss": ["losses.txt:focal"]}}, "train.loss must be one of"),
        ({"train": {"class_weights": (1, 0, 2)}}, r"class_weights must be None, balanced, .*, got \(1, 0, 2\)"),
        ({"train": {"class_weights": (1, math.inf)}}, "class_weights must be None"),
        ({"train": {"class_weights": 2}}, "class_weights must be None"),
        ({"train": {"class_weights": (None, None)}}, "a value occurs twice"),
        ({"metrics": ("accuracy", "recal")}, "metrics must be one of loss, .*, got 'recal'"),
        ({"metrics": "own.py:f1"}, "metrics='own.py:f1': f1 is a built-in metric"),
        ({"metrics": ("a.py:top3", "b.py:top3")}, "two metrics have the same name"),
        ({"select": "val_top3"}, "select='val_top3': the study does not record it; use one of val_loss"),
        ({"select": "val_recall", "metrics": ()}, "select='val_recall': the study does not record it"),
        ({"train": {"early_stopping": "val_top3:2"}}, "train.early_stopping='val_top3:2': the study does not record"),
        ({"metrics": "a.py:top3", "train": {"early_stopping": "test_top3:2"}}, "train.early_stopping must be off"),
    ],
)
def test_what_is_not_allowed(config, problem):
    with pytest.raises(RequestError, match=problem):
        from_config(config)


def test_an_axis_of_weights_and_one_tuple_of_weights():
    assert from_config({"train": {"class_weights": [1, 2.5]}}).train.class_weights == ((1, 2.5),)
    study = from_config({"train": {"class_weights": [None, "balanced", [1, 2.5, 1 / 3]]}})
    levels = [trial.static.class_weights for trial in list_trials(study)]
    assert levels == [None, "balanced", "1/2.5/0.333333333"]
    assert from_config(study.to_dict()) == study
    with pytest.raises(RequestError, match=r"train.class_weights must be 10 numbers, one per class, got \(1, 2.5"):
        load_checked(study)


def test_names_of_one_loss_are_one_trial():
    study = from_config({"train": {"loss": ("focal", "focal:2.0", "focal:3")}})
    assert [trial.static.loss for trial in list_trials(study)] == ["focal", "focal:3"]
    names = [
        [trial.id for trial in list_trials(from_config({"train": {"loss": loss}}))] for loss in ("focal", "focal:2")
    ]
    assert names[0] == names[1] != [trial.id for trial in list_trials(from_config({}))]
    with pytest.raises(RequestError, match=r"train\.loss=.*all values train identically"):
        check_axes(same := from_config({"train": {"loss": ("focal", "focal:2")}}), make_plan(same))


def test_the_loss_and_the_weights_at_their_defaults_change_no_id():
    """The id is that of the version before them."""
    assert [trial.id for trial in list_trials(from_config({}))] == ["t926932cbf877"]


def test_names_of_metrics_say_how_to_read_them():
    assert larger_is_better("val_top3") and bounds("val_top3") == (-math.inf, math.inf)
    assert not any(map(larger_is_better, ("val_brier_loss", "test_calibration_error", "test_deviance")))
    assert bounds("test_top3_accuracy") == (0, 1) and measure_label("test_top3_accuracy").endswith(", %")
    assert measure_label("val_brier_loss") == "Validation brier loss"


def test_the_measures_of_a_study():
    assert Study().measures == MEASURES
    few = from_config({"metrics": ("recall", "own.py:top3")}).measures
    validation = ("val_loss", "val_accuracy", "val_recall", "val_f1", "val_top3")
    assert few == ("train_loss", "train_accuracy", *validation, *(name.replace("val", "test") for name in validation))
