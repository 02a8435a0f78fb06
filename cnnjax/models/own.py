"""Flax modules as models: Linen and NNX modules behind the interface of `network.Network`."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cnnjax.models.rewrite import with_fast_convolutions
from cnnjax.models.specs import Layers
from cnnjax.utils.errors import UnfitCode

Variables = dict[str, Any]
_NAMES = ("num_classes", "image_shape", "rngs")  # what a module class or a factory may take


@dataclasses.dataclass(frozen=True, eq=False)
class FlaxNetwork:
    """A Flax module of any form, for one member.

    Its variables are 'params' and 'batch_stats'. The latter has every other collection, such as those of batch norms,
    by name.

    Attributes:
        apply_params: (params, others, images, train, dropout_rate, key) -> (logits, updated others).
        init_params: (random key) -> (params, others).
        num_classes: the number of logits.
        precision: of the arithmetic, as in a study's `train.precision`.
        takes_dropout_rate: whether the module is called with the trial's dropout rate.
        shards: 1, because only the module knows what it computes over a whole batch.
        convolution: the method, as in a study's `train.convolution`.
    """

    apply_params: Callable[..., tuple[Array, Variables]]
    init_params: Callable[[Array], tuple[Variables, Variables]]
    num_classes: int
    precision: str = "float32"
    takes_dropout_rate: bool = False
    shards: int = 1
    convolution: str = "auto"

    def apply(
        self,
        variables: Variables,
        images: Float[Array, "N H W C"],
        *,
        train: bool,
        dropout_rate: Any = jnp.nan,
        rngs: dict[str, Array] | None = None,
        mutable: Any = False,
    ) -> Any:
        """Returns float32 logits [N, K]; in training, with the updated variables, as `Network.apply` does."""
        dtype = jnp.bfloat16 if self.precision == "bfloat16" else jnp.float32
        params = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float32 else leaf, variables["params"]
        )
        key = (rngs or {}).get("dropout")
        others = variables.get("batch_stats", {})
        apply = with_fast_convolutions(self.apply_params, self.convolution)
        logits, updated = apply(params, others, images.astype(dtype), train, dropout_rate, key)
        logits = logits.astype(jnp.float32)
        return (logits, {"batch_stats": updated}) if mutable else logits

    def init_variables(self, key: Array) -> Variables:
        """Returns the variables before training, as the module initializes them."""
        params, others = self.init_params(key)
        return {"params": params, **({"batch_stats": others} if others else {})}


def build_module(
    model: Callable[..., Any], num_classes: int, image_shape: tuple[int, int, int], precision: str = "float32"
) -> FlaxNetwork | Layers:
    """Builds the network of a module class, or of a function that returns a module or a tuple of layers.

    Args:
        model: is called with those of `num_classes`, `image_shape` and `rngs` that it takes.
        num_classes: number of logits.
        image_shape: (H, W, C).
        precision: of the arithmetic, as in a study's `train.precision`.

    Raises:
        UnfitCode: the call returns anything else.
    """
    given: dict[str, Any] = {"num_classes": num_classes, "image_shape": image_shape}
    taken = _taken(model, _NAMES)
    given = {name: value for name, value in given.items() if name in taken}

    if "rngs" in taken:
        return _nnx_network(lambda rngs: model(**given, rngs=rngs), num_classes, precision)
    built = model(**given)
    if isinstance(built, nn.Module):
        return _linen_network(built, num_classes, image_shape, precision)
    if isinstance(built, tuple):
        return built
    if isinstance(built, nnx.Module):
        raise UnfitCode("it makes an NNX module, but takes no argument `rngs`")
    raise UnfitCode(f"it returns {type(built).__name__}, not a Flax module")


def check_module(network: FlaxNetwork, image_shape: tuple[int, int, int]) -> None:
    """Traces a training step of two members, without compiling it.

    Args:
        network: the module.
        image_shape: (H, W, C).

    Raises:
        UnfitCode: the module does not return logits [N, K], changes the shape of its variables, or has effects on the
            host. Other errors are those of JAX and of the module.
    """

    def loss(params: Variables, others: Variables, images: Array, key: Array) -> tuple[Array, Variables]:
        variables = {"params": params, "batch_stats": others}
        (logits, updated) = network.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        for each in (logits, network.apply(variables, images, train=False)):
            if each.shape != (len(images), network.num_classes):
                shape = f"[{len(images)}, {network.num_classes}]"
                raise UnfitCode(f"it returns logits {list(each.shape)} for {len(images)} images; they must be {shape}")
        if (before := jax.tree.map(_type, others)) != (after := jax.tree.map(_type, updated["batch_stats"])):
            raise UnfitCode(f"training changes its variables from {before} to {after}")
        return logits.mean(), updated["batch_stats"]

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    variables = jax.eval_shape(jax.vmap(network.init_variables), keys)
    if not jax.tree.leaves(variables["params"]):
        raise UnfitCode("it has no parameters")
    images = jax.ShapeDtypeStruct((2, 2, *image_shape), jnp.float32)
    step = jax.vmap(jax.grad(loss, has_aux=True))
    traced = jax.make_jaxpr(step)(variables["params"], variables.get("batch_stats", {}), images, keys)
    for name, place in callbacks(traced.jaxpr):
        at = f" (at {place})" if place else ""
        raise UnfitCode(f"{name}{at} has an effect outside of the program, which cannot be mapped over members")


def _type(leaf: Any) -> tuple:
    return leaf.shape, str(leaf.dtype)


def callbacks(jaxpr: Any) -> Iterator[tuple[str, str]]:
    """Yields the name of each operation of a jaxpr with an effect on the host, and its place in the source."""
    for eqn in jaxpr.eqns:
        if eqn.effects or "callback" in eqn.primitive.name:
            frames = eqn.source_info.traceback.frames if eqn.source_info.traceback else ()
            places = [f"{frame.file_name}, line {frame.line_num}" for frame in frames]
            yield eqn.primitive.name, next((each for each in places if "site-packages" not in each), "")
        for value in eqn.params.values():
            for each in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from callbacks(inner)


def _taken(function: Callable[..., Any], names: tuple[str, ...]) -> set[str]:
    """Returns those of the names that a function takes as keyword arguments."""
    parameters = inspect.signature(function).parameters
    takes_all = any(each.kind == each.VAR_KEYWORD for each in parameters.values())
    return {name for name in names if name in parameters or takes_all}


def _linen_network(
    module: nn.Module, num_classes: int, image_shape: tuple[int, int, int], precision: str
) -> FlaxNetwork:
    taken = _taken(type(module).__call__, ("train", "dropout_rate"))

    def arguments(train: bool, dropout_rate: Any) -> dict[str, Any]:
        return {name: value for name, value in (("train", train), ("dropout_rate", dropout_rate)) if name in taken}

    def apply(params: Variables, others: Variables, images: Array, train: bool, rate: Any, key: Array | None) -> tuple:
        rngs = None if key is None else {"dropout": key}
        variables = {"params": params, **others}
        logits, updated = module.apply(
            variables, images, **arguments(train, rate), rngs=rngs, mutable=[*others] if train else []
        )
        return logits, {**others, **updated}

    def init(key: Array) -> tuple[Variables, Variables]:
        images = jnp.zeros((1, *image_shape))
        others = dict(module.init(key, images, **arguments(False, jnp.nan)))
        return others.pop("params", {}), others

    return FlaxNetwork(apply, init, num_classes, precision, "dropout_rate" in taken)


def _nnx_network(build: Callable[[nnx.Rngs], Any], num_classes: int, precision: str) -> FlaxNetwork:
    def split(key: Array) -> tuple:
        return nnx.split(build(nnx.Rngs(key)), nnx.Param, nnx.RngState, ...)

    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    definitions = {}
    for train in (False, True):
        (abstract.train if train else abstract.eval)()
        definitions[train], *_ = nnx.split(abstract, nnx.Param, nnx.RngState, ...)
    takes_train = bool(_taken(type(abstract).__call__, ("train",)))

    def apply(params: Variables, others: Variables, images: Array, train: bool, rate: Any, key: Array | None) -> tuple:
        _, *states = jax.eval_shape(split, jax.random.key(0))
        of_params, of_rngs, of_others = states
        nnx.replace_by_pure_dict(of_params, params)
        nnx.replace_by_pure_dict(of_others, others)
        random = _fresh_rngs(of_rngs, jax.random.key(0) if key is None else key)
        module = nnx.merge(definitions[train], of_params, random, of_others)
        logits = module(images, train=train) if takes_train else module(images)
        _, _, _, updated = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return logits, nnx.to_pure_dict(updated)

    def init(key: Array) -> tuple[Variables, Variables]:
        _, params, _, others = split(key)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(others)

    return FlaxNetwork(apply, init, num_classes, precision)


def _fresh_rngs(state: Any, key: Array) -> Any:
    """Returns the random state of an NNX module: counters of zero, and keys from one key."""
    leaves, structure = jax.tree.flatten(state)
    fresh = [
        jax.random.fold_in(key, number)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros((), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, fresh)
