"""`with_fast_convolutions`: networks of Linen and NNX, and functions with convolutions in every kind of place."""

import functools
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from cnnjax.models.replacements import Fused, fuse
from cnnjax.models.rewrite import with_fast_convolutions

REPLACED = ("conv_general_dilated", "reduce_window_max", "select_and_scatter")


class ResidualNet(nn.Module):
    """A stem, a residual block with stride and projection, and a head."""

    @nn.compact
    def __call__(self, x, *, train):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.max_pool(nn.Conv(4, (5, 5), 2)(x), (3, 3), (2, 2), "SAME")
        y = nn.relu(norm()(nn.Conv(8, (3, 3), 2, use_bias=False)(x)))
        y = norm()(nn.Conv(8, (3, 3), use_bias=False)(y))
        x = nn.relu(y + norm()(nn.Conv(8, (1, 1), 2, use_bias=False)(x)))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2))))


class SeparableNet(nn.Module):
    """An inverted bottleneck with a depthwise convolution."""

    @nn.compact
    def __call__(self, x, *, train):
        y = nn.silu(nn.Conv(6, (1, 1))(x))
        y = nn.silu(nn.Conv(6, (3, 3), 2, feature_group_count=6)(y))
        return nn.Dense(3)(nn.Conv(4, (1, 1))(y).mean((1, 2)))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(3, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x)))
        return self.head(nnx.max_pool(x + self.second(x), (2, 2), (2, 2)).mean((1, 2)))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_equal(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1, float(np.abs(other).max())))


def assert_replaced(function, *arguments):
    text = str(jax.make_jaxpr(function)(*arguments))
    assert [name for name in REPLACED if name in text] == []


def linen(network, over_members):
    """Returns a function of `apply` that computes loss, updated statistics and gradients, and its arguments."""
    images, keys = draw(2, 4, 12, 12, 3), jax.random.split(jax.random.key(1), 2)
    variables = [network.init(key, images[0], train=False) for key in keys]

    def of(apply):
        def loss(variables, images, key):
            logits, updated = apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
            return jnp.square(logits).mean(), updated

        each = jax.value_and_grad(loss, has_aux=True)
        return jax.jit(jax.vmap(each) if over_members else each)

    if over_members:
        return of, (jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables), images, keys)
    return of, (variables[0], images[0], keys[0])


@pytest.mark.slow
@pytest.mark.parametrize("over_members", [False, True])
@pytest.mark.parametrize("network", [ResidualNet(), SeparableNet()], ids=["residual", "separable"])
def test_a_linen_network(network, over_members):
    of, arguments = linen(network, over_members)
    fast = of(with_fast_convolutions(network.apply))
    assert_equal(fast(*arguments), of(network.apply)(*arguments))
    assert_replaced(fast, *arguments)


@pytest.mark.slow
def test_an_nnx_network():
    network = NnxNet(nnx.Rngs(0))
    network.train()
    definition, state = nnx.split(network)

    def loss(state, images):
        merged = nnx.merge(definition, state)
        return jnp.square(merged(images)).mean(), nnx.state(merged, nnx.BatchStat)

    of = lambda function: jax.jit(jax.value_and_grad(function, has_aux=True))  # noqa: E731
    images = draw(4, 8, 8, 3)
    fast = of(with_fast_convolutions(loss))
    assert_equal(fast(state, images), of(loss)(state, images))
    assert_replaced(fast, state, images)


KERNEL = draw(3, 3, 2, 2, seed=1) / 4


def convolved(x):
    return lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_vjp
def with_own_vjp(x, factor):
    return convolved(x) * factor


with_own_vjp.defvjp(
    lambda x, factor: (with_own_vjp(x, factor), (x, factor)),
    lambda saved, grad: (3 * jax.vjp(convolved, saved[0])[1](grad)[0], None),  # three times the gradient
)


@jax.custom_jvp
def with_own_jvp(x):
    return jnp.tanh(convolved(x))


@with_own_jvp.defjvp
def _(primals, tangents):
    value, tangent = jax.jvp(convolved, primals, tangents)
    return jnp.tanh(value), 2 * tangent


PLACES = {
    "jit": jax.jit(convolved),
    "cond": lambda x: lax.cond(x[0, 0, 0, 0] > 0, convolved, lambda x: 2 * convolved(x), x),
    "scan": lambda x: lax.scan(lambda c, row: (convolved(c) + row, c.mean()), x, jnp.arange(3.0)),
    "map": lambda x: lax.map(lambda factor: convolved(factor * x), jnp.arange(3.0)),
    "checkpoint": jax.checkpoint(convolved),
    "custom_vjp": lambda x: with_own_vjp(x, jnp.int32(2)),
    "custom_jvp": with_own_jvp,
    "transposed": lambda x: lax.conv_transpose(x, KERNEL[:2, :2], (2, 2), "SAME"),
}


