"""Training of ONE member, as pure functions of its settings, its random streams and the data.

A reader who knows `jax.grad` and `jax.lax.scan` can read this file top to bottom; `population` maps it over members.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from cnnjax.augment import gather_batch
from cnnjax.evaluate import DeviceSplit, Sums, batch_sums, evaluate, zero_sums
from cnnjax.models import Network, initial_variables
from cnnjax.optimizers import make_optimizer
from cnnjax.types import Streams, Traced

STREAMS = ("init", "order", "augment", "dropout")
jax.tree_util.register_dataclass(Streams, data_fields=STREAMS, meta_fields=())


class Task(NamedTuple):
    """What all members of a program share and what is compiled in."""

    network: Network
    initialisation: str
    optimizer: str
    batch_size: int
    augment: tuple[str, ...]


class Best(NamedTuple):
    """The weights with the lowest validation loss or highest accuracy so far, and when that was."""

    variables: dict
    score: Float[Array, ""]  # higher is better
    epoch: Int[Array, ""]


class State(NamedTuple):
    """A member while it trains."""

    variables: dict  # 'params', and 'batch_stats' where there is batch norm
    optimizer: optax.OptState
    epoch: Int[Array, ""]  # epochs done
    diverged: Int[Array, ""]  # the epoch that ended with a non-finite loss; 0 while all is well
    best: Best | None  # None without a validation split


class EpochMetrics(NamedTuple):
    """Means over a split: training ones over the epoch's batches as they were seen, before each update."""

    train_loss: Float[Array, ""]
    train_accuracy: Float[Array, ""]
    val_loss: Float[Array, ""]  # NaN without a validation split
    val_accuracy: Float[Array, ""]


def init_member(
    task: Task,
    settings: Traced,
    streams: Streams,
    image_shape: tuple[int, int, int],
    *,
    keep_best: bool,
) -> State:
    """Returns a member before its first epoch; only the init stream decides its weights."""
    variables = initial_variables(task.network, image_shape, task.initialisation, stream_key(streams, "init"))
    never = Best(variables, jnp.array(-jnp.inf), jnp.zeros((), jnp.int32))
    return State(
        variables=variables,
        optimizer=make_optimizer(task.optimizer, settings).init(variables["params"]),
        epoch=jnp.zeros((), jnp.int32),
        diverged=jnp.zeros((), jnp.int32),
        best=never if keep_best else None,
    )


def train_epoch(
    task: Task,
    select: str,
    settings: Traced,
    streams: Streams,
    train: DeviceSplit,
    validation: DeviceSplit | None,
    state: State,
) -> tuple[State, EpochMetrics]:
    """Trains a member for one epoch and validates it.

    A member whose epoch ends with a non-finite training loss is frozen as it stood when that epoch began: `diverged`
    says the epoch, and later epochs leave the member alone. So do epochs behind the end of its schedule.
    """
    factors = settings.schedule[jnp.minimum(state.epoch, len(settings.schedule) - 1)]
    trained, sums = _train_batches(task, settings, streams, train, state, factors)
    count = train.labels.shape[0]
    train_loss, train_accuracy = sums.loss / count, sums.correct / count
    val_loss = val_accuracy = jnp.array(jnp.nan)
    if validation is not None:
        val_sums = evaluate(task.network, trained.variables, validation)
        count = validation.labels.shape[0]
        val_loss, val_accuracy = val_sums.loss / count, val_sums.correct / count
    metrics = EpochMetrics(train_loss, train_accuracy, val_loss, val_accuracy)

    epoch = state.epoch + 1
    trained = trained._replace(epoch=epoch)
    if trained.best is not None:
        score = _score(metrics, select)
        newest = Best(trained.variables, score, epoch)
        trained = trained._replace(best=_where(score > trained.best.score, newest, trained.best))
    ran = (state.diverged == 0) & ~jnp.isnan(factors[0])
    healthy = ran & jnp.isfinite(train_loss)
    frozen = state._replace(diverged=jnp.where(ran, epoch, state.diverged))
    return _where(healthy, trained, frozen), metrics


