"""The models of the ladder: their published sizes, and their cost without running them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models.fusion import ConvPool, fused
from cnnjax.models.init import initial_parameters
from cnnjax.models.ladder import LADDER, changed, described, layers_of
from cnnjax.models.network import Network, build_network, initial_variables, variable_shapes
from cnnjax.models.specs import (
    KINDS,
    AvgPool,
    BatchNorm,
    ChannelDropout,
    Conv,
    Dense,
    Gelu,
    GlobalAvgPool,
    GroupNorm,
    LayerNorm,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    Silu,
    describe,
)
from cnnjax.models.summary import check_fits, forward_flops, layer_table, parameter_count
from cnnjax.utils.errors import RequestError

COLOR, GRAY, SMALL = (32, 32, 3), (32, 32, 1), (28, 28, 1)
# Parameters as the five studies print them.
PUBLISHED = {
    "baseline": (COLOR, 10, 41_418),
    "medium": (COLOR, 10, 1_070_794),
    "complex": (COLOR, 10, 4_312_906),
    "base": (COLOR, 10, 272_842),
    "improved": (COLOR, 10, 10_543_370),
    "dense": (GRAY, 10, 624_778),
    "dense_wide": (GRAY, 10, 1_184_010),
    "dense_deep": (GRAY, 10, 690_826),
    "dense_batchnorm": (GRAY, 10, 626_570),
    "dense_dropout": (GRAY, 10, 624_778),
    "cnn": (GRAY, 10, 166_986),
    "cnn_wide": (GRAY, 10, 315_146),
    "cnn_deep": (GRAY, 10, 376_042),
    "cnn_batchnorm": (GRAY, 10, 167_178),
    "cnn_dropout": (GRAY, 10, 166_986),
    "cnn_final": (GRAY, 10, 4_798_986),
    "blocks_24": (SMALL, 5, 1_206_389),
    "blocks_24_48": (SMALL, 5, 633_125),
    "blocks_24_48_64": (SMALL, 5, 255_333),
    "blocks_8_16": (SMALL, 5, 205_669),
    "blocks_16_32": (SMALL, 5, 416_197),
    "blocks_32_64": (SMALL, 5, 856_453),
    "blocks_40_80": (SMALL, 5, 1_086_181),
    "blocks_48_96": (SMALL, 5, 1_322_309),
    "blocks_32_64_dense": (SMALL, 5, 888_709),
    "lenet": (COLOR, 10, 62_006),
    "lenet_deep": (COLOR, 10, 108_732),
    "lenet_32_64": (COLOR, 10, 1_760_756),
    "lenet_64_128": (COLOR, 10, 7_038_452),
    "lenet_64_128_256": (COLOR, 10, 6_424_308),
}


@dataclasses.dataclass(frozen=True)
class Swish(Relu):
    """An unknown layer, derived from a known one."""


class Cube:
    """An unknown layer, not derived from a known one."""


def test_every_model_has_its_published_number_of_parameters():
    assert set(PUBLISHED) == {name for name in LADDER if layers_of(name) is not None}
    for name, (shape, num_classes, count) in PUBLISHED.items():
        assert parameter_count(build_network(name, num_classes), shape) == count, name


@pytest.mark.parametrize("name", ["baseline", "complex", "improved", "dense", "cnn_final", "blocks_24_48_64", "lenet"])
def test_the_table_of_layers_agrees_with_the_network(name):
    """XLA's own count of operations leaves out the zeros of padding and includes the activations."""
    shape, num_classes, _ = PUBLISHED[name]
    network = build_network(name, num_classes, convolution="dense")
    table = layer_table(network, shape)
    assert len(table) == len(LADDER[name]) and table[-1].output == (num_classes,)
    variables = jax.eval_shape(lambda key: initial_variables(network, shape, "he", key), jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    lowered = jax.jit(lambda v, x: network.apply(v, x, train=False)).lower(variables, x)
    assert forward_flops(network, shape) == pytest.approx(lowered.cost_analysis()["flops"], rel=0.1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_of_the_layers_sum_to_those_of_the_network(name):
    shape, num_classes, _ = PUBLISHED[name]
    network = build_network(name, num_classes)
    variables = variable_shapes(network, shape)["params"]
    assert parameter_count(network, shape) == sum(leaf.size for leaf in jax.tree.leaves(variables))
    kernels = [leaves["kernel"].shape for leaves in variables.values() if "kernel" in leaves]
    assert sorted(kernels) == sorted(row.kernel for row in layer_table(network, shape) if row.kernel)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((Conv(4, 5, "vaild"), Relu(), Dense()), ["vaild", "'same' or 'valid'"]),  # was a convolution with padding
        ((Conv(4), Relu, Dense()), ["Relu", "with its arguments"]),  # was no layer at all
        ((Conv(4), Relu(), Dense(7)), ["no logits", "Dense()"]),  # had seven
        ((Conv(4), Relu()), ["no logits"]),
        ((), ["no logits"]),
        ((Conv(0), Dense()), ["features"]),
        ((Conv(4, 0), Dense()), ["kernel_size"]),
        ((Conv("4"), Dense()), ["Conv(features='4'"]),
        ((Dense(0), Dense()), ["features"]),
        ((Dense(16), MaxPool(), Dense()), ["MaxPool()", "first dense layer"]),
        ((ChannelDropout(1.0), Dense()), ["rate"]),
        ((Conv(4, "5"), Dense()), ["Conv(features=4, kernel_size='5'"]),
        ((Conv(4), Swish(), Dense()), ["Swish()", "the layers of this file"]),  # was Relu
        (Dense(), ["a tuple of layers"]),
        ((Conv(4, stride=0), Dense()), ["Conv(features=4, stride=0)", "stride a whole number > 0"]),
        ((Conv(4, dilation=None), Dense()), ["dilation a whole number > 0"]),
        ((Conv(4, groups=3), Dense()), ["groups that divide the features"]),
        ((Conv(4, bias="no"), Dense()), ["bias True or False"]),
        ((MaxPool(0), Dense()), ["MaxPool(window=0)", "window a whole number > 0"]),
        ((AvgPool(2, 1.5), Dense()), ["stride a whole number > 0, or None"]),
        ((GlobalAvgPool(), Conv(4), Dense()), ["Conv(features=4)", "global pooling"]),
        ((Residual(), Dense()), ["Residual()", "at least one layer"]),
        ((Residual(Conv(4), Relu), Dense()), ["Relu", "with its arguments"]),
        ((Residual(Conv(4), shortcut=Conv(4, 1)), Dense()), ["a shortcut is", "a tuple of layers"]),
        ((Residual(Conv(4), Residual(Conv(4, padding="full"))), Dense()), ["padding='full'", "'same' or 'valid'"]),
        ((Residual(GlobalAvgPool(), Dense(3)), MaxPool(), Dense()), ["MaxPool()", "global pooling"]),
        ((Conv(4), Residual(Dense())), ["no logits"]),
    ],
)
def test_an_invalid_model_is_refused(monkeypatch, layers, words):
    monkeypatch.setitem(LADDER, "mine", layers)
    with pytest.raises(RequestError) as error:
        build_network("mine", 10)
    assert all(word in str(error.value) for word in ("models='mine'", *words)), error.value


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_of_the_ladder_is_applied(kind):
    """And has the size in the table of layers that it has in the network."""
    values = {"features": 5, "kernel_size": 3, "rate": 0.5, "groups": 1}
    names = {field.name for field in dataclasses.fields(kind)} & values.keys()
    layer = Residual(Relu()) if kind is Residual else kind(**{name: values[name] for name in names})
    network = Network((layer, Dense()), 10)
    *_, first, logits = layer_table(network, SMALL)
    assert first.layer == layer and logits.parameters == 10 * (math.prod(first.output) + 1)
    variables = variable_shapes(network, SMALL)["params"]
    assert first.parameters + logits.parameters == sum(leaf.size for leaf in jax.tree.leaves(variables))


