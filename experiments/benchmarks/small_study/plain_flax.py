"""The study as a plain script of Flax with a jitted step, which prints means: plain_flax.py IMAGES.npz."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from experiments.benchmarks.small_study.networks import Large, Small

with np.load(sys.argv[1]) as data:
    train_x, test_x = (
        (data[name] / 127.5 - 1).astype(np.float32).transpose(0, 2, 3, 1) for name in ("train_x", "test_x")
    )
    train_y, test_y = data["train_y"].astype(np.int32), data["test_y"].astype(np.int32)


@jax.jit
def train_step(state: TrainState, x: Any, y: Any) -> TrainState:
    """Updates the weights by a batch."""

    def loss(params: Any) -> Any:
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


@jax.jit
def predict(state: TrainState, x: Any) -> Any:
    """Returns the classes of images."""
    return state.apply_fn({"params": state.params}, x).argmax(1)


for network in (Small, Large):
    for rate in (1e-3, 1e-2):
        accuracies = []
        for seed in range(3):
            model, numbers = network(10), np.random.default_rng(seed)
            params = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))["params"]
            state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(rate))
            for _ in range(2):
                order = numbers.permutation(len(train_x))
                for i in range(0, len(train_x), 64):
                    batch = order[i : i + 64]
                    state = train_step(state, train_x[batch], train_y[batch])
            found = np.concatenate([predict(state, test_x[i : i + 1000]) for i in range(0, len(test_x), 1000)])
            accuracies.append((found == test_y).mean())
        print(network.__name__, rate, np.mean(accuracies))
