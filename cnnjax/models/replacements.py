"""Equations of a jaxpr that are evaluated by `cnnjax.models.conv`."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from cnnjax.models.conv import convolve, convolve_and_pool, max_pool

Evaluation = Callable[..., list[Any]]  # of one equation: its outputs from its inputs


class Fused(NamedTuple):
    """Several equations that are evaluated together."""

    evaluation: Evaluation
    invars: list[Any]
    outvars: list[Any]


@functools.cache
def _empty() -> core.Jaxpr:
    return jax.make_jaxpr(tuple)().jaxpr


def unchanged(eqn: core.JaxprEqn) -> Evaluation:
    """Returns the evaluation of an equation as it is."""
    variables = [*dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, core.Literal))]
    alone = _empty().replace(invars=variables, outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects)
    evaluate = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))

    def evaluation(*inputs: Any) -> list[Any]:
        pairs = zip(eqn.invars, inputs, strict=True)
        values = {atom: value for atom, value in pairs if not isinstance(atom, core.Literal)}
        return evaluate(*(values[variable] for variable in variables))

    return evaluation


def _is_float(*atoms: Any) -> bool:
    """Returns whether all are floats of the same type."""
    dtypes = {atom.aval.dtype for atom in atoms}
    return len(dtypes) == 1 and jnp.issubdtype(dtypes.pop(), jnp.floating)


def convolution(eqn: core.JaxprEqn, method: str = "auto") -> Evaluation | None:
    """Returns the evaluation of a convolution by `convolve`, if it is one of 2-D images of floats."""
    if len(eqn.params["window_strides"]) != 2 or not _is_float(*eqn.invars, *eqn.outvars):
        return None
    (batch, channel, *image), (feature, depth, *place), out = eqn.params["dimension_numbers"]
    spread = [(0, 0, distance - 1) for distance in eqn.params["lhs_dilation"]]
    batch_groups, groups = eqn.params["batch_group_count"], eqn.params["feature_group_count"]

    def evaluation(images: jax.Array, kernel: jax.Array) -> list[jax.Array]:
        images = images.transpose(batch, *image, channel)
        if batch_groups > 1:  # groups of images are groups of channels
            split = images.reshape(batch_groups, -1, *images.shape[1:])
            images = jnp.moveaxis(split, 0, 3).reshape(*split.shape[1:4], -1)
        images = lax.pad(images, jnp.zeros((), images.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
        output = convolve(
            *(images, kernel.transpose(*place, depth, feature), eqn.params["padding"], method),
            strides=eqn.params["window_strides"],
            dilation=eqn.params["rhs_dilation"],
            groups=batch_groups * groups,
        )
        return [output.transpose(np.argsort([out[0], *out[2:], out[1]]))]

    return evaluation


def pool(eqn: core.JaxprEqn, method: str) -> Evaluation | None:
    """Returns the evaluation of a max-pool by `max_pool`, if it is one of 2-D images of floats."""
    del method  # of convolutions
    names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    shape, strides, padding, *dilations = (eqn.params[name] for name in names)
    moving = [n for n, each in enumerate(zip(shape, strides, padding, strict=True)) if each != (1, 1, (0, 0))]
    if len(shape) != 4 or len(moving) > 2 or {*dilations} != {(1,) * 4} or not _is_float(*eqn.invars):
        return None
    fixed = [axis for axis in (0, 3, 1, 2) if axis not in moving]
    axes = [fixed[0], *sorted([*moving, *fixed[2:]]), fixed[1]]
    _, rows, columns, _ = axes

    def evaluation(images: jax.Array) -> list[jax.Array]:
        pooled = max_pool(
            images.transpose(axes),
            (shape[rows], shape[columns]),
            (strides[rows], strides[columns]),
            (padding[rows], padding[columns]),
        )
        return [pooled.transpose(np.argsort(axes))]

    return evaluation


def fuse(jaxpr: core.Jaxpr, method: str) -> list[core.JaxprEqn | Fused]:
    """Returns the equations of a jaxpr, with those of `convolve_and_pool` as one: convolution, bias, ReLU, max-pool."""
    makers = {variable: eqn for eqn in jaxpr.eqns for variable in eqn.outvars}
    atoms = [atom for eqn in jaxpr.eqns for atom in eqn.invars] + list(jaxpr.outvars)
    uses = Counter(atom for atom in atoms if isinstance(atom, core.Var))

    def only_maker(atom: Any) -> core.JaxprEqn | None:
        """Returns the equation that computes a variable, if nothing else uses the variable."""
        return makers.get(atom) if isinstance(atom, core.Var) and uses[atom] == 1 else None

    fused: dict[int, Fused] = {}
    dropped: set[int] = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name != "reduce_window_max" or (relu := only_maker(eqn.invars[0])) is None:
            continue
        add, bias = only_maker(relu.invars[0]), None
        conv = add
        if add is not None and add.primitive.name == "add":
            for atom, other in (add.invars, add.invars[::-1]):
                if (maker := only_maker(atom)) is not None and maker.primitive.name == "conv_general_dilated":
                    conv, bias = maker, other
        if conv is not None and _can_pool(conv, bias, eqn) and _is_relu(relu):
            inputs = [*conv.invars, *([] if bias is None else [bias])]
            fused[id(eqn)] = Fused(_convolution_and_pool(conv, method), inputs, eqn.outvars)
            dropped |= {id(each) for each in (relu, add, conv)}
    return [fused.get(id(eqn), eqn) for eqn in jaxpr.eqns if id(eqn) not in dropped]


def _can_pool(conv: core.JaxprEqn, bias: Any, pool: core.JaxprEqn) -> bool:
    """Returns whether `convolve_and_pool` computes a convolution, its bias, and the 2x2 max-pool behind."""
    if conv.primitive.name != "conv_general_dilated" or convolution(conv) is None:
        return False
    ones = ("window_strides", "lhs_dilation", "rhs_dilation")
    groups = ("feature_group_count", "batch_group_count")
    is_plain = all({*conv.params[name]} == {1} for name in ones) and all(conv.params[name] == 1 for name in groups)
    _, (_, _, *place), (_, channel, *image) = conv.params["dimension_numbers"]
    rows, columns = (conv.invars[1].aval.shape[axis] for axis in place)
    before = [front for front, _ in conv.params["padding"]]
    shape = tuple(2 if axis in image else 1 for axis in range(4))
    names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    return (
        is_plain
        and 1 < rows == columns
        and all(0 <= front < rows for front in before)
        and [pool.params[name] for name in names] == [shape, shape, ((0, 0),) * 4, (1,) * 4, (1,) * 4]
        and all(pool.outvars[0].aval.shape)
        and (bias is None or _is_bias(bias, conv.outvars[0].aval.shape, channel))
    )


def _is_bias(atom: Any, shape: tuple[int, ...], channel: int) -> bool:
    return atom.aval.shape == tuple(length if axis == channel else 1 for axis, length in enumerate(shape))


def _is_relu(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation is `jax.nn.relu`: its value and its derivative are computed alike."""
    if len(eqn.invars) != 1 or eqn.primitive.name not in ("custom_jvp_call", "jit", "pjit"):
        return False
    example = jax.ShapeDtypeStruct(eqn.invars[0].aval.shape, eqn.invars[0].aval.dtype)

    def text(function: Callable) -> str:
        return str(jax.make_jaxpr(lambda x, dx: jax.jvp(function, (x,), (dx,)))(example, example))

    return text(lambda x: unchanged(eqn)(x)[0]) == text(jax.nn.relu)


def _convolution_and_pool(conv: core.JaxprEqn, method: str) -> Evaluation:
    (batch, channel, *image), (feature, depth, *place), out = conv.params["dimension_numbers"]

    def evaluation(images: jax.Array, kernel: jax.Array, *bias: jax.Array) -> list[jax.Array]:
        images, kernel = images.transpose(batch, *image, channel), kernel.transpose(*place, depth, feature)
        flat = bias[0].reshape(-1) if bias else jnp.zeros(kernel.shape[-1], kernel.dtype)
        pooled = convolve_and_pool(images, kernel, flat, conv.params["padding"], method)
        return [pooled.transpose(np.argsort([out[0], *out[2:], out[1]]))]

    return evaluation
