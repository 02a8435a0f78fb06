"""Optimizers with traced hyperparameters: Optax's, arranged so that each equals PyTorch's of the same name."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from cnnjax.training.stacking import Hparams


def make_optimizer(name: str, hparams: Hparams, *, clips: bool = False) -> optax.GradientTransformation:
    """Returns the optimizer of one stage of a trial; its hyperparameters may be traced scalars.

    Args:
        name: 'adam' is Kingma & Ba 2015, algorithm 1, with epsilon 1e-8 outside the square root;
            'sgd' is v = momentum * v + g, w -= learning_rate * v, without dampening, or with Nesterov's
            g + momentum * v in place of v. Their weight decay is L2, added to the (clipped) gradient before any
            moment, as in torch.optim. 'adamw' and 'sgdw' take learning_rate * weight_decay * w from the weights
            beside what the gradient does (Loshchilov & Hutter 2019). Several, joined by '+', are the one whose place
            is `hparams.optimizer`.
        hparams: of the stage.
        clips: whether to scale gradients down to the norm `hparams.clip_norm` where theirs, over all weights, is
            larger.
    """
    decay = optax.add_decayed_weights(hparams.weight_decay)
    adam = optax.scale_by_adam(b1=hparams.b1, b2=hparams.b2, eps=1e-8)
    sgd = _momentum(hparams.momentum, hparams.nesterov)
    rules = {
        "adam": optax.chain(decay, adam),
        "adamw": optax.chain(adam, decay),
        "sgd": optax.chain(decay, sgd),
        "sgdw": optax.chain(sgd, decay),
    }
    steps = [
        _one_of([rules[each] for each in name.split("+")], hparams.optimizer),
        optax.scale(-hparams.learning_rate),
    ]
    return optax.chain(*([optax.clip_by_global_norm(hparams.clip_norm)] if clips else []), *steps)


def _momentum(decay: Array, nesterov: Array) -> optax.GradientTransformation:
    """optax.trace, whose `nesterov` is no traced value."""
    rule = optax.trace(decay)

    def update(grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        moved, state = rule.update(grads, state, params)
        ahead = jax.tree.map(lambda g, v: jnp.where(nesterov, g + decay * v, v), grads, moved)
        return ahead, state

    return optax.GradientTransformation(rule.init, update)


def _one_of(rules: Sequence[optax.GradientTransformation], place: Array) -> optax.GradientTransformation:
    """Rules side by side, and the updates of one of them: which, a compiled program learns only as it runs."""
    if len(rules) == 1:
        return rules[0]

    def init(params: optax.Params) -> tuple:
        return tuple(rule.init(params) for rule in rules)

    def update(grads: optax.Updates, state: tuple, params: optax.Params | None = None) -> tuple:
        pairs = (rule.update(grads, kept, params) for rule, kept in zip(rules, state, strict=True))
        updates, states = zip(*pairs, strict=True)
        return jax.tree.map(lambda *each: lax.select_n(place, *each), *updates), states

    return optax.GradientTransformation(init, update)
