"""The configurations of a search: drawn as SciPy draws them, growing, in few programs."""

import warnings

import numpy as np
import pytest
from scipy.stats import qmc

from cnnjax.study.plan import check_axes, make_plan
from cnnjax.study.schema import from_config
from cnnjax.study.search import default_configuration, draw, search_space
from cnnjax.study.trials import list_trials, single_out
from cnnjax.utils.errors import RequestError
from tests.support.studies import make_study

RATES = {"learning_rate": "log_uniform(1e-4, 1e-1)", "momentum": "uniform(0, 0.9)"}


def make_search(method="sobol", trials=8, **changes):
    train = {**RATES, **changes.pop("train", {})}
    search = {"method": method, "trials": trials, **changes.pop("search", {})}
    return make_study(train=train, search=search, **changes)


def expected(points):
    return [{"train.learning_rate": 1e-4 * 1e3**u, "train.momentum": 0.9 * v} for u, v in points]


@pytest.mark.parametrize("seed", [0, 5])
def test_random_and_sobol_draw_the_sequences_of_numpy_and_scipy(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sobol = qmc.Sobol(2, scramble=True, seed=seed).random(6)
    uniform = np.random.default_rng(seed).random((6, 2))
    for method, points in (("sobol", sobol), ("random", uniform)):
        drawn = draw(make_search(method, 6, search={"seed": seed}))
        for one, other in zip(drawn, expected(points), strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_more_trials_continue_the_sequence(method):
    few, many = (list_trials(make_search(method, trials, seeds=(0, 1))) for trials in (5, 13))
    assert [trial.id for trial in few] == [trial.id for trial in many[:10]]
    assert len(many) == 26


def test_each_configuration_has_each_seed_and_the_id_that_a_grid_gives_it():
    study = make_search(trials=3, seeds=(0, 7))
    trials = list_trials(study)
    assert [trial.seed for trial in trials] == 3 * [0, 7]
    for values, trial in zip(draw(study), trials[::2], strict=True):
        rates = {key.removeprefix("train."): value for key, value in values.items()}
        assert list_trials(make_study(train=rates))[0].id == trial.id
        assert single_out(study, trial, (3,)).train.learning_rate == (rates["learning_rate"],)


def test_a_search_has_few_programs():
    static = {"batch_size": "integers(10, 200)", "optimizer": ("sgd", "adam"), "drop_last": (False, True)}
    study = make_search(trials=200, models=("baseline", "medium"), train=static, search={"programs": 6})
    plan = make_plan(study)
    assert len(plan.trials) == 200 and len(plan.programs) == 6
    statics = [program.static for program in plan.programs]
    assert {one.model for one in statics} == {"baseline", "medium"}  # every value occurs
    assert len({one.batch_size for one in statics}) == 4
    assert max(len(program.members) for program in plan.programs) < 60


@pytest.mark.parametrize(("arguments", "programs"), [({"nesterov": (False, True)}, 2), ({"b2": (0.9, 0.99)}, 1)])
def test_compiled_arguments_of_optimizers_count_as_programs(arguments, programs):
    """An argument that is a number is traced."""
    train = {"optimizer": "nadam" if "nesterov" in arguments else "lion", "optimizer_args": arguments, "momentum": 0.0}
    study = make_search(trials=40, train=train | {"batch_size": (20, 25, 40, 50)}, search={"programs": 3})
    plan = make_plan(study)
    assert len(plan.programs) <= 3 and len({trial.static.optimizer for trial in plan.trials}) == programs


def test_plain_tuples_are_choices():
    study = make_search(trials=64, models=("baseline", "medium"), train={"nesterov": (False, True)})
    trials = list_trials(study)
    assert len(trials) == 64
    pairs = [(trial.static.model, trial.stages[0].traced.nesterov) for trial in trials]
    assert {pair: pairs.count(pair) for pair in pairs} == dict.fromkeys(set(pairs), 16) and len(set(pairs)) == 4


def test_each_configuration_has_one_value_of_each_argument_of_the_optimizer():
    arguments = {"b1": (0.5, 0.8), "b2": (0.9, 0.99)}
    changes = {"momentum": 0.0, "optimizer": "lion", "optimizer_args": arguments}
    study = make_search(trials=16, train=changes)
    found = [trial.stages[0].traced.optimizer_args for trial in list_trials(study)]
    assert len(found) == 16 and len(set(found)) == 4
    check_axes(study, make_plan(study))
    (trial,) = list_trials(default_configuration(study))
    assert trial.stages[0].traced.optimizer_args == ()
    one_each = make_search(trials=16, train={**changes, "optimizer_args": {"b1": 0.5, "b2": 0.99}})
    assert {t.stages[0].traced.optimizer_args for t in list_trials(one_each)} == {(("b1", 0.5), ("b2", 0.99))}


def test_a_configuration_alone_is_a_study_whichever_optimizer_it_has():
    train = {"momentum": 0.0, "optimizer": ("sgd", "rmsprop"), "optimizer_args": {"decay": (0.8, 0.9)}}
    for study in (make_study(train=train), make_search(train=train)):
        for trial in list_trials(study):
            alone = single_out(study, trial, (7,))
            assert from_config(alone.to_dict()) == alone
            assert [(t.static, t.stages) for t in list_trials(alone)] == [(trial.static, trial.stages)]
    found = default_configuration(study)
    assert from_config(found.to_dict()) == found


def test_folds_and_streams_repeat_each_configuration():
    study = make_search(trials=4, seeds=(0, 1), data={"folds": 3, "validation": None})
    assert len(list_trials(study)) == 4 * 2 * 3


def test_an_axis_without_effect_is_refused():
    study = make_search(train={"optimizer": "adam"})
    with pytest.raises(RequestError, match=r"train.momentum='uniform\(0, 0.9\)': all values train identically"):
        check_axes(study, make_plan(study))
    check_axes(make_search(), make_plan(make_search()))


def test_the_default_configuration_has_the_defaults_of_what_is_searched():
    study = make_search(models=("medium", "baseline"), train={"epochs": (1, 3), "batch_size": (20, 40)})
    (trial,) = list_trials(default_configuration(study))
    traced = trial.stages[0].traced
    assert (trial.static.model, trial.static.batch_size, trial.epochs) == ("medium", 64, 3)
    assert (traced.learning_rate, traced.momentum) == (0.001, 0)
    assert trial.static.optimizer == "sgd"  # not searched


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"search": {"method": "hyperband"}}, "search.method must be one of grid, random, sobol, halving, optuna"),
        ({"search": {"trials": 0}}, "search.trials must be a whole number >= 1"),
        ({"search": {"method": "grid", "trials": 5}, "train": {}}, "search.trials=5: a grid does not search"),
        ({"search": {"method": "random"}, "train": {}}, "there is nothing to search"),
        ({"search": {"sampler": "no name"}}, "search.sampler must be the name of a sampler"),
        ({"data": {"validation": 0}, "select": "test_loss"}, "search.method='halving': needs a validation split"),
        ({"select": "test_loss"}, "select='test_loss': it must be of validation"),
        ({"search": {"rungs": 4}}, "search.rungs=4: 9 epochs have 3 rungs"),
        ({"search": {"brackets": 4}}, "search.brackets=4: there are 3 rungs"),
        ({"train": {"epochs": (3, 9)}}, "halving decides the number of epochs"),
        ({"train": {"epochs": 2.5}}, "train.epochs=2.5: halving continues whole epochs"),
        ({"train": {"epochs": 0.5}}, "train.epochs=0.5: halving continues whole epochs"),
        ({"train": {"optimizer_args": {"b2": "uniform(0.9, 0.99)"}}}, "b2='uniform.*': arguments have no ranges"),
        ({"train": {"schedule": "cosine"}}, "train.schedule='cosine': it fixes the number of epochs"),
        ({"train": {"stages": ({"learning_rate": 0.1}, {})}}, "halving cannot continue several stages"),
        ({"asked": ({"train.lr": 1},)}, "only the config.json of a run has this key"),
    ],
)
def test_a_search_that_cannot_be_is_refused(changes, problem):
    base = {"method": "halving", "trials": 9}
    train = {"epochs": 9, "momentum": 0.9, **(RATES if changes.get("train") != {} else {}), **changes.get("train", {})}
    asked = {"search": {**base, **changes.get("search", {})}, "train": train}
    with pytest.raises(RequestError, match=problem):
        make_study(**{**changes, **asked})


def test_a_grid_is_as_it_was():
    study = make_study()
    assert not {"search", "asked", "ranges"} & {*study.to_dict()}
    assert from_config(study.to_dict()) == study


def test_the_space_has_the_axes_with_several_values():
    space = search_space(make_search(train={"optimizer": ("sgd", "adam"), "batch_size": 20}))
    assert [one.keys for one in space] == [("train.optimizer",), ("train.learning_rate",), ("train.momentum",)]
