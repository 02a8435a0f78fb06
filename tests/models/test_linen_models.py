"""The Linen modules of the ladder: published sizes, and residual networks against PyTorch with the same weights."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnnjax.models.ladder import LADDER, layers_of
from cnnjax.models.patch_networks import MlpMixer, VisionTransformer, mixer, vit
from cnnjax.models.resnet import ResNet, WideBlock, WideResNet, resnet18, resnet20, resnet32, resnet56, wrn16_4
from cnnjax.models.specs import KINDS
from cnnjax.models.summary import describe_network, parameter_count

COLOR = (32, 32, 3)


def vit_parameters(patch, width, depth, side, num_classes):
    """Patches, class token and positions; in each layer two norms, attention and an MLP; a norm and the logits."""
    layer = 2 * 2 * width + 4 * (width**2 + width) + 2 * 4 * width**2 + 5 * width
    tokens = (side // patch) ** 2 + 1
    return 3 * patch**2 * width + width * (2 + tokens) + depth * layer + 2 * width + (width + 1) * num_classes


def mixer_parameters(patch, width, depth, token_hidden, unit_hidden, side, num_classes):
    tokens = (side // patch) ** 2
    mlps = 2 * tokens * token_hidden + tokens + token_hidden + 2 * width * unit_hidden + width + unit_hidden
    return (3 * patch**2 + 1) * width + depth * (mlps + 2 * 2 * width) + 2 * width + (width + 1) * num_classes


SIZES = {
    # He et al. 2016, table 6: 0.27, 0.46 and 0.85 million.
    "resnet20": (resnet20, COLOR, 10, 269_722),
    "resnet32": (resnet32, COLOR, 10, 464_154),
    "resnet56": (resnet56, COLOR, 10, 853_018),
    "resnet20 with projections": (functools.partial(resnet20, projects=True), COLOR, 10, 272_474),
    "resnet18": (resnet18, COLOR, 10, 11_173_962),
    # Zagoruyko & Komodakis 2016, table 4: 2.7 and 36.5 million.
    "wrn16_4": (wrn16_4, COLOR, 10, 2_748_890),
    "WRN-28-10": (functools.partial(WideResNet, depth=28, width=10), COLOR, 10, 36_479_194),
    "vit": (vit, COLOR, 10, vit_parameters(4, 128, 6, 32, 10)),
    # ViT-B/16 as in torchvision, Mixer-S/16 as in timm.
    "ViT-B/16": (
        functools.partial(VisionTransformer, patch=16, width=768, depth=12, heads=12),
        *((224, 224, 3), 1000, 86_567_656),
    ),
    "mixer": (mixer, COLOR, 10, mixer_parameters(4, 128, 8, 64, 512, 32, 10)),
    "Mixer-S/16": (
        functools.partial(MlpMixer, patch=16, width=512, token_hidden=256, unit_hidden=2048),
        *((224, 224, 3), 1000, 18_528_264),
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_module_has_its_published_number_of_parameters(name):
    make, shape, num_classes, count = SIZES[name]
    module = make(num_classes=num_classes)
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    logits, variables = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    assert logits.shape == (2, num_classes)
    if name in LADDER:
        assert parameter_count(describe_network(name, num_classes, shape), shape) == count


def test_the_page_of_models_lists_every_layer_and_published_network():
    page = (Path(__file__).parents[2] / "docs/reference/models.md").read_text()
    layers, networks = page.split("## Published networks")
    rows = [row.split("|")[1:] for row in layers.splitlines() if row.startswith("| `")]
    assert {call for row in rows for call in re.findall(r"(\w+)\(", row[0])} == {kind.__name__ for kind in KINDS}
    rows = [row.split("|")[1:] for row in networks.splitlines() if row.startswith("| `")]
    listed = dict(
        pair for row in rows for pair in zip(*(row[i].replace("`", "").split(", ") for i in (0, 2)), strict=True)
    )
    counts = {name.strip(): int(count.replace(",", "")) for name, count in listed.items()}
    assert counts == {name: count for name, (*_, count) in SIZES.items() if name in LADDER}
    assert {*counts} == {name for name in LADDER if layers_of(name) is None}


@pytest.mark.parametrize("make", [vit, mixer])
def test_images_that_are_no_whole_number_of_patches_are_an_error(make):
    with pytest.raises(ValueError, match="images of 32x30 cannot be cut into patches of 4x4"):
        jax.eval_shape(lambda x: make(num_classes=2).init(jax.random.key(0), x), jnp.zeros((1, 32, 30, 3)))


def draw_variables(module, images, **options):
    """Variables of a module, each drawn: norms have neither scale 1 nor mean 0."""
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **options), images)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        spread = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        centre = path[-1].key in ("scale", "var")
        return (centre + rng.uniform(-0.5, 0.5, leaf.shape) * (1 if leaf.ndim == 1 else 2 * spread)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def pytorch_agrees(module, reference, images, **options):
    """Logits with running statistics; logits and gradients with those of the batch."""
    import torch

    from experiments.benchmarks import torch_resnet

    variables = draw_variables(module, images, **options)
    torch_resnet.load(reference, variables)
    reference.double()
    their_images = torch.tensor(images.transpose(0, 3, 1, 2)).double()

    def weighted(params):
        logits, _ = module.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum(), logits

    evaluated = jax.jit(functools.partial(module.apply, train=False))(variables, images)
    grads, logits = jax.jit(jax.grad(weighted, has_aux=True))(variables["params"])
    for train, ours in ((False, evaluated), (True, logits)):
        theirs = reference.train(train)(their_images)
        theirs = theirs.permute(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-3, atol=1e-4 * np.abs(ours).max())
    (theirs * torch.cos(torch.arange(theirs.numel())).reshape(theirs.shape)).sum().backward()
    expected = torch_resnet.gradients(reference)
    flat = flatten_dict(grads, sep="/")
    assert flat.keys() == expected.keys()
    for name, grad in flat.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(grad, expected[name], atol=1e-3 * scale, err_msg=name)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"widths": (8, 12), "blocks": 1, "projects": True}], ids=["resnet20", "B"])
def test_residual_networks_agree_with_pytorch(settings):
    pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    from experiments.benchmarks import torch_resnet

    images = np.random.default_rng(1).normal(size=(8, 12, 12, 3)).astype(np.float32)
    module = ResNet(10, **settings)
    reference = torch_resnet.ResNet(module.widths, module.blocks, module.projects)
    pytorch_agrees(module, reference, images, train=False)


@pytest.mark.torch
@pytest.mark.slow
def test_wide_blocks_agree_with_pytorch():
    pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    from experiments.benchmarks import torch_resnet

    images = np.random.default_rng(1).normal(size=(4, 9, 8, 6)).astype(np.float32)
    pytorch_agrees(WideBlock(16, 2), torch_resnet.WideBlock(6, 16, 2), images, train=False)
