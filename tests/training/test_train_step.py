"""`loss_fn` and `train_step` alone, against PyTorch with the same weights and batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models.network import Network
from cnnjax.models.shards import AXIS
from cnnjax.models.specs import BatchNorm, Conv, Dense, MaxPool, Relu
from cnnjax.study.hparams import Streams
from cnnjax.training.stacking import Hparams
from cnnjax.training.train import Batch, init_train_state, loss_fn, train_step
from cnnjax.training.train_state import StaticConfig

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")

pytestmark = pytest.mark.torch

IMAGE_SHAPE, CLASSES = (6, 6, 2), 5
LAYERS = (Conv(4), BatchNorm(), Relu(), MaxPool(), Dense())


class TorchNetwork(torch.nn.Module):
    """The layers above, in PyTorch."""

    def __init__(self, variables):
        super().__init__()
        params = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf, np.float64)), variables["params"])
        self.conv = torch.nn.Conv2d(2, 4, 3, padding=1).double()
        self.norm = torch.nn.BatchNorm2d(4).double()
        self.dense = torch.nn.Linear(4 * 3 * 3, CLASSES).double()
        with torch.no_grad():
            self.conv.weight.copy_(params["conv0"]["kernel"].permute(3, 2, 0, 1))
            self.conv.bias.copy_(params["conv0"]["bias"])
            self.dense.weight.copy_(params["dense0"]["kernel"])
            self.dense.bias.copy_(params["dense0"]["bias"])

    def forward(self, images):
        x = torch.relu(self.norm(self.conv(images.permute(0, 3, 1, 2))))
        return self.dense(torch.nn.functional.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1))


def hparams_of(**values):
    """Hyperparameters of a run of one stage."""
    usual = {"learning_rate": 0.05, "momentum": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0, "dropout_rate": 0.0}
    usual |= {"b1": np.array([0.9, 0.1]), "b2": np.array([0.999, 0.001])}  # each with its complement
    scalars = {**dict.fromkeys(Hparams._fields, False), **usual, **values}
    return Hparams(*(jnp.asarray(scalars[name], None)[None] for name in Hparams._fields))


def start(optimizer, **values):
    """A state before its first step, its hyperparameters and configuration, and the same network in PyTorch."""
    config = StaticConfig(Network(LAYERS, CLASSES), "pytorch", optimizer, batch_size=8)
    hparams = hparams_of(**values)
    state = init_train_state(hparams, Streams(0, 0, 0, 0), IMAGE_SHAPE, config, keep_best=False)
    return state, jax.tree.map(lambda leaf: leaf[0], hparams), config, TorchNetwork(state.variables)


def draw_batch(seed):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(8, *IMAGE_SHAPE)).astype(np.float32)
    return Batch(images, rng.integers(0, CLASSES, 8).astype(np.int32))


def torch_loss(network, batch, smoothing=0.0):
    logits = network(torch.tensor(batch.images).double())
    labels = torch.tensor(batch.labels).long()
    return logits, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def assert_weights_agree(state, network):
    params, moments = state.params, state.batch_stats["bn0"]
    pairs = [
        (np.transpose(params["conv0"]["kernel"], (3, 2, 0, 1)), network.conv.weight),
        (params["bn0"]["scale"], network.norm.weight),
        (params["bn0"]["bias"], network.norm.bias),
        (params["dense0"]["kernel"], network.dense.weight),
        (params["dense0"]["bias"], network.dense.bias),
        (moments["mean"], network.norm.running_mean),
        (moments["var"], network.norm.running_var),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_its_sums(smoothing):
    state, hparams, config, network = start("sgd", label_smoothing=smoothing)
    batch = draw_batch(1)
    loss, (_, sums) = loss_fn(state.params, state.batch_stats, batch, hparams, jax.random.key(0), config.network)
    logits, theirs = torch_loss(network, batch, smoothing)
    np.testing.assert_allclose(loss, theirs.item(), rtol=1e-5)
    np.testing.assert_allclose(sums.loss, 8 * torch_loss(TorchNetwork(state.variables), batch)[1].item(), rtol=1e-5)
    assert sums.accuracy == (logits.argmax(1).numpy() == batch.labels).sum()


def step_of(config, shards):
    """A compiled step, or one that `jax.vmap` computes as so many devices would, each with a shard of the batch."""
    if shards == 1:
        return jax.jit(lambda *arguments: train_step(*arguments, config))
    sharded = config._replace(shards=shards).for_batch(8)
    axes = (None, 0, None, None)
    devices = jax.jit(jax.vmap(lambda *arguments: train_step(*arguments, sharded), axes, axis_name=AXIS))

    def step(state, batch, hparams, key):
        parts = jax.tree.map(lambda leaf: leaf.reshape(shards, -1, *leaf.shape[1:]), batch)
        every = devices(state, parts, hparams, key)
        jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, leaf[:1].repeat(shards, 0)), every)
        return jax.tree.map(lambda leaf: leaf[0], every)

    return step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "values", "make", "shards"),
    [
        ("sgd", {"momentum": 0.9, "weight_decay": 0.01}, lambda p: torch.optim.SGD(p, 0.05, 0.9, weight_decay=0.01), 1),
        ("sgd", {"momentum": 0.9, "weight_decay": 0.01}, lambda p: torch.optim.SGD(p, 0.05, 0.9, weight_decay=0.01), 4),
        ("adam", {"learning_rate": 1e-3}, lambda p: torch.optim.Adam(p, 1e-3), 1),
    ],
)
def test_steps_are_those_of_pytorch(optimizer, values, make, shards):
    """Five steps: from the second one on, with momentum."""
    state, hparams, config, network = start(optimizer, **values)
    rule, step = make(network.parameters()), step_of(config, shards)
    for number in range(5):
        batch = draw_batch(number)
        state, metrics = step(state, batch, hparams, jax.random.key(number))
        rule.zero_grad()
        _, loss = torch_loss(network, batch)
        np.testing.assert_allclose(metrics.loss, 8 * loss.item(), rtol=1e-4)
        loss.backward()
        rule.step()
        assert_weights_agree(state, network)


@pytest.mark.slow
def test_a_step_changes_nothing_but_weights_and_moments():
    state, hparams, config, _ = start("sgd", momentum=0.9)
    after, _ = train_step(state, draw_batch(0), hparams, jax.random.key(0), config)
    assert (after.epoch, after.stage, after.diverged, after.best) == (0, 0, 0, None)
    for name in ("params", "batch_stats", "opt_state"):
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), getattr(after, name), getattr(state, name))
        assert any(jax.tree.leaves(changed)), name
