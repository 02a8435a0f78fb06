"""The parts of a Flax module: parameters, output and operations of each, read off its jaxpr."""

import math
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from cnnjax.models.own import FlaxNetwork
from cnnjax.models.specs import LayerRow

_OTHER = "other products"


def module_table(network: FlaxNetwork, image_shape: tuple[int, int, int]) -> list[LayerRow]:
    """Returns a row for each part of a module that has parameters, for one image of shape (H, W, C).

    A part is named by its path. The parts are in the order of their use. A last row has the products of activations
    with each other, such as those of attention, if there are any.
    """
    variables = jax.eval_shape(network.init_variables, jax.random.key(0))
    leaves, structure = jax.tree.flatten_with_path(variables["params"])
    others = variables.get("batch_stats", {})

    def forward(leaves: list[Any], others: Any, image: Any) -> Any:
        params = jax.tree.unflatten(structure, leaves)
        return network.apply_params(params, others, image, False, jnp.nan, None)[0]

    image = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    jaxpr = jax.make_jaxpr(forward)([leaf for _, leaf in leaves], others, image).jaxpr
    paths = ["/".join(str(entry.key) for entry in path[:-1] or path) for path, _ in leaves]
    parts = _Parts(dict(zip(jaxpr.invars, paths, strict=False)), jaxpr.invars[-1])
    parts.visit(jaxpr)
    sizes: dict[str, int] = {}
    for path, (_, leaf) in zip(paths, leaves, strict=True):
        sizes[path] = sizes.get(path, 0) + math.prod(leaf.shape)
    names = [*parts.outputs, *(path for path in sizes if path not in parts.outputs)]
    return [
        LayerRow(name, parts.outputs.get(name, ()), parts.kernels.get(name, ()), sizes.get(name, 0), parts.flops[name])
        for name in names
    ]


class _Parts:
    """Follows parameters through a jaxpr. Collects the output, the kernel and the operations of each part."""

    def __init__(self, origins: dict[Any, str], image: Any):
        self.origins = origins
        self.activations = {image}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.kernels: dict[str, tuple[int, ...]] = {}
        self.flops: dict[str, int] = defaultdict(int)

    def visit(self, jaxpr: Any, times: int = 1) -> None:
        for eqn in jaxpr.eqns:
            variables = [each for each in eqn.invars if isinstance(each, core.Var)]
            owners = [each for each in variables if each in self.origins]
            is_activation = not self.activations.isdisjoint(variables)
            inner = _inner(eqn)
            if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
                self._product(eqn, owners, times)
            elif inner is not None:
                for outside, inside in zip(eqn.invars, inner.invars, strict=False):
                    if isinstance(outside, core.Var) and outside in self.origins:
                        self.origins[inside] = self.origins[outside]
                    if isinstance(outside, core.Var) and outside in self.activations:
                        self.activations.add(inside)
                self.visit(inner, times * eqn.params.get("length", 1))
            elif owners and not is_activation:  # a parameter in another form, as a scale divided by a deviation
                self.origins.update(dict.fromkeys(eqn.outvars, self.origins[owners[0]]))
            elif owners:
                self.outputs.setdefault(self.origins[owners[0]], eqn.outvars[0].aval.shape[1:])
            if is_activation:
                self.activations.update(eqn.outvars)

    def _product(self, eqn: Any, owners: list[Any], times: int) -> None:
        left, right, output = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            inputs = math.prod(left[axis] for axis in contracted)
        else:
            features = eqn.params["dimension_numbers"].rhs_spec[0]
            inputs = math.prod(right) // right[features]
        name = self.origins[owners[0]] if owners else _OTHER
        self.outputs.setdefault(name, output[1:])
        if owners:
            self.kernels[name] = owners[0].aval.shape
        self.flops[name] += 2 * times * math.prod(output) * inputs


def _inner(eqn: Any) -> Any | None:
    """Returns the jaxpr that an equation calls, if it calls one with its own arguments."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in eqn.params:
            found = eqn.params[name]
            return getattr(found, "jaxpr", found)
    return None
