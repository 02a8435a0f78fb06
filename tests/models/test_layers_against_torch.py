"""Layers with stride, groups, other pools and norms, and residuals, against PyTorch with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models.conv import avg_pool, max_pool
from cnnjax.models.network import Network, initial_variables
from cnnjax.models.specs import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    GlobalAvgPool,
    GroupNorm,
    LayerNorm,
    MaxPool,
    Relu,
    Residual,
    Silu,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")

from tests.support import torch_layers  # noqa: E402

pytestmark = pytest.mark.torch

SHAPE, CLASSES = (13, 10, 4), 3


def block(features):
    return Conv(features, bias=False), BatchNorm(), Relu(), Conv(features, bias=False), BatchNorm()


NETWORKS = {
    "stride": (Conv(6, stride=2), Relu(), Conv(8, 4, stride=3, bias=False), Dense(5, bias=False), Dense(bias=False)),
    "groups": (Conv(8, groups=2), Silu(), Conv(8, 3, "valid", groups=8, dilation=2), Relu(), Conv(6, 1), Dense()),
    "pools": (Conv(4), Silu(), MaxPool(3, 2), Conv(4), AvgPool(2, 1), MaxPool(2), Dense()),
    "norms": (Conv(6), LayerNorm(), Silu(), Conv(6), GroupNorm(3), GlobalAvgPool(), GroupNorm(2), LayerNorm(), Dense()),
    "residual": (
        *(Conv(4, bias=False), BatchNorm(), Relu(), Residual(*block(4)), Relu()),
        Residual(BatchNorm(), Conv(8, 3, stride=2), Residual(Silu(), Conv(8)), shortcut=(Conv(8, 1, stride=2),)),
        *(GlobalAvgPool(), Residual(Dense(8), Silu()), Dense()),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients(name):
    network = Network(NETWORKS[name], CLASSES)
    rng = np.random.default_rng(0)
    images, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((4, *SHAPE), (4, CLASSES)))
    variables = initial_variables(network, SHAPE, "pytorch", jax.random.key(0))

    @jax.jit
    def value_and_grads(params):
        def weighted(params):
            logits, _ = network.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return (logits * weights).sum(), logits

        return jax.grad(weighted, has_aux=True)(params)

    # Scales and biases of norms are not all equal.
    noise = iter(rng.normal(size=(100, 64)).astype(np.float32))
    params = {
        layer: leaves if "kernel" in leaves else {k: v + 0.3 * next(noise)[: len(v)] for k, v in leaves.items()}
        for layer, leaves in variables["params"].items()
    }
    grads, logits = value_and_grads(params)
    theirs = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf, np.float64), requires_grad=True), params)
    their_logits = torch_layers.apply(NETWORKS[name], theirs, torch.tensor(images).double())
    np.testing.assert_allclose(logits, their_logits.detach().numpy(), rtol=1e-4, atol=1e-5)
    (their_logits * torch.tensor(weights)).sum().backward()
    for layer, leaves in theirs.items():
        largest = max(np.abs(leaf.grad.numpy()).max() for leaf in leaves.values())
        for key, leaf in leaves.items():
            message = f"{layer}/{key}"
            np.testing.assert_allclose(grads[layer][key], leaf.grad.numpy(), atol=2e-5 * largest, err_msg=message)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 1), (3, 3), (2, 2)])
def test_pools_of_pixels_with_equal_values(window, stride):
    """The gradient of the maximum goes to the first of them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 3, (2, 7, 6, 2)).astype(np.float32)
    theirs = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    for pool, their_pool in ((max_pool, torch.nn.functional.max_pool2d), (avg_pool, torch.nn.functional.avg_pool2d)):
        theirs.grad, expected = None, their_pool(theirs, window, stride)
        cotangent = rng.normal(size=expected.shape).astype(np.float32)
        expected.backward(torch.tensor(cotangent))

        @jax.jit
        def pooled_and_grad(images, cotangent, pool=pool):
            pooled, pullback = jax.vjp(lambda x: pool(x, (window, window), (stride, stride)), images)
            return pooled, *pullback(cotangent)

        pooled, grad = pooled_and_grad(images, cotangent.transpose(0, 2, 3, 1))
        np.testing.assert_allclose(pooled, expected.detach().permute(0, 2, 3, 1), rtol=1e-6)
        np.testing.assert_allclose(grad, theirs.grad.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_a_maximum_of_nan_is_nan():
    images = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(jnp.nan)
    assert jnp.isnan(max_pool(images, (3, 3), (1, 1))).all()