NORMS = {
    "bn": (Conv(4), BatchNorm(), Relu(), Dense(8), BatchNorm(), Relu()),
    "pool": (Conv(4), MaxPool(), BatchNorm(), Gelu(), Conv(4), Relu(), MaxPool(), BatchNorm()),
    "valid": (Conv(4, padding="valid"), Conv(4, 1), Conv(4, 3, "valid"), BatchNorm(), LeakyRelu()),
    "same": (Conv(4), Conv(4), BatchNorm(), Conv(4, padding="valid"), BatchNorm(), Relu()),
    "dense": (BatchNorm(), Conv(4, padding="valid"), Dense(8), Dense(8), BatchNorm(), Gelu(), Dense(8)),
    "residual": (
        *(Conv(4, 2, "valid"), Residual(Conv(4, 1), shortcut=(AvgPool(1), Conv(4, 1, stride=1))), AvgPool(3, 2)),
        *(BatchNorm(), Conv(4), Residual(Conv(4), LayerNorm(), Conv(4, 1, bias=False)), BatchNorm(), Relu()),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMS)
def test_a_bias_that_batch_norm_removes_has_no_gradient_at_all(name):
    """Adam would make full steps of rounding errors. Every other bias has a gradient."""
    network = Network((*NORMS[name], Dense()), 3)
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(16, 12, 12, 2)).astype(np.float32), rng.normal(size=(16, 3)).astype(np.float32)
    variables = initial_variables(network, (12, 12, 2), "pytorch", jax.random.key(1))

    @jax.jit
    def output(params):
        return network.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])[0]

    params = variables["params"]
    grads = jax.jit(jax.grad(lambda params: (output(params) * weights).sum()))(params)
    without = set()
    for layer, leaves in params.items():
        if "bias" not in leaves:
            continue
        moved = {**params, layer: {**leaves, "bias": leaves["bias"] + np.linspace(0.5, 1, leaves["bias"].size)}}
        has_no_effect = np.abs(output(moved) - output(params)).max() < 1e-4
        assert has_no_effect == (not grads[layer]["bias"].any()), layer
        assert all(grad.any() for key, grad in grads[layer].items() if key != "bias")
        without |= {layer} if has_no_effect else set()
    assert (
        without
        == {
            "bn": {"conv0", "dense0"},
            "pool": {"conv0"},
            "valid": {"conv0", "conv1", "conv2"},
            "same": {"bn0", "conv1", "conv2"},
            "dense": {"bn0", "conv0", "dense0", "dense1"},
            "residual": {"conv0", "conv1", "conv2", "ln0"},
        }[name]
    )


