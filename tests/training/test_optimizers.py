"""Steps of the optimizers against PyTorch's, on random gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.study.hparams import BY_COLUMN
from cnnjax.training.optimizers import make_optimizer
from cnnjax.training.stacking import Hparams

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

SHAPES = {"kernel": (5, 3), "bias": (3,)}
STEPS = 6


def hparams_of(**values):
    usual = {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": np.inf}
    index = jnp.asarray(values.pop("optimizer", 0))
    numbers = {name: jnp.asarray(BY_COLUMN[name].scalar(value)) for name, value in {**usual, **values}.items()}
    return Hparams(**{**dict.fromkeys(Hparams._fields, jnp.array(False)), **numbers, "optimizer": index})


def our_steps(name, hparams, start, grads, clips=False):
    # As in a compiled program: every hyperparameter is a traced value.
    @jax.jit
    def step(hparams, params, state, grad):
        updates, state = make_optimizer(name, hparams, clips=clips).update(grad, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    params, state = start, make_optimizer(name, hparams, clips=clips).init(start)
    for grad in grads:
        params, state = step(hparams, params, state, grad)
    return params


def their_steps(make, start, grads, clip=None):
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    optimizer = make(list(weights.values()))
    for grad in grads:
        for name, weight in weights.items():
            weight.grad = torch.tensor(grad[name])
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(weights.values()), clip)
        optimizer.step()
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def draw(seed):
    rng = np.random.default_rng(seed)
    start, *grads = (
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in range(STEPS + 1)
    )
    return start, grads


@pytest.mark.parametrize(
    ("name", "values", "make"),
    [
        ("sgd", {"momentum": 0.9}, lambda w: torch.optim.SGD(w, 0.05, 0.9)),
        ("sgd", {"momentum": 0.9, "nesterov": True}, lambda w: torch.optim.SGD(w, 0.05, 0.9, nesterov=True)),
        (
            "sgd",
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.3},
            lambda w: torch.optim.SGD(w, 0.05, 0.9, nesterov=True, weight_decay=0.3),
        ),
        ("adam", {"weight_decay": 0.3}, lambda w: torch.optim.Adam(w, 0.05, weight_decay=0.3)),
        ("adam", {"b1": 0.5, "b2": 0.7}, lambda w: torch.optim.Adam(w, 0.05, (0.5, 0.7))),
        ("adamw", {"weight_decay": 0.3}, lambda w: torch.optim.AdamW(w, 0.05, weight_decay=0.3)),
        ("adam+adamw", {"optimizer": 1, "weight_decay": 0.3}, lambda w: torch.optim.AdamW(w, 0.05, weight_decay=0.3)),
        ("adam+sgd", {"optimizer": 0}, lambda w: torch.optim.Adam(w, 0.05)),
        ("adam+sgd", {"optimizer": 1, "momentum": 0.9}, lambda w: torch.optim.SGD(w, 0.05, 0.9)),
    ],
)
@pytest.mark.parametrize("clip", [None, 0.5, 100.0])
def test_steps_are_pytorchs(name, values, make, clip):
    start, grads = draw(0)
    if clip is not None:
        values = {**values, "clip_norm": clip}
    ours = our_steps(name, hparams_of(**values), start, grads, clips=clip is not None)
    theirs = their_steps(make, start, grads, clip)
    for part in SHAPES:
        np.testing.assert_allclose(ours[part], theirs[part], rtol=2e-5, atol=2e-6)


def test_decoupled_decay_of_sgd_by_hand():
    """Without momentum: w - rate (g + decay w), which L2 gives too; with it the decay does not enter the moment."""
    start, grads = draw(1)
    values = {"momentum": 0.9, "weight_decay": 0.2}
    ours = our_steps("sgdw", hparams_of(**values), start, grads)
    weights, moment = start["kernel"].astype(float), 0.0
    for grad in grads:
        moment = 0.9 * moment + grad["kernel"]
        weights = weights - 0.05 * (moment + 0.2 * weights)
    np.testing.assert_allclose(ours["kernel"], weights, rtol=1e-5, atol=1e-6)
    assert not np.allclose(our_steps("sgd", hparams_of(**values), start, grads)["kernel"], weights, rtol=1e-2)
