"""Networks from a file outside the package: as PyTorch trains them, alone and in populations, interrupted, loaded."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnnjax
from cnnjax.models.network import build_network
from cnnjax.study import own_code
from cnnjax.study.overrides import read_study
from cnnjax.training.stacking import TableSize, stack_members
from cnnjax.training.train import Batch, loss_fn, train_step
from cnnjax.training.train_state import StaticConfig, hparams_of_stage
from tests.support.runs import read_all

NETS = Path(__file__).parents[1] / "support" / "own" / "nets.py"
SHAPE = (8, 8, 1)
TRAIN = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "batch_size": 50}


def make_config(*names, folder=NETS.parent, **train):
    return {
        "models": tuple(f"{folder / 'nets.py'}:{name}" for name in names),
        "seeds": (0, 1),
        "data": {"name": "digits", "train_examples": 200, "validation": 50},
        "train": {**TRAIN, "epochs": 2, "learning_rate": (0.05, 0.02), **train},
    }


def first_member(name):
    """The network of a name in nets.py, its first member's hyperparameters, and the static configuration."""
    from cnnjax.study.plan import make_plan

    study = read_study(make_config(name))
    own_code.prepare(study.code, study.models)
    program = make_plan(study).programs[0]
    hparams, streams = stack_members(program.members[:1], TableSize(2), "val_accuracy", (0,))
    network = build_network(study.models[0], 10, image_shape=SHAPE)
    config = StaticConfig(network, "pytorch", "sgd", 50)
    of_stage = hparams_of_stage(jax.tree.map(lambda rows: rows[0], hparams), jnp.array(0))
    return network, of_stage, jax.tree.map(lambda a: a[0], streams), config


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("resnet_without_dropout", "resnet"),
        ("small_without_dropout", "small"),
        ("Depthwise", "depthwise"),
        ("ViT", "vit"),
    ],
)
def test_it_trains_as_pytorch_does_with_the_same_weights(name, reference):
    torch = pytest.importorskip("torch")
    from cnnjax.training.train import init_train_state
    from tests.support.own import torch_nets

    network, hparams, streams, config = first_member(name)
    generator = np.random.default_rng(0)
    batches = [
        Batch(generator.normal(size=(50, *SHAPE)).astype(np.float32), generator.integers(10, size=50)) for _ in range(5)
    ]
    stages = jax.tree.map(lambda value: np.asarray(value)[None], hparams)
    start = jax.jit(init_train_state, static_argnums=(2, 3), static_argnames="keep_best")
    state = start(stages, streams, SHAPE, config, keep_best=False)
    theirs = jax.tree.map(lambda a: torch.tensor(np.asarray(a), requires_grad=True), state.params)
    forward = getattr(torch_nets, reference)

    def their_loss(batch):
        logits = forward(theirs, torch.tensor(batch.images))
        return logits, torch.nn.functional.cross_entropy(logits, torch.tensor(batch.labels))

    key, first = jax.random.key(0), batches[0]
    apply = jax.jit(functools.partial(network.apply, train=True, rngs={"dropout": key}, mutable=["batch_stats"]))
    logits, _ = apply(state.variables, first.images)
    expected, loss = their_loss(first)
    np.testing.assert_allclose(logits, expected.detach(), rtol=1e-4, atol=2e-5)
    loss.backward()
    differentiate = jax.jit(jax.grad(loss_fn, has_aux=True), static_argnums=5)
    grads, _ = differentiate(state.params, state.batch_stats, first, hparams, key, network)
    for ours, other in zip(jax.tree.leaves(grads), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(ours, other.grad, rtol=1e-3, atol=2e-6)
    optimizer = torch.optim.SGD(jax.tree.leaves(theirs), lr=float(hparams.learning_rate), momentum=0.9)
    step = jax.jit(lambda state, batch: train_step(state, batch, hparams, key, config))
    for batch in batches:
        optimizer.zero_grad()
        their_loss(batch)[1].backward()
        optimizer.step()
        state, _ = step(state, batch)
    for ours, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(ours, other.detach(), rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet", "Small", "Depthwise", "ViT"])
def test_it_trains_in_a_population_as_alone_and_an_interrupted_run_is_bit_equal(name, tmp_path, monkeypatch):
    from cnnjax.training import loop

    run = cnnjax.run(make_config(name), tmp_path / "whole", progress=False)
    table = run.trials.set_index("trial")
    assert len(table) == 4 and set(table.status) == {"ok"}

    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return advance(*arguments)

    advance = loop._train
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cnnjax.run(make_config(name), tmp_path / "cut", progress=False)
    cnnjax.run(make_config(name), tmp_path / "cut", progress=False)
    assert read_all(tmp_path / "cut") == read_all(tmp_path / "whole")

    one = make_config(name, learning_rate=0.02) | {"seeds": (1,)}
    alone = cnnjax.run(one, tmp_path / "alone", progress=False).trials.iloc[0]
    together = table.loc[alone.trial]
    for measure in ("train_loss", "val_loss", "test_loss", "test_accuracy"):
        assert alone[measure] == pytest.approx(together[measure], rel=1e-5)

    trained = run.load(alone.trial)
    logits = np.load(tmp_path / "whole" / "predictions" / f"{alone.trial}.npz")["logits"]
    images = np.load(tmp_path / "whole" / "predictions" / "images.npz")["images"]
    found = trained.logits(images)
    np.testing.assert_allclose(found - found.max(1, keepdims=True), logits[: len(found)], atol=0.02)
