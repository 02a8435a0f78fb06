"""Training of one network: `loss_fn`, `train_step` for a batch, `train_epoch` for an epoch. Pure functions.

`population` maps `train_epoch` over members.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from cnnjax.models.network import AnyNetwork, initial_variables
from cnnjax.models.shards import mean_over_shards, shard_of, sum_over_shards
from cnnjax.study.augmentation import mixes_examples
from cnnjax.study.hparams import STREAMS, Streams
from cnnjax.training.augment.batch import augmented_batch
from cnnjax.training.augment.draws import EVERY_EPOCH, alternate_flips
from cnnjax.training.evaluate import DeviceSplit, Sums, batch_sums, evaluate, zero_sums
from cnnjax.training.losses import Labels, Loss, class_weights, losses_of, weighted_mean, weights_of
from cnnjax.training.stacking import Hparams, steps_per_epoch
from cnnjax.training.train_state import (
    Averages,
    BestWeights,
    EpochMetrics,
    StaticConfig,
    TrainState,
    average_weights,
    end_epoch,
    epoch_metrics,
    for_each_average,
    has_ended,
    hparams_of_stage,
    map_averages,
    new_plateau,
    where,
)

jax.tree_util.register_dataclass(Streams, data_fields=[*STREAMS], meta_fields=())


class Batch(NamedTuple):
    """A batch of training examples."""

    images: Float[Array, "B H W C"]  # normalized and augmented
    labels: Labels
    weights: Float[Array, " B"] | None = None  # of the examples in the mean of the losses; None: equal


def init_train_state(
    hparams: Hparams,
    streams: Streams,
    image_shape: tuple[int, int, int],
    config: StaticConfig,
    *,
    keep_best: bool,
) -> TrainState:
    """Returns the state before the first epoch. Only the init stream decides the initial parameters.

    Args:
        hparams: of all stages.
        streams: the seeds of the run.
        image_shape: (H, W, C).
        config: the static configuration.
        keep_best: whether to keep the weights of the best epoch.
    """
    variables = initial_variables(config.network, image_shape, config.initialization, stream_key(streams, "init"))
    variables = {"batch_stats": {}, **variables}
    params, batch_stats = variables["params"], variables["batch_stats"]
    zero = jnp.zeros((), jnp.int32)
    measures = epoch_metrics(config.metrics)
    worst = measures(*[jnp.array(-jnp.inf)] * len(measures._fields))
    optimizer = config.optimizer_of(hparams_of_stage(hparams, zero))
    best = BestWeights(params, batch_stats, worst, zero) if keep_best else None
    return TrainState(
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        **dict.fromkeys(("epoch", "stage", "stage_start_epoch", "epochs_since_improvement", "diverged"), zero),
        best_score=jnp.array(-jnp.inf),
        best=for_each_average(best, hparams) if config.averages else best,
        plateau=new_plateau() if config.plateaus else None,
        averages=Averages(**for_each_average(variables, hparams)) if config.averages else None,
    )


def loss_fn(
    params: dict,
    batch_stats: dict,
    batch: Batch,
    hparams: Hparams,
    dropout_key: Array,
    network: AnyNetwork,
    loss: Loss | None = None,
) -> tuple[Float[Array, ""], tuple[dict, Sums]]:
    """Returns the loss of a batch: the weighted mean over its examples, with label smoothing.

    Args:
        params: of the network.
        batch_stats: of its batch norms; empty without batch norm.
        batch: images and labels.
        hparams: of one stage. The loss uses the dropout rate and the label smoothing.
        dropout_key: random key for the dropout masks.
        network: the network.
        loss: of an example, as `load_loss` returns it; None for the cross-entropy (nats).

    Returns:
        The loss, and as auxiliary output the updated batch statistics and the sums of the plain cross-entropy
        and of the correct predictions.
    """
    logits, updated = network.apply(
        {"params": params, "batch_stats": batch_stats},
        batch.images,
        train=True,
        dropout_rate=hparams.dropout_rate,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats"],
    )
    assert isinstance(logits, jnp.ndarray)
    with jax.named_scope("loss"):
        losses = losses_of(loss, logits, batch.labels, hparams.label_smoothing)
        mean = weighted_mean(losses, batch.weights, network.shards)
        return mean, (updated.get("batch_stats", batch_stats), batch_sums(logits, batch.labels))


def train_step(
    state: TrainState, batch: Batch, hparams: Hparams, dropout_key: Array, config: StaticConfig
) -> tuple[TrainState, Sums]:
    """Updates the parameters by one gradient step.

    Args:
        state: before the step.
        batch: images and labels.
        hparams: of one stage, with the learning rate of this step.
        dropout_key: random key for the dropout masks.
        config: the static configuration. It names the network and the optimizer.

    Returns:
        The new state, and the sums of the cross-entropy and of the correct predictions before the update.
    """
    grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(
        state.params, state.batch_stats, batch, hparams, dropout_key, config.network, config.loss
    )
    if config.shards > 1:  # also if each device has the whole batch: their weights must not drift apart by rounding
        grads = mean_over_shards(grads, config.shards)
        share = config.network.shards / config.shards  # 1, and counts stay exact, if each device has its shard
        metrics = jax.tree.map(lambda total: total * share, sum_over_shards(metrics, config.shards))
    with jax.named_scope("update"):
        optimizer = config.optimizer_of(hparams)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, batch_stats=batch_stats, opt_state=opt_state), metrics


def train_epoch(
    state: TrainState,
    hparams: Hparams,
    streams: Streams,
    train: DeviceSplit,
    validation: DeviceSplit | None,
    config: StaticConfig,
) -> tuple[TrainState, EpochMetrics]:
    """Trains for one epoch, evaluates on the validation split, and ends the stage if its time or patience is over.

    If the epoch's training loss is not finite, the state is rolled back to the start of the epoch, and `diverged`
    keeps the number of the epoch. A diverged state, and one whose stages are all completed, is never updated again.

    Args:
        state: before the epoch.
        hparams: of all stages.
        streams: the seeds of the run.
        train: the training split.
        validation: the validation split, if there is one.
        config: the static configuration.
    """
    trained, training = _train_batches(state, hparams, streams, train, config)
    measures = [jnp.array(jnp.nan)] * len(config.metrics)
    if validation is not None:
        augments = (config.augment, config.test_time_augment)

        def measure(variables: dict) -> Any:
            return evaluate(config.network, variables, validation, *augments, config.metrics, config.shards)

        measures = map_averages(measure, trained.evaluated, trained)
    metrics = epoch_metrics(config.metrics)(*training, *measures)
    if trained.averages is not None:
        metrics = metrics._make(jnp.broadcast_to(value, hparams.ema.shape[-2]) for value in metrics)

    trained = end_epoch(trained, metrics, hparams, config)
    trains = ~has_ended(state.diverged, state.stage, hparams.epochs)
    rolled_back = state._replace(diverged=jnp.where(trains, state.epoch + 1, state.diverged))
    return where(trains & jnp.isfinite(metrics.train_loss).all(), trained, rolled_back), metrics


def _batch_of_device(train: DeviceSplit, indices: Array, words: Array, config: StaticConfig) -> tuple[Array, Array]:
    """Returns the augmented images and the labels of a batch, or those of this device's shard if devices share it.

    Augmentations that mix examples read the whole batch, so each device computes all of it and keeps its shard.
    """
    shards, num_classes = config.network.shards, config.network.num_classes
    before, after = (1, shards) if mixes_examples(config.augment) else (shards, 1)
    images, labels = augmented_batch(
        *(train.images, train.labels, shard_of(indices, before), train.scale, train.shift, num_classes),
        augment=config.augment,
        words_B=shard_of(words, before),
    )
    return shard_of(images, after), shard_of(labels, after)


def _train_batches(
    state: TrainState, hparams: Hparams, streams: Streams, train: DeviceSplit, config: StaticConfig
) -> tuple[TrainState, tuple[Array, ...]]:
    """Trains on each batch of the training split: a scan of full batches, then one step for the remainder.

    If a stage may end within an epoch, the number of steps is dynamic.

    Returns:
        The state, and each of `TRAINING_METRICS`, a mean over the examples.
    """
    hparams = hparams_of_stage(hparams, state.stage)
    count = train.size
    order, words = _draw_epoch(state, hparams, streams, train, config)
    dropout_key = stream_key(streams, "dropout", state.epoch)
    weights = class_weights(config.class_weights, train.labels[order], config.network.num_classes)
    full, rest = divmod(count, config.batch_size)
    if config.drop_last:
        count, rest = count - rest, 0
    steps = steps_per_epoch(train.size, config.batch_size, config.drop_last)
    epoch_of_stage = state.epoch - state.stage_start_epoch
    factors = hparams.schedule[jnp.minimum(epoch_of_stage, len(hparams.schedule) - 1)]
    assert len(factors) in (2, steps + 1)
    scale = 1.0 if state.plateau is None else state.plateau.scale

    def step(carry: tuple[TrainState, Sums], batch: tuple[Array, Array, Array]) -> tuple:
        state, sums = carry
        number, indices, words = batch
        of_batch = config.for_batch(len(indices))
        images, labels = _batch_of_device(train, indices, words, of_batch)
        state, metrics = train_step(
            state,
            Batch(images, labels, weights_of(labels, weights)),
            hparams._replace(learning_rate=hparams.learning_rate * (_factor(factors, number, steps) * scale)),
            jax.random.fold_in(dropout_key, number),
            of_batch,
        )
        state = average_weights(state, hparams, epoch_of_stage * steps + number + 1)
        return (state, jax.tree.map(jnp.add, sums, metrics)), None

    examples = (order[:count], words[:count])
    batches = tuple(a[: count - rest].reshape(full, config.batch_size) for a in examples)
    remainder = tuple(a[count - rest :] for a in examples) if rest else None
    carry, trained = (state, zero_sums()), count
    if config.parts:
        ends = state.epoch - state.stage_start_epoch + 1 >= hparams.epochs
        limit = jnp.where(ends, hparams.last_steps, steps)
        trained = jnp.minimum(limit * config.batch_size, count)
        state, sums = _loop(step, carry, batches, remainder, limit)
    else:
        if full:
            carry, _ = lax.scan(step, carry, (jnp.arange(full), *batches))
        if remainder:
            carry, _ = step(carry, (jnp.array(full), *remainder))
        state, sums = carry
    return state, tuple(total / trained for total in sums)


def _draw_epoch(
    state: TrainState, hparams: Hparams, streams: Streams, train: DeviceSplit, config: StaticConfig
) -> tuple[Array, Array]:
    """Returns the order of an epoch's examples, and the random word of each, which decides its augmentation."""
    shuffled = epoch_order(stream_key(streams, "order", state.epoch), train.size)
    order = train.examples(jnp.where(hparams.shuffle, shuffled, jnp.arange(train.size)))
    words = jax.random.bits(stream_key(streams, "augment", state.epoch), (train.size,))
    if "alternating_flip" in config.augment:
        words = alternate_flips(words, stream_key(streams, "augment", EVERY_EPOCH), order, state.epoch)
    return order, words


