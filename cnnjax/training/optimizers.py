"""Optax's optimizers with traced hyperparameters. Each equals PyTorch's optimizer of the same name."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from cnnjax.training.stacking import Hparams


def make_optimizer(name: str, hparams: Hparams, *, clips: bool = False) -> optax.GradientTransformation:
    """Returns the optimizer of one stage of a trial; its hyperparameters may be traced scalars.

    Args:
        name: 'adam' is Kingma & Ba 2015, algorithm 1, with epsilon 1e-8 outside the square root. 'sgd' is
            v = momentum * v + g, w -= learning_rate * v, without dampening; with Nesterov momentum, g + momentum * v
            replaces v in the update. Their weight decay is L2, added to the (clipped) gradient before the moments, as
            in torch.optim. 'adamw' and 'sgdw' subtract learning_rate * weight_decay * w from the weights instead
            (Loshchilov & Hutter 2019). Of several names, joined by '+', `hparams.optimizer` is the index of the one to
            use.
        hparams: of the stage.
        clips: whether to clip the global norm of the gradients to `hparams.clip_norm`.
    """
    decay = optax.add_decayed_weights(hparams.weight_decay)
    adam = _adam(hparams.b1, hparams.b2)
    sgd = _momentum(hparams.momentum, hparams.nesterov)
    rules = {
        "adam": optax.chain(decay, adam),
        "adamw": optax.chain(adam, decay),
        "sgd": optax.chain(decay, sgd),
        "sgdw": optax.chain(sgd, decay),
    }
    steps = [
        _select([rules[each] for each in name.split("+")], hparams.optimizer),
        optax.scale(-hparams.learning_rate),
    ]
    return optax.chain(*([optax.clip_by_global_norm(hparams.clip_norm)] if clips else []), *steps)


def _adam(b1: Float[Array, "2"], b2: Float[Array, "2"]) -> optax.GradientTransformation:
    """`optax.scale_by_adam` of decay rates that are traced, each with its complement.

    Optax computes 1 - b1 from a Python number, in float64. From a traced float32 it would lose digits.
    """

    def update(grads: optax.Updates, state: Any, params: optax.Params | None = None) -> tuple:
        mu = jax.tree.map(lambda g, m: b1[1] * g + b1[0] * m, grads, state.mu)
        nu = jax.tree.map(lambda g, v: b2[1] * g**2 + b2[0] * v, grads, state.nu)
        count = optax.safe_increment(state.count)
        mean, square = optax.tree.bias_correction(mu, b1[0], count), optax.tree.bias_correction(nu, b2[0], count)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8), mean, square)
        return steps, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _momentum(decay: Array, nesterov: Array) -> optax.GradientTransformation:
    """Returns optax.trace with a traced `nesterov`."""
    rule = optax.trace(decay)

    def update(grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        velocity, state = rule.update(grads, state, params)
        return jax.tree.map(lambda g, v: jnp.where(nesterov, g + decay * v, v), grads, velocity), state

    return optax.GradientTransformation(rule.init, update)


def _select(rules: Sequence[optax.GradientTransformation], index: Array) -> optax.GradientTransformation:
    """Returns a transformation that updates the states of all rules, and returns the updates of rules[index]."""
    if len(rules) == 1:
        return rules[0]

    def init(params: optax.Params) -> tuple:
        return tuple(rule.init(params) for rule in rules)

    def update(grads: optax.Updates, state: tuple, params: optax.Params | None = None) -> tuple:
        pairs = (rule.update(grads, each, params) for rule, each in zip(rules, state, strict=True))
        updates, states = zip(*pairs, strict=True)
        return jax.tree.map(lambda *each: lax.select_n(index, *each), *updates), states

    return optax.GradientTransformation(init, update)
