"""Reducing the learning rate on a plateau, against PyTorch's ReduceLROnPlateau."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.study.metrics import EPOCH_MEASURES, METRICS
from cnnjax.study.plan import make_plan
from cnnjax.training.population import Population
from cnnjax.training.stacking import TableSize, stack_members
from cnnjax.training.train_state import StaticConfig, TrainState, end_epoch, epoch_metrics, new_plateau
from cnnjax.utils.errors import RequestError
from tests.support.runs import run
from tests.support.studies import make_study
from tests.training.test_population import Bench, assert_close, assert_same

pytestmark = pytest.mark.usefixtures("quick")
EPOCHS = 40


def torch_scales(metric, values, factor, patience, rate):
    """The learning rate after each epoch, as a share of the first."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    mode = "min" if metric.endswith("loss") else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor, patience)
    for value in values:
        scheduler.step(value)
        yield optimizer.param_groups[0]["lr"] / rate


@pytest.mark.slow
@pytest.mark.torch
def test_each_member_follows_pytorch():
    """On random walks of its own metric, some of them NaN. The smallest rates are left by the limit of 1e-8."""
    rules = [f"{metric}:999" for metric in ("val_loss", "val_accuracy", "train_loss")]
    plateaus = ("plateau:0.1:0", "plateau:0.1:3", "plateau:0.5:1", "constant")
    study = make_study(train={"schedule": plateaus, "early_stopping": rules, "learning_rate": (0.1, 1e-6), "epochs": 9})
    members = [member for program in make_plan(study).programs for member in program.members]
    hparams, _ = stack_members(members, TableSize(9), "val_accuracy", (0,))
    config = StaticConfig(None, "", "sgd", 1, plateaus=True)
    zeros = jnp.zeros(len(members), jnp.int32)
    state = TrainState(
        *({"w": jnp.zeros((len(members), 1))}, {}, (), *[zeros] * 3, jnp.full(len(members), -jnp.inf), zeros, zeros),
        best=None,
        plateau=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, len(members)), new_plateau()),
    )
    after = jax.jit(jax.vmap(lambda *arguments: end_epoch(*arguments, config)))
    rng = np.random.default_rng(0)
    walks = 1 + rng.normal(0, 0.02, (EPOCHS, len(EPOCH_MEASURES), len(members))).cumsum(0).astype(np.float32)
    walks[rng.random(walks.shape) < 0.05] = np.nan
    scales = []
    for metrics in walks:
        state = after(state, epoch_metrics(METRICS)(*metrics), hparams)
        scales.append(np.asarray(state.plateau.scale))
    for m, member in enumerate(members):
        traced = member.trials[0].stages[0].traced
        metric = traced.early_stopping.partition(":")[0]
        factor, patience = map(float, traced.schedule.split(":")[1:]) if traced.schedule != "constant" else (0.9, 999)
        values = walks[:, EPOCH_MEASURES.index(metric), m].astype(float)
        expected = [*torch_scales(metric, values, factor, patience, traced.learning_rate)]
        np.testing.assert_allclose(np.array(scales)[:, m], expected, rtol=1e-5)
    ends = scales[-1]
    assert len({*ends.round(9)}) > 5 and (ends == 1).any()  # otherwise the test is weak


@pytest.mark.slow
@pytest.mark.torch
def test_training_goes_on_at_the_smaller_rate():
    """A plateau equals the piecewise schedule with its changes; it ends with its stage."""
    stages = ({"schedule": "plateau:0.2:0", "epochs": 4}, {"schedule": "plateau:0.5:9", "epochs": 1})
    train = {"learning_rate": (0.05, 1.5), "early_stopping": "train_loss:9"}
    bench = Bench(make_study(seeds=(0, 1), train={**train, "stages": stages}))
    state, history = bench.train(bench.members, 4)
    assert (state.plateau.scale == 1).all() and (state.plateau.best == -np.inf).all()
    schedules = []
    for member, losses in zip(bench.members, history.train_loss.astype(float), strict=True):
        scales = [*torch_scales("train_loss", losses, 0.2, 0, member.trials[0].stages[0].traced.learning_rate)]
        changes = [f"{epoch}={scale}" for epoch, scale in enumerate(scales[:3], 1) if scale < 1]
        schedules.append(f"piecewise:{'/'.join(changes)}" if changes else "constant")
    train = {**train, "epochs": 4, "schedule": tuple({*schedules})}
    known = Bench(make_study(seeds=(0, 1), train=train))
    _, expected = known.train(known.members, 4)
    traced = {(m.trials[0].seed, m.trials[0].stages[0].traced): i for i, m in enumerate(known.members)}
    for member, schedule, losses in zip(bench.members, schedules, history.train_loss, strict=True):
        same = dataclasses.replace(member.trials[0].stages[0].traced, schedule=schedule)
        np.testing.assert_allclose(expected.train_loss[traced[member.trials[0].seed, same]], losses, rtol=1e-4)
    assert len({*schedules}) > 1  # otherwise the test is weak


@pytest.mark.slow
def test_a_grown_and_resumed_study_goes_on_from_the_plateau(tmp_path, monkeypatch):
    """With more epochs, interrupted in the third, and resumed."""
    train = {"learning_rate": (0.05, 3.0), "schedule": "warmup:1+plateau:0.1:0", "epochs": 4}
    states: dict[str, list] = {"whole": [], "grown": []}
    advance = Population.advance

    def watched(self, state, *arguments):
        state, history = advance(self, state, *arguments)
        states[name].append(jax.tree.map(np.asarray, state))
        if name == "grown" and len(states[name]) == 3:
            raise KeyboardInterrupt
        return state, history

    monkeypatch.setattr(Population, "advance", watched)
    name = "whole"
    run(make_study(train=train), tmp_path / name)
    name = "grown"
    run(make_study(train={**train, "epochs": 2}), tmp_path / name)
    with pytest.raises(KeyboardInterrupt):
        run(make_study(train=train), tmp_path / name)
    run(make_study(train=train), tmp_path / name)
    assert (states["whole"][-1].plateau.scale < 1).any() and len(states["grown"]) == 5
    assert_same(states["grown"][-1].plateau, states["whole"][-1].plateau)
    assert_close(states["grown"][-1].variables, states["whole"][-1].variables)


def test_a_shorter_trial_is_read_off_and_needs_a_program_of_its_own():
    train = {"schedule": ("constant", "plateau:0.1:10", "plateau:0.5:10"), "epochs": (2, 5)}
    plan = make_plan(make_study(train=train))
    assert [len(program.members) for program in plan.programs] == [1, 2] and len(plan.trials) == 6
    assert plan.programs[0].id == make_plan(make_study()).programs[0].id


def test_a_plateau_needs_a_metric():
    without = {"data": {"validation": 0}, "select": "train_loss"}
    for train in ({"schedule": "plateau:0.1:3"}, {"stages": ({}, {"schedule": "warmup:1+plateau:0.1:3"})}):
        with pytest.raises(RequestError, match=r"^train\.schedule='.*plateau:0\.1:3': .*data\.validation=0\.1"):
            make_study(**without, train=train)
        make_study(train=train)
        make_study(**without, train={**train, "early_stopping": "train_loss:9"})