def test_a_layer_that_no_network_applies_is_an_error():
    """It is not left out silently."""
    network = Network((Cube(), Dense()), 10)
    for ask in (parameter_count, layer_table):
        with pytest.raises(TypeError, match="no network applies the layer"):
            ask(network, SMALL)
    with pytest.raises(TypeError, match="the parameters of cube0: power"):
        initial_parameters("he", {"cube0": {"power": jnp.ones(3)}}, jax.random.key(0))


NESTED = (
    *(Conv(8, bias=False, stride=2), BatchNorm(), Relu()),
    Residual(Conv(8, groups=8), Silu(), Residual(Conv(8)), shortcut=(Conv(8, 1, bias=False), GroupNorm(4))),
    *(MaxPool(3, 2), GlobalAvgPool(), Residual(Dense(8, bias=False)), Dense()),
)


def test_the_table_of_layers_has_those_of_residuals():
    network = Network(NESTED, 10)
    table = layer_table(network, SMALL)
    assert [(row.part, type(row.layer).__name__) for row in table if row.part or isinstance(row.layer, Residual)] == [
        *[("branch", "Conv"), ("branch", "Silu"), ("branch of branch", "Conv"), ("branch", "Residual")],
        *[("shortcut", "Conv"), ("shortcut", "GroupNorm"), ("", "Residual"), ("branch", "Dense"), ("", "Residual")],
    ]
    assert [row.output for row in table[:4]] == [(14, 14, 8)] * 4
    variables = variable_shapes(network, SMALL)
    leaves = {
        f"{layer}/{name}": leaf.size for layer, leaves in variables["params"].items() for name, leaf in leaves.items()
    }
    assert parameter_count(network, SMALL) == sum(leaves.values())
    assert not {"conv0/bias", "conv3/bias", "dense0/bias"} & leaves.keys() and "conv1/bias" in leaves
    # Multiplications and additions: 3x3 on 1 channel, depthwise, 3x3 on 8 channels, 1x1; then two dense layers.
    assert forward_flops(network, SMALL) == 2 * (14**2 * 8 * (9 + 9 + 72 + 8) + 8 * 8 + 8 * 10)
    assert describe(NESTED[3]) == (
        "Residual(Conv(features=8, groups=8), Silu(), Residual(Conv(features=8)), "
        "shortcut=(Conv(features=8, kernel_size=1, bias=False), GroupNorm(groups=4),))"
    )
    assert eval(describe(NESTED[3])) == NESTED[3]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((Conv(4), Residual(Conv(8, stride=2)), Dense()), "adds 14x14x8 .branch. and 28x28x4 .shortcut.; make"),
        ((Residual(Conv(4, 3, "valid"), shortcut=(Conv(4),)), Dense()), "adds 26x26x4 .branch. and 28x28x4"),
        ((Residual(GlobalAvgPool()), Dense()), "adds 1 .branch. and 28x28x1"),
        ((Conv(4, groups=2), Dense()), r"Conv\(features=4, groups=2\) cannot split 1 channels"),
        ((Conv(5), GroupNorm(2), Dense()), r"GroupNorm\(groups=2\) cannot split 5 channels; use groups"),
        ((Residual(MaxPool(30), shortcut=(MaxPool(30),)), Dense()), "at least 30x30"),
    ],
)
def test_layers_that_do_not_fit_the_images_are_refused(monkeypatch, layers, words):
    monkeypatch.setitem(LADDER, "mine", layers)
    with pytest.raises(RequestError, match=f"models='mine': .*{words}"):
        check_fits("mine", SMALL)


