"""Optimizers by name: signatures read from Optax's source, arguments as axes, and what is refused."""

import functools
import inspect
import types

import optax
import pytest
from optax import contrib

from cnnjax.study import optimizers
from cnnjax.study.overrides import overridden
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError


def study(**train):
    return from_config({"train": train})


def test_signatures_are_those_that_python_sees():
    found = 0
    for module in (contrib, optax):
        for name, function in vars(module).items():
            is_function = isinstance(function, types.FunctionType | functools.partial)
            if name.startswith(("_", "scale_by_")) or not is_function:
                continue
            first, *rest = [*inspect.signature(function).parameters.values()] or [None]
            if first is None or first.name != "learning_rate" or name in optimizers.OWN:
                continue
            plain = {p.name: p.default if isinstance(p.default, bool | int | float | str | None) else ... for p in rest}
            assert optimizers.parameters(name) == plain, name
            found += 1
    assert found > 40


def test_arguments_are_axes_and_trials_know_their_own():
    trials = list_trials(study(optimizer=("adamw", "lion"), optimizer_args={"b2": (0.95, 0.99), "eps": (1e-8, 1e-4)}))
    rows = [trial.row() for trial in trials]
    assert [(r["optimizer"], r["b2"], r.get("optimizer_eps")) for r in rows if r["optimizer"] == "lion"] == [
        ("lion", 0.95, None),
        ("lion", 0.99, None),
    ]
    assert {(r["b2"], r["optimizer_eps"]) for r in rows if r["optimizer"] == "adamw"} == {
        (b2, eps) for b2 in (0.95, 0.99) for eps in (1e-8, 1e-4)
    }
    assert {(r["b1"], r["weight_decay"]) for r in rows if r["optimizer"] == "lion"} == {(0.9, 1e-3)}  # Optax's defaults


def test_defaults_and_own_keys_change_no_id():
    (plain,) = list_trials(study(optimizer="lion"))
    assert plain.id in {t.id for t in list_trials(study(optimizer="lion", optimizer_args={"b2": (0.5, 0.99)}))}
    (own,) = list_trials(study(optimizer="adam", b2=0.9))
    (argument,) = list_trials(study(optimizer="adam", optimizer_args={"b2": 0.9, "eps": 1e-8}))
    assert (own.id, own.program) == (argument.id, argument.program)


def test_numbers_share_a_program_and_other_values_do_not():
    assert len(make_plan(study(optimizer="lion", optimizer_args={"b1": (0.5, 0.9), "b2": (0.9, 1)})).programs) == 1
    plan = make_plan(
        study(optimizer="rmsprop", optimizer_args={"centered": (False, True), "momentum": (None, 0.9, 0.5)})
    )
    assert [p.static.optimizer for p in plan.programs] == [
        "rmsprop",
        "rmsprop(momentum)",
        "rmsprop(centered=True)",
        "rmsprop(centered=True,momentum)",
    ]


def test_the_command_line_sets_one_argument():
    found = overridden({"train": {"optimizer": "lion"}}, ["train.optimizer_args.b2=0.95,0.999"])
    assert found.train.optimizer_args == {"b2": (0.95, 0.999)}
    assert from_config(found.to_dict()) == found


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"optimizer": "lyon"}, "train.optimizer='lyon': there is no such optimizer; did you mean 'lion'?"),
        ({"optimizer": "lbfgs"}, "train.optimizer='lbfgs': it needs a line search; use another optimizer"),
        ({"optimizer": "momo"}, "train.optimizer='momo': it needs the loss of each step"),
        ({"optimizer": "scale_by_adam"}, "train.optimizer='scale_by_adam': there is no such optimizer"),
        ({"optimizer": ("lion", "lion")}, "a value occurs twice"),
        ({"optimizer": "lion", "optimizer_args": {"beta2": 0.9}}, "lion takes no such argument; did you mean 'b2'?"),
        ({"optimizer": "lion", "optimizer_args": {"b2": "x"}}, "b2 must be a number for lion, got 'x'"),
        ({"optimizer": "nadam", "optimizer_args": {"nesterov": 1}}, "nesterov must be True or False for nadam, got 1"),
        ({"optimizer": "muon", "optimizer_args": {"ns_coeffs": 3}}, "ns_coeffs must not be a number for muon, got 3"),
        ({"optimizer": "lion", "optimizer_args": {"b2": (0.9, 0.9)}}, "must be one value, or several distinct values"),
        ({"optimizer": "lion", "optimizer_args": 3}, "train.optimizer_args must be a mapping"),
        ({"optimizer_args": {"b2": 1.5}}, "train.optimizer_args.b2 must be a number >= 0 and < 1, got 1.5"),
        ({"b2": 0.9, "optimizer_args": {"b2": 0.8}}, "train.b2=(0.9,): train.optimizer_args sets it, too"),
        ({"optimizer": ("adam", "lion"), "weight_decay": 0.1}, "train.weight_decay=(0.1,): lion does not use it; use"),
        (
            {"optimizer": "lion", "stages": ({"optimizer_args": {"b2": (0.9, 0.8)}},)},
            "train.stages[0].optimizer_args.b2=(0.9, 0.8): hyperparameters of a stage are not axes",
        ),
        (
            {"stages": ({"optimizer_args": {"beta": 1}},)},
            "train.stages[0].optimizer_args.beta=(1,): adam takes no such",
        ),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(train, said):
    with pytest.raises(RequestError) as error:
        study(**train)
    assert said in str(error.value) and "\n" not in str(error.value)
