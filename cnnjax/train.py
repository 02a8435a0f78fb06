"""Training of ONE member, as pure functions of its settings, its random streams and the data.

A reader who knows `jax.grad` and `jax.lax.scan` can read this file top to bottom; `population` maps it over members.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from cnnjax.augment import gather_batch
from cnnjax.evaluate import DeviceSplit, Sums, batch_sums, evaluate, zero_sums
from cnnjax.models import Network, initial_variables
from cnnjax.optimizers import make_optimizer
from cnnjax.settings import Settings
from cnnjax.stopping import METRICS
from cnnjax.types import Streams

STREAMS = ("init", "order", "augment", "dropout")
jax.tree_util.register_dataclass(Streams, data_fields=STREAMS, meta_fields=())


class Task(NamedTuple):
    """What all members of a program share and what is compiled in."""

    network: Network
    initialisation: str
    optimizer: str
    batch_size: int
    augment: tuple[str, ...]
    drop_last: bool = False
    clips: bool = False


class Best(NamedTuple):
    """The weights of the best epoch so far, and which that was.

    It has the score of every metric, for a stage may hold its epochs against it by another metric than the one before.
    """

    variables: dict
    scores: Float[Array, " metrics"]  # of METRICS, higher is better
    epoch: Int[Array, ""]  # 0: none yet


class State(NamedTuple):
    """A member while it trains."""

    variables: dict  # 'params', and 'batch_stats' where there is batch norm
    optimizer: optax.OptState
    epoch: Int[Array, ""]  # epochs done
    stage: Int[Array, ""]  # stages done: as many as there are, and the member is done
    began: Int[Array, ""]  # epochs done when the stage began
    peak: Float[Array, ""]  # the stage's score that early stopping holds the next ones against
    waited: Int[Array, ""]  # epochs since then
    diverged: Int[Array, ""]  # the epoch that ended with a non-finite loss; 0 while all is well
    best: Best | None  # None where nothing says which epoch is best


class EpochMetrics(NamedTuple):
    """Means over a split: training ones over the epoch's batches as they were seen, before each update."""

    train_loss: Float[Array, ""]
    train_accuracy: Float[Array, ""]
    val_loss: Float[Array, ""]  # NaN without a validation split, like the following
    val_accuracy: Float[Array, ""]
    val_precision: Float[Array, ""]  # macro means
    val_recall: Float[Array, ""]
    val_f1: Float[Array, ""]


assert EpochMetrics._fields == METRICS
_SIGNS = np.array([-1.0 if name.endswith("loss") else 1.0 for name in METRICS], np.float32)


def init_member(
    task: Task,
    settings: Settings,
    streams: Streams,
    image_shape: tuple[int, int, int],
    *,
    keep_best: bool,
) -> State:
    """Returns a member before its first epoch; only the init stream decides its weights."""
    variables = initial_variables(task.network, image_shape, task.initialisation, stream_key(streams, "init"))
    zero = jnp.zeros((), jnp.int32)
    return State(
        variables=variables,
        optimizer=_optimizer(task, _of_stage(settings, zero)).init(variables["params"]),
        **dict.fromkeys(("epoch", "stage", "began", "waited", "diverged"), zero),
        peak=jnp.array(-jnp.inf),
        best=Best(variables, jnp.full(len(METRICS), -jnp.inf), zero) if keep_best else None,
    )


def train_epoch(
    task: Task,
    settings: Settings,
    streams: Streams,
    train: DeviceSplit,
    validation: DeviceSplit | None,
    state: State,
) -> tuple[State, EpochMetrics]:
    """Trains a member for one epoch, validates it, and ends the stage where its time or patience is over.

    A member whose epoch ends with a non-finite training loss is frozen as it stood when that epoch began: `diverged`
    says the epoch, and later epochs leave the member alone. So do epochs behind its last stage.
    """
    now = _of_stage(settings, state.stage)
    trained, train_loss, train_accuracy = _train_batches(task, now, streams, train, state)
    measures = (jnp.array(jnp.nan),) * 5
    if validation is not None:
        measures = evaluate(task.network, trained.variables, validation, task.augment)
    metrics = EpochMetrics(train_loss, train_accuracy, *measures)

    trained = _end_epoch(task, settings, now, trained, metrics)
    ran = (state.diverged == 0) & (state.stage < len(settings.epochs))
    healthy = ran & jnp.isfinite(train_loss)
    frozen = state._replace(diverged=jnp.where(ran, state.epoch + 1, state.diverged))
    return _where(healthy, trained, frozen), metrics


def final_variables(settings: Settings, state: State) -> dict:
    """The weights that a trial ending here is judged by: the best, where its last stage may stop early."""
    if state.best is None:
        return state.variables
    return _where(settings.restore[-1] & (state.best.epoch > 0), state.best.variables, state.variables)