def test_the_smallest_image_that_fits_is_named():
    for name in ("lenet", "cnn_final", "improved"):
        with pytest.raises(RequestError, match="at least") as refused:
            check_fits(name, (1, 40, 3))
        least = int(str(refused.value).partition("at least ")[2].partition("x")[0])
        check_fits(name, (least, least, 3))
        with pytest.raises(RequestError, match=f"at least {least}x{least}"):
            check_fits(name, (least, least - 1, 3))


def test_pools_go_where_they_save_most():
    convolution = Conv(4)
    assert fused((convolution, Relu(), MaxPool())) == (ConvPool(convolution),)
    assert fused((convolution, Relu(), ChannelDropout(0.5), MaxPool())) == (ConvPool(convolution), ChannelDropout(0.5))
    assert fused((convolution, LeakyRelu(), MaxPool())) == (convolution, MaxPool(), LeakyRelu())
    assert fused((convolution, Gelu(), MaxPool())) == (convolution, Gelu(), MaxPool())
    assert fused((convolution, MaxPool(), MaxPool())) == (convolution, MaxPool(), MaxPool())
    assert fused((convolution, Relu(), MaxPool(3, 2))) == (convolution, MaxPool(3, 2), Relu())
    assert fused((Conv(4, stride=2), Relu(), MaxPool())) == (Conv(4, stride=2), MaxPool(), Relu())
    assert fused((convolution, Relu(), MaxPool(2, 2))) == (ConvPool(convolution),)


def test_the_first_layer_that_differs_is_named(monkeypatch):
    stored = described(["lenet", "baseline"])
    assert stored["baseline"] == ["Conv(features=16)", "Relu()", "MaxPool()", "Dense()"]
    assert changed(["lenet", "baseline"], stored) == {} == changed(["medium"], stored)
    monkeypatch.setitem(LADDER, "baseline", (Conv(16, 5), *LADDER["baseline"][1:]))
    monkeypatch.setitem(LADDER, "lenet", (*LADDER["lenet"][:-1], Relu(), Dense()))
    assert changed(["lenet", "baseline"], stored) == {
        "lenet": "layer 11 was Dense() and is Relu()",
        "baseline": "layer 1 was Conv(features=16) and is Conv(features=16, kernel_size=5)",
    }
    monkeypatch.setitem(LADDER, "baseline", ("no layer",))
    assert described(["baseline", "nowhere"]) == {}  # whoever builds them says what is wrong
