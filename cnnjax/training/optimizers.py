"""Optax's optimizers with traced hyperparameters. Adam and SGD equal PyTorch's."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax import lax
from jaxtyping import Array, Float

from cnnjax.study.optimizers import OWN, SGD, read_spec
from cnnjax.study.parameter_groups import NONE, Factors, factors_of, read_groups
from cnnjax.training.stacking import Hparams


def make_optimizer(
    name: str, hparams: Hparams, *, clips: bool = False, groups: str = NONE
) -> optax.GradientTransformation:
    """Returns the optimizer of one stage of a trial; its hyperparameters may be traced scalars.

    Args:
        name: an optimizer of Optax, with Optax's arithmetic, or one of the following with PyTorch's. 'adam' is Kingma &
            Ba 2015, algorithm 1, with epsilon 1e-8 outside the square root. 'sgd' is v = momentum * v + g,
            w -= learning_rate * v, without dampening; with Nesterov momentum, g + momentum * v replaces v in the
            update. Their weight decay is L2, added to the (clipped) gradient before the moments, as in torch.optim.
            'adamw' and 'sgdw' subtract learning_rate * weight_decay * w from the weights instead (Loshchilov & Hutter
            2019). Static arguments follow in parentheses, see `spec_of`. Of several names, joined by '+',
            `hparams.optimizer` is the index of the one to use.
        hparams: of the stage.
        clips: whether to clip the global norm of the gradients to `hparams.clip_norm`.
        groups: of parameters, as a trial has them. Their learning rates and weight decays are multiplied by factors.
    """
    clip = [optax.clip_by_global_norm(hparams.clip_norm)] if clips else []
    if found := read_groups(groups):
        return optax.chain(*clip, _grouped(name, hparams, found))
    return optax.chain(*clip, *_steps(name, hparams))


def _steps(name: str, hparams: Hparams) -> list[optax.GradientTransformation]:
    """Returns the transformations of an optimizer, one after another."""
    specs, scale = name.split("+"), optax.scale(-hparams.learning_rate)
    if all(read_spec(spec)[0] in OWN for spec in specs):
        return [_select([_own(spec, hparams) for spec in specs], hparams.optimizer), scale]
    rules = [
        optax.chain(_own(spec, hparams), scale) if read_spec(spec)[0] in OWN else _of_optax(spec, hparams)
        for spec in specs
    ]
    return [_select(rules, hparams.optimizer)]


def _grouped(name: str, hparams: Hparams, groups: Mapping[str, Factors]) -> optax.GradientTransformation:
    """Returns an optimizer for each group of parameters with equal factors, joined by `optax.partition`."""

    def partition(params: optax.Params) -> optax.GradientTransformation:
        factors = {path: factors_of(path, groups) for path in parameter_names(params)}
        labels = jax.tree_util.tree_map_with_path(lambda path, _: repr(factors[_dotted(path)]), params)
        each = {repr(of): optax.chain(*_steps(name, _scaled(hparams, of))) for of in factors.values()}
        return optax.partition(each, labels)

    def update(grads: optax.Updates, state: Any, params: optax.Params | None = None) -> tuple:
        return partition(grads).update(grads, state, params)

    return optax.GradientTransformation(lambda params: partition(params).init(params), update)


def _scaled(hparams: Hparams, factors: Factors) -> Hparams:
    """Returns the hyperparameters of a group of parameters."""

    def scale(name: str, value: Array) -> Array:
        return math.prod(factor for key, factor in factors._asdict().items() if key in name) * value

    return hparams._replace(
        **{name: scale(name, getattr(hparams, name)) for name in Factors._fields},
        optimizer_args={name: scale(name, value) for name, value in hparams.optimizer_args.items()},
    )


def parameter_names(params: optax.Params) -> list[str]:
    """Returns the dotted names of parameters, such as `conv0.bias`."""
    return [_dotted(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _dotted(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _own(spec: str, hparams: Hparams) -> optax.GradientTransformation:
    """Returns an optimizer with PyTorch's arithmetic, whose updates are not scaled by the learning rate."""
    name, _, arguments = read_spec(spec)
    decay = optax.add_decayed_weights(hparams.weight_decay)
    if name in SGD:
        rule = _momentum(hparams.momentum, hparams.nesterov)
    else:
        rule = _adam(hparams.b1, hparams.b2, hparams.optimizer_args["eps"] if "eps" in arguments else 1e-8)
    return optax.chain(rule, decay) if name.endswith("w") else optax.chain(decay, rule)


def _of_optax(spec: str, hparams: Hparams) -> optax.GradientTransformation:
    """Returns an optimizer of Optax."""
    name, static, arguments = read_spec(spec)
    make = getattr(optax, name, None) or getattr(optax.contrib, name)
    more: dict[str, Any] = {"muon_weight_dimension_numbers": _matrices} if name == "muon" else {}
    traced = {argument: hparams.optimizer_args[argument] for argument in arguments}
    return make(learning_rate=hparams.learning_rate, **static, **traced, **more)


def _matrices(params: optax.Params) -> Any:
    """Returns the axes of each kernel that Muon orthogonalizes as a matrix, and None for all other parameters.

    The kernels of convolutions are [K, K, C, F], matrices of K*K*C rows. Those of dense layers are [D, F], and of the
    ladder [F, D], where a layer is named `dense0`.
    """

    def axes(path: Any, leaf: Any) -> Any:
        *_, layer, name = ["", *_dotted(path).split(".")]
        if name != "kernel" or leaf.ndim < 2:
            return None
        *rows, column = range(leaf.ndim)
        if re.fullmatch(r"dense\d+", layer):
            rows, column = [column], 0
        return optax.contrib.MuonDimensionNumbers(tuple(rows), (column,))

    return jax.tree_util.tree_map_with_path(axes, params)


def _adam(b1: Float[Array, "2"], b2: Float[Array, "2"], eps: Array | float) -> optax.GradientTransformation:
    """`optax.scale_by_adam` of decay rates that are traced, each with its complement.

    Optax computes 1 - b1 from a Python number, in float64. From a traced float32 it would lose digits.
    """

    def update(grads: optax.Updates, state: Any, params: optax.Params | None = None) -> tuple:
        mu = jax.tree.map(lambda g, m: b1[1] * g + b1[0] * m, grads, state.mu)
        nu = jax.tree.map(lambda g, v: b2[1] * g**2 + b2[0] * v, grads, state.nu)
        count = optax.safe_increment(state.count)
        mean, square = optax.tree.bias_correction(mu, b1[0], count), optax.tree.bias_correction(nu, b2[0], count)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mean, square)
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