def _end_epoch(task: Task, settings: Settings, now: Settings, state: State, metrics: EpochMetrics) -> State:
    """Counts an epoch, remembers the best one, and where the stage is over makes the member ready for the next."""
    epoch, best = state.epoch + 1, state.best
    scores = jnp.stack(metrics) * _SIGNS
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)  # NaN never wins
    score = scores[now.monitor]
    if best is not None:
        best = _where(score > best.scores[now.monitor], Best(state.variables, scores, epoch), best)
    rose = score > state.peak + now.min_change
    waited = jnp.where(rose, 0, state.waited + 1)
    over = (waited >= now.patience) | (epoch - state.began >= now.epochs)
    variables, optimizer = state.variables, state.optimizer
    if best is not None:
        variables = _where(over & now.restore & (best.epoch > 0), best.variables, variables)
    if len(settings.epochs) > 1:
        optimizer = _where(over, _optimizer(task, now).init(variables["params"]), optimizer)
    return State(
        variables=variables,
        optimizer=optimizer,
        epoch=epoch,
        stage=state.stage + over,
        began=jnp.where(over, epoch, state.began),
        peak=jnp.where(over, -jnp.inf, jnp.where(rose, score, state.peak)),
        waited=jnp.where(over, 0, waited),
        diverged=state.diverged,
        best=best,
    )


def _train_batches(
    task: Task, settings: Settings, streams: Streams, train: DeviceSplit, state: State
) -> tuple[State, Array, Array]:
    """One pass over the training split: a scan of full batches, then one step for the remainder.

    The learning rate moves from the epoch's first factor, at the first step, towards the second, after the last.

    Returns:
        The member, and loss and accuracy, means over the examples that were seen.
    """
    count = train.labels.shape[0]
    shuffled = epoch_order(stream_key(streams, "order", state.epoch), count)
    order = jnp.where(settings.shuffle, shuffled, jnp.arange(count))
    # All augmentation of an epoch is drawn at once: one random word decides what happens to one example.
    words = jax.random.bits(stream_key(streams, "augment", state.epoch), (count,))
    dropout_key = stream_key(streams, "dropout", state.epoch)
    full, rest = divmod(count, task.batch_size)
    if task.drop_last:
        count, rest = count - rest, 0
    steps = full + (rest > 0)
    epoch = jnp.minimum(state.epoch - state.began, len(settings.schedule) - 1)
    first, last = settings.schedule[epoch]

    def step(carry: tuple[dict, optax.OptState, Sums], batch: tuple[Array, Array, Array]) -> tuple:
        variables, optimizer_state, sums = carry
        index, indices, words = batch
        factor = first + (last - first) * (index / steps)
        optimizer = _optimizer(task, settings._replace(learning_rate=settings.learning_rate * factor))
        images = gather_batch(
            *(train.images, indices, train.scale, train.shift),
            augment=task.augment,
            words_B=words,
        )
        gradients, (variables, batch_result) = jax.grad(batch_loss, has_aux=True)(
            variables["params"],
            *(task.network, settings, variables, images, train.labels[indices]),
            jax.random.fold_in(dropout_key, index),
        )
        with jax.named_scope("update"):
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, variables["params"])
            variables = {**variables, "params": optax.apply_updates(variables["params"], updates)}
        return (variables, optimizer_state, sums + batch_result), None

    examples = (order[:count], words[:count])
    carry = (state.variables, state.optimizer, zero_sums())
    if full:
        batches = (a[: count - rest].reshape(full, task.batch_size) for a in examples)
        carry, _ = lax.scan(step, carry, (jnp.arange(full), *batches))
    if rest:
        carry, _ = step(carry, (jnp.array(full), *(a[count - rest :] for a in examples)))
    variables, optimizer_state, sums = carry
    return state._replace(variables=variables, optimizer=optimizer_state), sums.loss / count, sums.correct / count


def _optimizer(task: Task, settings: Settings) -> optax.GradientTransformation:
    return make_optimizer(task.optimizer, settings, clips=task.clips)


def batch_loss(
    params: dict,
    network: Network,
    settings: Settings,
    variables: dict,
    images: Array,
    labels: Array,
    dropout_key: Array,
) -> tuple[Array, tuple[dict, Sums]]:
    """Returns the mean smoothed cross-entropy of a batch, the variables with moved batch statistics, and plain sums.

    Args:
        params: what to differentiate by; those in `variables` do not count.
        network: the network.
        settings: of the member; its dropout rate and label smoothing count.
        variables: 'params', and 'batch_stats' where there is batch norm.
        images: normalised, [B, H, W, C].
        labels: [B].
        dropout_key: what dropout draws from.
    """
    logits, moved = network.apply(
        {**variables, "params": params},
        images,
        train=True,
        dropout_rate=settings.dropout_rate,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats"],
    )
    assert isinstance(logits, jnp.ndarray)
    with jax.named_scope("loss"):
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


def _of_stage(settings: Settings, stage: Array) -> Settings:
    """The settings of one stage; behind the last one, of the last."""
    return Settings(*(rows[jnp.minimum(stage, len(rows) - 1)] for rows in settings))


def _where(condition: Array, chosen: Any, otherwise: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, otherwise)
