"""Losses and metrics of users are refused before training, by the file and the line, if they do not fit."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.study import own_code
from cnnjax.study.schema import from_config
from cnnjax.training.losses import load_loss, losses_of
from cnnjax.training.own_functions import check_functions, load_metrics
from cnnjax.utils.errors import RequestError

FILE = """import jax
import jax.numpy as jnp


def good(logits, targets):
    return -(targets * jax.nn.log_softmax(logits)).sum(-1)


def mean(logits, targets):
    return good(logits, targets).mean()


def pair(logits, targets):
    return logits, targets


def step(logits, targets):
    return (logits.argmax(-1) != targets.argmax(-1)).astype(float)


def count(logits, targets):
    return logits.argmax(-1)


def branch(logits, targets):
    return logits.max(-1) if logits.sum() > 0 else logits.min(-1)


def one():
    return 1


def of_three(logits, labels):
    return logits @ jnp.ones(3)


number = 3
"""


def line_of(name):
    return FILE[: FILE.index(f"def {name}")].count("\n") + 1


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    own_code.activate({"own.py": {"path": str(path), "sha256": hashlib.sha256(FILE.encode()).hexdigest()}})
    yield path
    own_code.activate({})


def problem_of(key, name, num_classes=4):
    group = {"metrics": (f"own.py:{name}",)} if key == "metrics" else {"train": {"loss": f"own.py:{name}"}}
    with pytest.raises(RequestError) as error:
        check_functions(from_config(group), num_classes)
    said = str(error.value)
    assert said.startswith(f"{key}='own.py:{name}': ") and "\n" not in said
    return said


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mean", "it returns shape [] for 4 examples; return one number for each example"),
        ("pair", "it returns tuple for 4 examples"),
        ("step", "its gradient with respect to the logits is zero"),
        ("count", "it returns int32, which has no gradient"),
    ],
)
def test_a_loss_that_does_not_fit_is_named_with_its_line(own, name, problem):
    assert f"{own}, line {line_of(name)}: {problem}" in problem_of("train.loss", name)


def test_a_loss_that_cannot_be_traced_is_named_with_the_line_that_fails(own):
    assert f"{own}, line {line_of('branch') + 1}: TracerBoolConversionError" in problem_of("train.loss", "branch")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mean", "it returns shape [] for 4 examples"),
        ("one", "TypeError: one() takes 0 positional arguments but 2 were given"),
        ("number", "it is not a function"),
        ("goood", "did you mean 'good'?"),
    ],
)
@pytest.mark.parametrize("key", ["metrics", "train.loss"])
def test_a_function_that_is_none_is_refused(own, key, name, problem):
    assert problem in problem_of(key, name)


def test_a_function_is_called_with_the_number_of_classes_of_the_data(own):
    study = from_config({"metrics": ("own.py:of_three",)})
    check_functions(study)
    check_functions(study, 3)
    assert f"{own}, line {line_of('of_three') + 1}: " in problem_of("metrics", "of_three")


def test_an_own_loss_gets_targets_with_label_smoothing(own):
    logits, labels = jnp.array([[1.0, 2.0, -1.0], [0.0, 0.0, 3.0]]), jnp.array([2, 1])
    check_functions(from_config({"train": {"loss": "own.py:good"}}), 3)
    ours, built_in = (losses_of(load_loss(name), logits, labels, 0.1) for name in ("own.py:good", "cross_entropy"))
    np.testing.assert_allclose(ours, built_in, rtol=1e-6)


def test_the_metrics_of_a_study_are_the_chosen_ones_and_three_more(own):
    metrics = load_metrics(("recall", "own.py:of_three"))
    assert [metric.name for metric in metrics] == ["loss", "accuracy", "recall", "f1", "of_three"]
