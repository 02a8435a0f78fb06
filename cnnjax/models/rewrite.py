"""Networks of any library with the fast convolutions of `cnnjax.models.conv`: their jaxprs, evaluated with those."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from cnnjax.models import replacements
from cnnjax.models.replacements import Evaluation, Fused, fuse, unchanged

F = TypeVar("F", bound=Callable)


def with_fast_convolutions(function: F, method: str = "auto") -> F:
    """Returns a function with equal values and gradients whose convolutions and max-pools are fast in any loop.

    2-D convolutions are computed by `conv.convolve`, 2-D max-pools by `conv.max_pool`, wherever they are: also in
    functions that are compiled, mapped, rematerialized, repeated, or have derivatives of their own. Those of other
    ranks or of integers are left as they are, and those inside a `shard_map`. The function itself may be under
    `jax.grad`, `jax.vmap`, `jax.shard_map` and in loops. Forward-mode differentiation is not supported.

    Precision is that of `jax.default_matmul_precision`; the precision of a single convolution is ignored.

    Args:
        function: a pure function of arrays, as `Module.apply` of Flax. Arguments that are no arrays are static.
        method: of the convolutions, see `conv.convolve`.
    """

    @functools.wraps(function)
    def rewritten(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if _is_array(leaf)]

        def of_arrays(arrays: list[Any]) -> Any:
            changed = dict(zip(places, arrays, strict=True))
            args, kwargs = structure.unflatten(changed.get(place, leaf) for place, leaf in enumerate(leaves))
            return function(*args, **kwargs)

        arrays = [leaves[place] for place in places]
        jaxpr, shapes = jax.make_jaxpr(of_arrays, return_shape=True)(arrays)
        return jax.tree.unflatten(jax.tree.structure(shapes), _evaluate(method, jaxpr.jaxpr, jaxpr.consts, *arrays))

    return rewritten  # type: ignore[return-value]


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and leaf.dtype != jax.dtypes.float0


def _evaluate(method: str, jaxpr: core.Jaxpr, consts: list[Any], *arguments: Any) -> list[Any]:
    """Returns the outputs of a jaxpr, with the replacements."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in fuse(jaxpr, method):
        evaluation = eqn.evaluation if isinstance(eqn, Fused) else _replacement(eqn, method) or unchanged(eqn)
        values.update(zip(eqn.outvars, evaluation(*map(read, eqn.invars)), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluation(closed: core.ClosedJaxpr, method: str) -> Evaluation:
    return functools.partial(_evaluate, method, closed.jaxpr, closed.consts)


def _replacement(eqn: core.JaxprEqn, method: str) -> Evaluation | None:
    """Returns a faster evaluation of an equation, if there is one."""
    name = eqn.primitive.name
    if name in _REPLACED:
        return _REPLACED[name](eqn, method)
    if name in _NESTED and any(_replacement(each, method) for jaxpr in _inner(eqn) for each in jaxpr.eqns):
        return _NESTED[name](eqn, method)
    return None


def _inner(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs among an equation's parameters."""
    for leaf in jax.tree.leaves(eqn.params):
        jaxpr = getattr(leaf, "jaxpr", leaf)
        if isinstance(jaxpr, core.Jaxpr):
            yield jaxpr


def _jit(eqn: core.JaxprEqn, method: str) -> Evaluation:
    return _evaluation(eqn.params["jaxpr"], method)


def _checkpoint(eqn: core.JaxprEqn, method: str) -> Evaluation:
    function = functools.partial(_evaluate, method, eqn.params["jaxpr"], [])
    return jax.checkpoint(function, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])


def _cond(eqn: core.JaxprEqn, method: str) -> Evaluation:
    branches = [_evaluation(branch, method) for branch in eqn.params["branches"]]
    return lambda index, *operands: lax.switch(index, branches, *operands)


def _while(eqn: core.JaxprEqn, method: str) -> Evaluation:
    condition, body = (_evaluation(eqn.params[f"{name}_jaxpr"], method) for name in ("cond", "body"))
    of_condition, of_body = (eqn.params[f"{name}_nconsts"] for name in ("cond", "body"))

    def evaluation(*inputs: Any) -> list[Any]:
        ours, others = inputs[:of_condition], inputs[of_condition:]
        consts, carry = others[:of_body], [*others[of_body:]]
        return lax.while_loop(lambda carry: condition(*ours, *carry)[0], lambda carry: body(*consts, *carry), carry)

    return evaluation


def _scan(eqn: core.JaxprEqn, method: str) -> Evaluation:
    body, carried, consts = _evaluation(eqn.params["jaxpr"], method), eqn.params["num_carry"], eqn.params["num_consts"]

    def evaluation(*inputs: Any) -> list[Any]:
        fixed, carry, rows = inputs[:consts], inputs[consts : consts + carried], inputs[consts + carried :]

        def step(carry: tuple[Any, ...], row: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]]:
            outputs = body(*fixed, *carry, *row)
            return tuple(outputs[:carried]), outputs[carried:]

        static = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
        carry, rows = lax.scan(step, tuple(carry), tuple(rows), **static)
        return [*carry, *rows]

    return evaluation


def _custom_derivative(eqn: core.JaxprEqn, method: str) -> Evaluation:
    """Keeps the derivative that a function has of its own, with the replacements in it, too."""
    original, call, consts = unchanged(eqn), _evaluation(eqn.params["call_jaxpr"], method), eqn.params["num_consts"]
    # Of closed-over arrays, which come first, and of integers there is no gradient.
    has_grad = [n >= consts and jnp.issubdtype(atom.aval.dtype, jnp.floating) for n, atom in enumerate(eqn.invars)]

    @jax.custom_vjp
    def evaluation(*inputs: Any) -> list[Any]:
        return call(*inputs)

    def forward(*inputs: Any) -> tuple[list[Any], Callable]:
        return jax.vjp(functools.partial(original, *inputs[:consts]), *inputs[consts:])

    def of_floats(pullback: Callable, grads: list[Any]) -> list[Any]:
        return [grad for grad, wanted in zip(pullback(grads), has_grad[consts:], strict=True) if wanted]

    def backward(pullback: Callable, grads: list[Any]) -> tuple[Any, ...]:
        floats = iter(with_fast_convolutions(of_floats, method)(pullback, grads))
        return tuple(next(floats) if wanted else None for wanted in has_grad)

    evaluation.defvjp(with_fast_convolutions(forward, method), backward)
    return evaluation


_REPLACED: dict[str, Callable[[core.JaxprEqn, str], Evaluation | None]] = {
    "conv_general_dilated": replacements.convolution,
    "reduce_window_max": replacements.pool,
}
_NESTED: dict[str, Callable[[core.JaxprEqn, str], Evaluation]] = {
    **dict.fromkeys(("jit", "pjit"), _jit),
    **dict.fromkeys(("checkpoint", "remat2"), _checkpoint),
    **{"cond": _cond, "while": _while, "scan": _scan},
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), _custom_derivative),
}
