"""The state of a training run, and its bookkeeping after each epoch: best weights, early stopping, stages."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from cnnjax.models.network import AnyNetwork, Network
from cnnjax.study.metrics import METRICS, Metric, measures_of, metric_of, of_epochs
from cnnjax.study.parameter_groups import NONE
from cnnjax.training.losses import Loss
from cnnjax.training.optimizers import make_optimizer
from cnnjax.training.stacking import Hparams
from cnnjax.utils.tree import tuple_type


class StaticConfig(NamedTuple):
    """The part of the configuration that is compiled in. All members of a program share it."""

    network: AnyNetwork
    initialization: str
    optimizer: str  # a name that `make_optimizer` takes
    batch_size: int
    augment: tuple[str, ...] = ()
    drop_last: bool = False
    clips: bool = False
    plateaus: bool = False  # whether the state has a `Plateau`
    parts: bool = False  # whether a stage may end within an epoch
    test_time_augment: str = "none"
    loss: Loss | None = None  # as `load_loss` returns it
    class_weights: str | None = None  # a level of `train.class_weights`
    metrics: tuple[Metric, ...] = METRICS  # to evaluate on the validation split
    groups: str = NONE  # of parameters, as a trial has them
    averages: bool = False  # whether to average the weights
    shards: int = 1  # devices that share each batch of a member

    def for_batch(self, size: int) -> "StaticConfig":
        """Returns the configuration for a batch of this number of examples, which the devices share if they can.

        If the examples do not divide among the devices, each device computes the whole batch.
        """
        if self.shards == 1:
            return self
        assert isinstance(self.network, Network)
        return self._replace(network=self.network.clone(shards=1 if size % self.shards else self.shards))

    def optimizer_of(self, hparams: Hparams) -> optax.GradientTransformation:
        """Returns the optimizer, with the hyperparameters of a stage."""
        return make_optimizer(self.optimizer, hparams, clips=self.clips, groups=self.groups)


EpochMetrics: TypeAlias = Any


def epoch_metrics(metrics: tuple[Metric, ...]) -> Any:
    """Returns the type of the metrics of an epoch: a named tuple with a field for each measure.

    The training metrics are means over the batches, each before its update. The validation metrics are NaN without a
    validation split.
    """
    return tuple_type("EpochMetrics", of_epochs(measures_of(metrics)))


class BestWeights(NamedTuple):
    """The weights of the best epoch so far.

    The scores of all metrics are kept, because the next stage may monitor another metric than this one.
    """

    params: dict
    batch_stats: dict
    scores: EpochMetrics  # each with the sign that makes higher better
    epoch: Int[Array, ""]  # 0: no epoch yet

    @property
    def variables(self) -> dict:
        """The Flax variables that `network.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class Plateau(NamedTuple):
    """The state of a schedule that reduces the learning rate on a plateau, as PyTorch's ReduceLROnPlateau."""

    scale: Float[Array, ""]  # of the learning rate
    best: Float[Array, ""]  # score
    bad_epochs: Int[Array, ""]  # in a row without improvement


class Averages(NamedTuple):
    """Averages of the weights over the steps, one for each decay along the first axis of every array."""

    params: dict
    batch_stats: dict

    @property
    def variables(self) -> dict:
        """The Flax variables that `network.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def for_each_average(tree: Any, hparams: Hparams) -> Any:
    """Returns a copy of a pytree for each average of the weights, along the first axis of every array."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (hparams.ema.shape[-2], *jnp.shape(leaf))), tree)


class TrainState(NamedTuple):
    """The state of one training run. Populations stack it along the first axis of every array."""

    params: dict
    batch_stats: dict  # empty without batch norm
    opt_state: optax.OptState
    epoch: Int[Array, ""]  # completed epochs
    stage: Int[Array, ""]  # completed stages; training ends when all are completed
    stage_start_epoch: Int[Array, ""]
    best_score: Float[Array, ""]  # of this stage, for early stopping
    epochs_since_improvement: Int[Array, ""]
    diverged: Int[Array, ""]  # the epoch whose training loss was not finite; 0 if there is none
    best: BestWeights | None  # None without a metric that tells which epoch is best; with averages, one for each
    plateau: Plateau | None = None
    averages: Averages | None = None

    @property
    def variables(self) -> dict:
        """The Flax variables that `network.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> dict:
        """The variables to evaluate: the averages if there are any."""
        return self.variables if self.averages is None else self.averages.variables


def hparams_of_stage(hparams: Hparams, stage: Array) -> Hparams:
    """Returns the hyperparameters of one stage; after the last stage, those of the last."""
    return jax.tree.map(lambda rows: rows[jnp.minimum(stage, len(rows) - 1)], hparams)


def end_epoch(state: TrainState, metrics: EpochMetrics, hparams: Hparams, config: StaticConfig) -> TrainState:
    """Counts an epoch, keeps the best weights, and prepares the next stage when this one ends.

    A stage ends after its epochs, or after `patience` epochs in a row without improvement. The next stage starts with
    a new optimizer state, and with the best weights if `hparams.restore` says so. After the last stage, the state stays
    as it is, so that `with_more_epochs` can continue it.

    Args:
        state: after the epoch's last step.
        metrics: of the epoch.
        hparams: of all stages.
        config: the static configuration.
    """
    now = hparams_of_stage(hparams, state.stage)
    epoch, best = state.epoch + 1, state.best
    averages = state.averages
    signs = np.array([1.0 if metric_of(name).larger_is_better else -1.0 for name in metrics._fields], np.float32)

    def better(best: BestWeights, variables: dict, scores: EpochMetrics) -> BestWeights:
        is_better = jnp.stack(scores)[now.monitor] > jnp.stack(best.scores)[now.monitor]
        return where(is_better, BestWeights(**variables, scores=scores, epoch=epoch), best)

    scores = jnp.stack(metrics, -1) * signs
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)  # NaN is never best
    if best is not None:
        update = better if averages is None else jax.vmap(better)
        best = update(best, state.evaluated, metrics._make(jnp.moveaxis(scores, -1, 0)))
    score = (scores if averages is None else scores[0])[now.monitor]  # with several averages, nothing stops early
    improved = score > state.best_score + now.min_change
    epochs_since_improvement = jnp.where(improved, 0, state.epochs_since_improvement + 1)
    ended = (epochs_since_improvement >= now.patience) | (epoch - state.stage_start_epoch >= now.epochs)
    variables, opt_state = state.variables, state.opt_state
    moves_on = ended & (state.stage + 1 < len(hparams.epochs))
    if len(hparams.epochs) > 1:
        if best is not None:
            kept = best if averages is None else jax.tree.map(lambda leaf: leaf[0], best)
            variables = where(moves_on & now.restore & (kept.epoch > 0), kept.variables, variables)
        optimizer = config.optimizer_of(now)
        opt_state = where(moves_on, optimizer.init(variables["params"]), opt_state)
        if averages is not None:
            averages = where(moves_on, Averages(**for_each_average(variables, now)), averages)
    return TrainState(
        **variables,
        opt_state=opt_state,
        epoch=epoch,
        stage=state.stage + ended,
        stage_start_epoch=jnp.where(moves_on, epoch, state.stage_start_epoch),
        best_score=jnp.where(moves_on, -jnp.inf, jnp.where(improved, score, state.best_score)),
        epochs_since_improvement=jnp.where(moves_on, 0, epochs_since_improvement),
        diverged=state.diverged,
        best=best,
        plateau=None
        if state.plateau is None
        else _next_plateau(state.plateau, score, jnp.array(signs)[now.monitor], now, moves_on),
        averages=averages,
    )


def new_plateau() -> Plateau:
    """Returns the state at the start of a stage."""
    return Plateau(jnp.array(1.0), jnp.array(-jnp.inf), jnp.zeros((), jnp.int32))


def _next_plateau(plateau: Plateau, score: Array, sign: Array, hparams: Hparams, starts_stage: Array) -> Plateau:
    """Returns the state after an epoch with a score, which is the metric times its sign, with PyTorch's defaults.

    An epoch improves if its metric is better than the best by more than 0.0001 of it. The learning rate stays if it
    would change by 1e-8 or less.
    """
    improved = score > plateau.best * (1 + 1e-4 * sign)
    bad_epochs = jnp.where(improved, 0, plateau.bad_epochs + 1)
    is_plateau = bad_epochs > hparams.plateau_patience
    smaller = plateau.scale * hparams.plateau_factor
    matters = hparams.learning_rate * (plateau.scale - smaller) > 1e-8
    after = Plateau(
        scale=jnp.where(is_plateau & matters, smaller, plateau.scale),
        best=jnp.where(improved, score, plateau.best),
        bad_epochs=jnp.where(is_plateau, 0, bad_epochs),
    )
    return where(starts_stage, new_plateau(), after)


def has_ended(diverged: Any, stage: Any, epochs: Any) -> Any:
    """Returns whether a member trains no more, or each of stacked members.

    It has diverged or completed its stages, or it is a copy, which has 0 epochs.

    Args:
        diverged: int32 [] or [members], of the state.
        stage: int32 [] or [members], of the state.
        epochs: int32 [stages] or [members, stages], of the hyperparameters.
    """
    return (diverged > 0) | (stage == epochs.shape[-1]) | (epochs[..., 0] == 0)


def with_more_epochs(state: TrainState, hparams: Hparams) -> TrainState:
    """Returns a state, or stacked states, that continue training if `hparams` have more epochs than they trained.

    A state that stopped early stays as it is, and so does one with several stages.
    """
    if hparams.epochs.shape[-1] > 1:
        return state
    stopped = state.epochs_since_improvement >= hparams.patience[..., 0]
    return state._replace(stage=jnp.where((state.epoch < hparams.epochs[..., 0]) & ~stopped, 0, state.stage))


def final_variables(state: TrainState, hparams: Hparams) -> dict:
    """Returns the variables to test: those of the best epoch if the last stage stops early, else the newest.

    With averages, they are those of each average along the first axis of every array.
    """
    if state.best is None:
        return state.evaluated

    def choose(best: BestWeights, newest: dict) -> dict:
        return where(hparams.restore[-1] & (best.epoch > 0), best.variables, newest)

    return (choose if state.averages is None else jax.vmap(choose))(state.best, state.evaluated)


def map_averages(function: Callable[[dict], Any], variables: dict, state: TrainState) -> Any:
    """Applies a function to the variables of a state, or to those of each average in turn."""
    return function(variables) if state.averages is None else lax.map(function, variables)


def average_weights(state: TrainState, hparams: Hparams, steps: Array) -> TrainState:
    """Updates the averages of the weights and batch statistics after a step, if the state has any.

    An exponential moving average is decay * average + (1 - decay) * weights, and begins with the weights after the
    first step, as in `torch.optim.swa_utils.AveragedModel`. Lookahead is Zhang et al. 2019, algorithm 1.

    Args:
        state: after the step.
        hparams: of one stage.
        steps: number of steps of this stage, with this one.
    """
    if state.averages is None:
        return state
    period, rate = hparams.lookahead
    looks, syncs = period > 0, (period > 0) & (steps % jnp.maximum(period, 1).astype(jnp.int32) == 0)

    def average(old: Any, decay: Float[Array, "2"]) -> Any:
        keep = jnp.where(looks, jnp.where(syncs, 1 - rate, 1), jnp.where(steps == 1, 0, decay[0]))
        take = jnp.where(looks, jnp.where(syncs, rate, 0), jnp.where(steps == 1, 1, decay[1]))
        return jax.tree.map(lambda a, w: keep * a + take * w, old, state.variables)

    averages = Averages(**jax.vmap(average)(state.averages.variables, hparams.ema))
    slow = jax.tree.map(lambda leaf: leaf[0], averages.variables)
    return state._replace(**where(syncs, slow, state.variables), averages=averages)


def where(condition: Array, chosen: Any, otherwise: Any) -> Any:
    """Maps `jnp.where` over two pytrees of equal structure.

    `cond` copies one of the two, which XLA compiles faster on a CPU than a selection for each shape. Under `jax.vmap`,
    JAX turns it into selections.
    """
    return lax.cond(condition, lambda a, b: a, lambda a, b: b, chosen, otherwise)
