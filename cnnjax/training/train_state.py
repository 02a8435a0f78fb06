"""The state of a training run, and its bookkeeping after each epoch: best weights, early stopping, stages."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cnnjax.models.network import AnyNetwork
from cnnjax.study.metrics import METRICS, Metric, measures_of, metric_of, of_epochs
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
    best: BestWeights | None  # None without a metric that tells which epoch is best
    plateau: Plateau | None = None

    @property
    def variables(self) -> dict:
        """The Flax variables that `network.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def hparams_of_stage(hparams: Hparams, stage: Array) -> Hparams:
    """Returns the hyperparameters of one stage; after the last stage, those of the last."""
    return Hparams(*(rows[jnp.minimum(stage, len(rows) - 1)] for rows in hparams))


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
    signs = np.array([1.0 if metric_of(name).larger_is_better else -1.0 for name in metrics._fields], np.float32)
    scores = jnp.stack(metrics) * signs
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)  # NaN is never best
    score = scores[now.monitor]
    if best is not None:
        newest = BestWeights(state.params, state.batch_stats, metrics._make(scores), epoch)
        best = where(score > jnp.stack(best.scores)[now.monitor], newest, best)
    improved = score > state.best_score + now.min_change
    epochs_since_improvement = jnp.where(improved, 0, state.epochs_since_improvement + 1)
    ended = (epochs_since_improvement >= now.patience) | (epoch - state.stage_start_epoch >= now.epochs)
    variables, opt_state = state.variables, state.opt_state
    moves_on = ended & (state.stage + 1 < len(hparams.epochs))
    if len(hparams.epochs) > 1:
        if best is not None:
            variables = where(moves_on & now.restore & (best.epoch > 0), best.variables, variables)
        optimizer = make_optimizer(config.optimizer, now, clips=config.clips)
        opt_state = where(moves_on, optimizer.init(variables["params"]), opt_state)
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


def with_more_epochs(state: TrainState, hparams: Hparams) -> TrainState:
    """Returns a state, or stacked states, that continue training if `hparams` have more epochs than they trained.

    A state that stopped early stays as it is, and so does one with several stages.
    """
    if hparams.epochs.shape[-1] > 1:
        return state
    stopped = state.epochs_since_improvement >= hparams.patience[..., 0]
    return state._replace(stage=jnp.where((state.epoch < hparams.epochs[..., 0]) & ~stopped, 0, state.stage))


def final_variables(state: TrainState, hparams: Hparams) -> dict:
    """Returns the variables to test: those of the best epoch if the last stage stops early, else the newest."""
    if state.best is None:
        return state.variables
    return where(hparams.restore[-1] & (state.best.epoch > 0), state.best.variables, state.variables)


def where(condition: Array, chosen: Any, otherwise: Any) -> Any:
    """Maps `jnp.where` over two pytrees of equal structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, otherwise)
