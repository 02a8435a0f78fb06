"""The PyTorch models: published sizes, and the Flax layout of their weights."""

import numpy as np
import pytest

from cnnjax.models.ladder import LADDER, layers_of
from cnnjax.models.network import build_network
from cnnjax.models.summary import parameter_count

torch = pytest.importorskip("torch")

from experiments.benchmarks import torch_models  # noqa: E402

pytestmark = pytest.mark.torch

MODELS = ("baseline", "medium", "complex", "base")


def random_tree(tree, seed):
    rng = np.random.default_rng(seed)
    return {
        name: {leaf: rng.uniform(0.1, 1, x.shape).astype("float32") for leaf, x in leaves.items()}
        for name, leaves in tree.items()
    }


def assert_equal(left, right):
    assert {k: set(v) for k, v in left.items()} == {k: set(v) for k, v in right.items()}
    for name, leaves in left.items():
        for leaf, array in leaves.items():
            np.testing.assert_array_equal(array, right[name][leaf], err_msg=f"{name}/{leaf}")


@pytest.mark.parametrize("name", [name for name in LADDER if layers_of(name)])
def test_a_module_has_the_parameters_of_its_model(name):
    module = torch_models.build(name)
    params, _ = torch_models.state(module)
    count = parameter_count(build_network(name, 10), (32, 32, 3))
    assert sum(x.size for leaves in params.values() for x in leaves.values()) == count
    assert sum(p.numel() for p in module.parameters()) == count


@pytest.mark.parametrize("name", MODELS)
def test_other_image_shapes_and_classes(name):
    logits = torch_models.build(name, channels=1, image_size=28, classes=5)(torch.zeros(2, 1, 28, 28))
    assert logits.shape == (2, 5)


@pytest.mark.parametrize("name", MODELS)
def test_flax_tree_round_trip(name):
    module = torch_models.build(name, image_size=16)
    params, batch_stats = (random_tree(tree, 7) for tree in torch_models.state(module))
    torch_models.load_flax(module, params, batch_stats)
    loaded_params, loaded_batch_stats = torch_models.state(module)
    assert_equal(loaded_params, params)
    assert_equal(loaded_batch_stats, batch_stats)


@pytest.mark.parametrize("name", ["medium", "complex"])
def test_loaded_tree_means_what_flax_would_compute(name):
    """The logits of a tree, computed channels last in NumPy, are those of the loaded module."""
    module = torch_models.build(name, image_size=8).double().eval()
    params, batch_stats = (random_tree(tree, 3) for tree in torch_models.state(module))
    params["dense1"]["kernel"] -= 0.5  # the sums are large: let signs cancel
    torch_models.load_flax(module, params, batch_stats)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    expected = numpy_forward(module, params, batch_stats, images)
    with torch.no_grad():
        logits = module(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-9)


def numpy_forward(module, params, batch_stats, x):
    for name, _ in module.named_children():
        leaves = params.get(name)
        if name.startswith("conv"):
            size = x.shape[1]
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = leaves["bias"] + sum(
                padded[:, i : i + size, j : j + size] @ leaves["kernel"][i, j].astype("float64")
                for i in range(3)
                for j in range(3)
            )
        elif name.startswith("bn"):
            mean, var = batch_stats[name]["mean"], batch_stats[name]["var"].astype("float64")
            x = (x - mean) / np.sqrt(var + 1e-5) * leaves["scale"] + leaves["bias"]
        elif name.startswith("relu"):
            x = np.maximum(x, 0)
        elif name.startswith("maxpool"):
            b, h, w, c = x.shape
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
        elif name.startswith("flatten"):
            x = x.reshape(len(x), -1)
        elif name.startswith("dense"):
            x = x @ leaves["kernel"].T.astype("float64") + leaves["bias"]
    return x


def test_gradients_stand_where_their_weights_stand():
    """Each leaf of the gradient is the central difference of the loss in that leaf of the tree."""
    module = torch_models.build("complex", image_size=8).double().eval()
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3, 8, 8)))
    labels = torch.tensor([1, 5, 7])

    def loss(params):
        torch_models.load_flax(module, params)
        return torch.nn.functional.cross_entropy(module(images), labels)

    params, _ = torch_models.state(module)
    loss(params).backward()
    gradient = torch_models.gradients(module)
    rng, step = np.random.default_rng(2), 1e-6
    for name, leaves in params.items():
        for leaf, array in leaves.items():
            index = tuple(rng.integers(n) for n in array.shape)
            ends = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * step
                ends.append(loss({**params, name: {**leaves, leaf: moved}}).item())
            difference = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(
                gradient[name][leaf][index],
                difference,
                rtol=1e-4,
                atol=1e-8,
                err_msg=f"{name}/{leaf}",
            )


def test_wrong_trees_are_refused():
    module = torch_models.build("baseline")
    params, _ = torch_models.state(module)
    with pytest.raises(KeyError, match="conv0"):
        torch_models.load_flax(module, {"dense0": params["dense0"]})
    with pytest.raises(ValueError, match="no layers conv1"):
        torch_models.load_flax(module, {**params, "conv1": params["conv0"]})
    with pytest.raises(ValueError, match=r"dense0: kernel of shape \(4096, 10\)"):
        dense = {**params["dense0"], "kernel": params["dense0"]["kernel"].T}
        torch_models.load_flax(module, {**params, "dense0": dense})
    with pytest.raises(ValueError, match=r"conv0: bias of shape \(1,\)"):
        conv = {**params["conv0"], "bias": np.ones(1, "float32")}
        torch_models.load_flax(module, {**params, "conv0": conv})
    with pytest.raises(ValueError, match="call backward first"):
        torch_models.gradients(module)