@pytest.mark.parametrize("place", PLACES)
def test_convolutions_in_every_place(place):
    x = draw(2, 4, 5, 2)

    def of(function):
        def total(x):
            return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(function(x)))

        return jax.jit(jax.value_and_grad(total))

    fast = of(with_fast_convolutions(PLACES[place]))
    assert_equal(fast(x), of(PLACES[place])(x))
    assert_replaced(fast, x)


def test_a_while_loop():
    def function(x):
        return lax.while_loop(lambda c: jnp.abs(convolved(c)).sum() < 100, lambda c: 2 * convolved(c), x)

    x = draw(2, 4, 5, 2)
    assert_equal(with_fast_convolutions(function)(x), function(x))


@pytest.mark.parametrize("batch_groups", [1, 2])
def test_other_dimension_numbers(batch_groups):
    """Channels first, with every argument of lax; the groups are of features or of the batch."""

    def function(x, kernel):
        output = lax.conv_general_dilated(
            *(x, kernel, (2, 1), [(1, 2), (0, 1)]),
            lhs_dilation=(1, 2),
            rhs_dilation=(1, 2),
            feature_group_count=2 // batch_groups,
            batch_group_count=batch_groups,
            dimension_numbers=("NCHW", "OIHW", "CNHW"),
        )
        return lax.reduce_window(output, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 1), "SAME")

    x, kernel = draw(2, 4, 9, 8), draw(6, 2 * batch_groups, 3, 2)
    of = lambda function: jax.jit(jax.value_and_grad(lambda *a: jnp.square(function(*a)).sum(), (0, 1)))  # noqa: E731
    fast = of(with_fast_convolutions(function))
    assert_equal(fast(x, kernel), of(function)(x, kernel))
    assert_replaced(fast, x, kernel)


def test_what_is_left_as_it_is():
    """Integers and one dimension; arguments that are no arrays are static."""

    def function(x, ints, *, times: int, is_doubled: bool):
        line = lax.conv(x, x[:, :, :2], (1,), "SAME")
        whole = lax.conv(ints, ints, (1, 1), "SAME")
        return line * (2 if is_doubled else 1), [whole] * times

    arguments = draw(2, 2, 5), jnp.ones((2, 2, 3, 3), jnp.int32)
    ours = with_fast_convolutions(function)(*arguments, times=2, is_doubled=True)
    theirs = function(*arguments, times=2, is_doubled=True)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert_equal(ours, theirs)


def test_under_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("members",))
    members = jax.sharding.PartitionSpec("members")

    def of(function):
        grad = jax.vmap(jax.grad(lambda x: jnp.square(function(x)).sum()))
        return jax.jit(jax.shard_map(grad, mesh=mesh, in_specs=members, out_specs=members, check_vma=False))

    x = draw(2, 2, 4, 5, 2)
    assert_equal(of(with_fast_convolutions(convolved))(x), of(convolved)(x))


@jax.custom_jvp
def straight_through(x):
    return jnp.maximum(x, 0)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), *tangents))


def pooled(x, activation, has_bias=True, size=2):
    x = convolved(x)
    x = x + jnp.array([0.1, -0.2]).reshape(1, 1, 1, 2) if has_bias else x
    window = (1, size, size, 1)
    return lax.reduce_window(activation(x), -jnp.inf, lax.max, window, window, "VALID")


def used_twice(x):
    rectified = jax.nn.relu(convolved(x))
    return rectified.mean() + lax.reduce_window(rectified, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@pytest.mark.parametrize(
    ("function", "is_fused"),
    [
        (functools.partial(pooled, activation=jax.nn.relu), True),
        (functools.partial(pooled, activation=jax.nn.relu, has_bias=False), True),
        (functools.partial(pooled, activation=straight_through), False),
        (functools.partial(pooled, activation=jax.nn.gelu), False),
        (functools.partial(pooled, activation=jax.nn.relu, size=3), False),
        (used_twice, False),
    ],
)
def test_convolution_bias_relu_and_pool_are_fused(function, is_fused):
    x = draw(2, 6, 7, 2)
    assert any(isinstance(eqn, Fused) for eqn in fuse(jax.make_jaxpr(function)(x).jaxpr, "auto")) == is_fused
    of = lambda function: jax.jit(jax.value_and_grad(lambda x: jnp.sin(function(x)).sum()))  # noqa: E731
    assert_equal(of(with_fast_convolutions(function))(x), of(function)(x))


@pytest.mark.slow
def test_the_examples_of_the_documentation_run():
    page = (Path(__file__).parents[2] / "docs/how-to/convolutions.md").read_text()
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(example, {})