def _train_batches(
    task: Task, settings: Traced, streams: Streams, train: DeviceSplit, state: State, factors: Float[Array, "2"]
) -> tuple[State, Sums]:
    """One pass over the training split: a scan of full batches, then one step for the remainder.

    The learning rate moves from the first factor, at the first step, towards the second, after the last.
    """
    count = train.labels.shape[0]
    order = epoch_order(stream_key(streams, "order", state.epoch), count)
    # All augmentation of an epoch is drawn at once: one random word decides what happens to one example.
    words = jax.random.bits(stream_key(streams, "augment", state.epoch), (count,))
    dropout_key = stream_key(streams, "dropout", state.epoch)
    full, rest = divmod(count, task.batch_size)
    steps = full + (rest > 0)

    def step(carry: tuple[dict, optax.OptState, Sums], batch: tuple[Array, Array, Array]) -> tuple:
        variables, optimizer_state, sums = carry
        index, indices, words = batch
        factor = factors[0] + (factors[1] - factors[0]) * (index / steps)
        optimizer = make_optimizer(
            task.optimizer, dataclasses.replace(settings, learning_rate=settings.learning_rate * factor)
        )
        images = gather_batch(
            *(train.images, indices, train.scale, train.shift),
            augment=task.augment,
            words_B=words,
        )
        gradients, (variables, batch_result) = jax.grad(_loss, has_aux=True)(
            variables["params"],
            *(task.network, settings, variables, images, train.labels[indices]),
            jax.random.fold_in(dropout_key, index),
        )
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, variables["params"])
        variables = {**variables, "params": optax.apply_updates(variables["params"], updates)}
        return (variables, optimizer_state, sums + batch_result), None

    examples = (order, words)
    carry = (state.variables, state.optimizer, zero_sums())
    if full:
        batches = (a[: count - rest].reshape(full, task.batch_size) for a in examples)
        carry, _ = lax.scan(step, carry, (jnp.arange(full), *batches))
    if rest:
        carry, _ = step(carry, (jnp.array(full), *(a[count - rest :] for a in examples)))
    variables, optimizer_state, sums = carry
    return state._replace(variables=variables, optimizer=optimizer_state), sums


def _loss(
    params: dict,
    network: Network,
    settings: Traced,
    variables: dict,
    images: Array,
    labels: Array,
    dropout_key: Array,
) -> tuple[Array, tuple[dict, Sums]]:
    """Mean smoothed cross-entropy of a batch; also the variables with moved batch statistics, and plain sums."""
    logits, moved = network.apply(
        {**variables, "params": params},
        images,
        train=True,
        dropout_rate=settings.dropout_rate,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats"],
    )
    assert isinstance(logits, jnp.ndarray)
    log_probabilities = jax.nn.log_softmax(logits)
    # Smoothing gives every class the same share of the target (Szegedy et al. 2016, section 7).
    of_label = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
    of_all = -log_probabilities.mean(-1)
    smoothing = settings.label_smoothing
    loss = ((1 - smoothing) * of_label + smoothing * of_all).mean()
    return loss, ({**variables, **moved}, batch_sums(logits, labels))


def epoch_order(key: Array, count: int) -> Int[Array, " count"]:
    """Returns a random permutation of `count` examples (sorting random words once: ties keep their order)."""
    return jnp.argsort(jax.random.bits(key, (count,)))


def stream_key(streams: Streams, name: str, epoch: Array | int = 0) -> Array:
    """Returns the key of one stream at one epoch; streams with equal seeds have different keys."""
    seed = jax.random.key(getattr(streams, name))
    return jax.random.fold_in(jax.random.fold_in(seed, STREAMS.index(name)), epoch)


def _score(metrics: EpochMetrics, select: str) -> Array:
    """The metric that picks the best epoch, turned so that higher is better; NaN never wins."""
    return -metrics.val_loss if select == "val_loss" else metrics.val_accuracy


def _where(condition: Array, chosen: NamedTuple, otherwise: NamedTuple):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, otherwise)
