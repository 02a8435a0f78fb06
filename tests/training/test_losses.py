"""Losses and class weights against PyTorch and scikit-learn, and what a user's loss or metric must not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from cnnjax.models.network import Network
from cnnjax.models.specs import Dense
from cnnjax.study.hparams import Streams
from cnnjax.training.evaluate import DeviceSplit
from cnnjax.training.losses import class_weights, load_loss, losses_of, weighted_mean, weights_of
from cnnjax.training.train import Batch, init_train_state, train_epoch, train_step
from cnnjax.training.train_state import StaticConfig
from tests.training.test_train_step import (
    CLASSES,
    TorchNetwork,
    assert_weights_agree,
    draw_batch,
    hparams_of,
    start,
    torch,
)

pytestmark = pytest.mark.torch

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (12, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 12).astype(np.int32)
SOFT = RNG.dirichlet(np.ones(CLASSES), 12).astype(np.float32)
WEIGHTS = np.array([0.5, 1, 2, 3.5, 0.25], np.float32)
SMOOTHING = 0.1


def torch_focal(gamma):
    def focal(logits, targets):
        p = torch.softmax(logits, 1)
        return -(targets * (1 - p) ** gamma * torch.log(p)).sum(1)

    return focal


REFERENCES = {
    "cross_entropy": lambda x, t: torch.nn.functional.cross_entropy(x, t, reduction="none"),
    "focal": torch_focal(2),
    "focal:0.5": torch_focal(0.5),
    "binary": lambda x, t: torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none").mean(1),
    "brier": lambda x, t: torch.nn.functional.mse_loss(torch.softmax(x, 1), t, reduction="none").sum(1),
}


def smoothed(labels):
    one_hot = np.eye(CLASSES)[labels] if labels.ndim == 1 else labels
    return torch.tensor((1 - SMOOTHING) * one_hot + SMOOTHING / CLASSES)


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["classes", "soft"])
@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_gradients_of_losses(name, labels):
    def mean(logits):
        return losses_of(load_loss(name), logits, jnp.array(labels), jnp.float32(SMOOTHING)).mean()

    loss, grads = jax.value_and_grad(mean)(jnp.array(LOGITS))
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    expected = REFERENCES[name](logits, smoothed(labels)).mean()
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(grads, logits.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gamma", ["0", "0.5", "1", "2"])
def test_the_gradient_of_the_focal_loss_is_finite_where_the_network_is_certain(gamma):
    certain = 200 * jnp.eye(CLASSES)
    of = load_loss(f"focal:{gamma}")
    for targets in (jnp.eye(CLASSES), jnp.full((CLASSES, CLASSES), 1 / CLASSES)):
        assert jnp.isfinite(jax.grad(lambda logits, targets=targets: of(logits, targets).sum())(certain)).all()


def test_class_weights_are_those_of_pytorch():
    text = "/".join(map(str, WEIGHTS.tolist()))
    weights = weights_of(jnp.array(LABELS), class_weights(text, LABELS, CLASSES))
    found = weighted_mean(losses_of(None, jnp.array(LOGITS), jnp.array(LABELS), jnp.float32(0)), weights)
    expected = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS))(torch.tensor(LOGITS), torch.tensor(LABELS).long())
    np.testing.assert_allclose(found, expected.item(), rtol=1e-6)
    of_soft = weights_of(jnp.array(SOFT), jnp.array(WEIGHTS))
    np.testing.assert_allclose(of_soft, np.average(np.tile(WEIGHTS, (12, 1)), axis=1, weights=SOFT), rtol=1e-6)


def test_balanced_class_weights_are_those_of_scikit_learn():
    labels = RNG.choice(CLASSES, 200, p=[0.6, 0.2, 0.1, 0.05, 0.05])
    expected = compute_class_weight("balanced", classes=np.arange(CLASSES), y=labels)
    np.testing.assert_allclose(class_weights("balanced", jnp.array(labels), CLASSES), expected, rtol=1e-6)


@pytest.mark.slow
def test_steps_with_a_focal_loss_weights_and_soft_labels_are_those_of_pytorch():
    state, hparams, config, network = start("sgd", momentum=0.9, label_smoothing=SMOOTHING)
    config = config._replace(loss=load_loss("focal:2"))
    rule = torch.optim.SGD(network.parameters(), 0.05, 0.9)
    step = jax.jit(train_step, static_argnames="config")
    for number in range(2):
        images, labels, _ = draw_batch(number)
        soft = RNG.dirichlet(np.ones(CLASSES), len(labels)).astype(np.float32)
        state, metrics = step(state, Batch(images, soft, soft @ WEIGHTS), hparams, jax.random.key(0), config=config)
        logits = network(torch.tensor(images).double())
        weights = torch.tensor(soft @ WEIGHTS)
        loss = (torch_focal(2)(logits, smoothed(soft)) * weights).sum() / weights.sum()
        rule.zero_grad()
        loss.backward()
        rule.step()
        assert_weights_agree(state, network)
        assert metrics.accuracy == (logits.argmax(1).numpy() == soft.argmax(1)).sum()
    assert isinstance(network, TorchNetwork)


@pytest.mark.slow
def test_an_epoch_with_balanced_weights_is_one_with_the_weights_of_its_own_split():
    """The split has other frequencies than the pool that it is drawn from."""
    pool = np.repeat(np.arange(CLASSES), 20).astype(np.int32)
    images = RNG.integers(0, 256, (100, 4, 4, 1)).astype(np.uint8)
    chosen = np.r_[0:20, 20:30, 40:45, 60:64, 80:81].astype(np.int32)
    split = DeviceSplit(
        jnp.array(images), jnp.array(pool), jnp.array([1 / 255]), jnp.zeros(1), indices=jnp.array(chosen)
    )
    hparams = hparams_of(schedule=np.ones((2, 2), np.float32), epochs=1, shuffle=True, monitor=0, patience=9)
    weights = compute_class_weight("balanced", classes=np.arange(CLASSES), y=pool[chosen])
    states = []
    for of_classes in (None, "balanced", "/".join(f"{weight:.9g}" for weight in weights)):
        config = StaticConfig(Network((Dense(),), CLASSES), "pytorch", "sgd", 16, class_weights=of_classes)
        state = init_train_state(hparams, Streams(0, 0, 0, 0), (4, 4, 1), config, keep_best=False)
        epoch = jax.jit(
            lambda state, config=config: train_epoch(state, hparams, Streams(0, 0, 0, 0), split, None, config)
        )
        states.append(epoch(state)[0].params["dense0"]["kernel"])
    equal, balanced, numbers = states
    np.testing.assert_allclose(balanced, numbers, rtol=1e-5, atol=1e-7)
    assert np.abs(balanced - equal).max() > 1e-3
