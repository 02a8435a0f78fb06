"""The hyperparameters that training uses at a point of the grid. Points with equal ones train identically. No JAX."""

import dataclasses
import functools
from collections.abc import Hashable, Sequence

from cnnjax.models.ladder import LADDER
from cnnjax.study.augmentation import NONE
from cnnjax.study.early_stopping import read_stopping
from cnnjax.study.hparams import HPARAMS, Stage, Static
from cnnjax.study.schedules import factors

_MATTERS = {
    "seeds": "if a stream that training uses has no seed of its own (None)",
    "streams.augment": "if data.augment is not none",
    "streams.dropout": "for models with dropout, if the rate is > 0",
    "streams.init": "if it is not the seed of the trial",
    "streams.order": "if train.shuffle is True",
    **{h.key: h.matters for h in HPARAMS if h.matters},
}


def where_it_matters(axis: str) -> str:
    """Returns the condition, in words, under which the value of an axis has an effect on training."""
    return _MATTERS.get(axis, "everywhere else")


def used_by_training(static: Static, stages: Sequence[Stage]) -> tuple[Hashable, tuple[str, ...]]:
    """Returns the hyperparameters that training uses, as one hashable value, and the names of the streams that it uses.

    Whether the split stream has an effect depends on the data, and is checked when they are loaded.

    Args:
        static: the static hyperparameters.
        stages: the stages of training.
    """
    layers = LADDER.get(static.model)  # None if there is no such model: building the network raises the error
    own_rates = [None] if layers is None else [x.rate for x in layers if hasattr(x, "rate")]
    convolves = layers is None or any(hasattr(layer, "kernel_size") for layer in layers)
    rates = [
        tuple(own if stage.traced.dropout_rate is None else stage.traced.dropout_rate for own in own_rates)
        for stage in stages
    ]
    used = (
        dataclasses.replace(static, convolution=static.convolution if convolves else "", optimizer=""),
        tuple(map(_of_stage, stages, rates)),
        stages[0].traced.stage_start if len(stages) > 1 else None,
    )
    streams = {
        "init": True,
        "order": stages[0].traced.shuffle,
        "augment": static.augment != NONE,
        "dropout": any(rate != 0 for of_stage in rates for rate in of_stage),
        "split": True,
    }
    return used, tuple(name for name, is_used in streams.items() if is_used)


def _of_stage(stage: Stage, dropout_rates: tuple[float | None, ...]) -> Hashable:
    """Returns the hyperparameters of a stage. Values with the same effect on training are replaced by equal values."""
    traced = stage.traced
    has_moment = not stage.optimizer.startswith("sgd") or traced.momentum > 0
    stopping = read_stopping(traced.early_stopping)
    used = {
        **vars(traced),
        "nesterov": traced.nesterov and has_moment,
        "dropout_rate": dropout_rates,
        "schedule": _table(traced.schedule, stage.epochs),
        "early_stopping": stopping and stopping._replace(patience=min(stopping.patience, stage.epochs)),
        "stage_start": None,  # a hyperparameter of the trial, not of the stage
    }
    # Without momentum or adaptive moments, decoupled weight decay equals L2.
    decouples = traced.weight_decay > 0 and has_moment
    optimizer = stage.optimizer if decouples else stage.optimizer.removesuffix("w")
    return optimizer, stage.epochs, tuple(used.values())


@functools.lru_cache(1024)
def _table(schedule: str, epochs: int) -> bytes:
    return factors(schedule, epochs).tobytes()