def _factor(factors: Array, number: Array, steps: int) -> Array:
    """Returns a schedule's factor of a step: from the epoch's table, or on the line from its start to its end."""
    return factors[number] if len(factors) > 2 else factors[0] + (factors[1] - factors[0]) * (number / steps)


def _loop(step: Callable, carry: Any, batches: tuple, remainder: tuple | None, limit: Array) -> Any:
    """Returns the carry after the first `limit` steps of an epoch: a scan has no dynamic number of steps."""

    def numbered(number: Array, carry: Any) -> Any:
        return step(carry, (number, *(a[number] for a in batches)))[0]

    full = len(batches[0])
    carry = lax.fori_loop(0, jnp.minimum(limit, full), numbered, carry)
    if remainder is None:
        return carry
    return lax.cond(limit > full, lambda carry: step(carry, (jnp.array(full), *remainder))[0], lambda c: c, carry)


def epoch_order(key: Array, count: int) -> Int[Array, " count"]:
    """Returns a random permutation of `count` examples: the stable argsort of random words."""
    return jnp.argsort(jax.random.bits(key, (count,)))


def stream_key(streams: Streams, name: str, epoch: Array | int = 0) -> Array:
    """Returns the key of one stream at one epoch; streams with equal seeds have different keys."""
    seed = jax.random.key(getattr(streams, name))
    return jax.random.fold_in(jax.random.fold_in(seed, STREAMS.index(name)), epoch)
