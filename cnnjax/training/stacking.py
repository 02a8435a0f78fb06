"""The traced hyperparameters of members as arrays, the inputs of a compiled program. Pure numpy."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnjax.study.early_stopping import METRICS, Stopping, read_stopping
from cnnjax.study.hparams import Streams, Traced
from cnnjax.study.plan import Member, Trial
from cnnjax.study.schedules import factors

_NEVER = Stopping("val_accuracy", 2**30)  # patience that outlasts any training


class Hparams(NamedTuple):
    """Traced hyperparameters of one member: arrays [stages], or scalars of one stage; stacked, [members, stages]."""

    optimizer: Any  # int: index in the program's optimizers, in the order of their joined name
    learning_rate: Any
    momentum: Any
    nesterov: Any  # bool
    weight_decay: Any
    decoupled: Any  # bool
    clip_norm: Any  # infinite: no clipping
    label_smoothing: Any
    dropout_rate: Any  # NaN: the rates of the model's layers
    schedule: Any  # float32 [..., epochs, 2]: factor of the learning rate at the beginning and the end of each epoch
    shuffle: Any  # bool
    epochs: Any  # int: the largest number of epochs of the stage
    monitor: Any  # int: index in METRICS of the metric that selects the best epoch
    patience: Any  # int: epochs in a row without improvement before the stage ends
    min_change: Any  # smallest change of the metric that counts as an improvement
    restore: Any  # bool: the stage ends with the best weights, not the newest


def stack_members(members: Sequence[Member], longest: int, monitor: str) -> tuple[Hparams, Streams]:
    """Returns the hyperparameters and stream seeds of members as arrays with the member axis first.

    Args:
        members: of one program, all with the same number of stages.
        longest: epochs of the longest stage of the program.
        monitor: the metric that selects the best epoch, unless early stopping names another.
    """
    trials = [member.trials[-1] for member in members]
    rows = [[_row(trial, number, longest, monitor) for number in range(len(trial.stages))] for trial in trials]
    hparams = Hparams(
        *(np.stack([np.stack([getattr(stage, name) for stage in row]) for row in rows]) for name in Hparams._fields)
    )
    seeds: dict[str, Any] = {
        field.name: np.array([getattr(trial.streams, field.name) for trial in trials], np.uint32)
        for field in dataclasses.fields(Streams)
    }
    return hparams, Streams(**seeds)


def _row(trial: Trial, number: int, longest: int, monitor: str) -> Hparams:
    stage = trial.stages[number]
    traced: Traced = stage.traced
    stopping = read_stopping(traced.early_stopping)
    is_last = number == len(trial.stages) - 1
    watched = stopping or _NEVER._replace(metric=monitor)
    return Hparams(
        optimizer=np.int32(trial.static.optimizer.split("+").index(stage.optimizer)),
        learning_rate=np.float32(traced.learning_rate),
        momentum=np.float32(traced.momentum),
        nesterov=np.bool_(traced.nesterov),
        weight_decay=np.float32(traced.weight_decay),
        decoupled=np.bool_(traced.decay == "decoupled"),
        clip_norm=np.float32(np.inf if traced.clip_norm is None else traced.clip_norm),
        label_smoothing=np.float32(traced.label_smoothing),
        dropout_rate=np.float32(np.nan if traced.dropout_rate is None else traced.dropout_rate),
        schedule=factors(traced.schedule, stage.epochs, longest),
        shuffle=np.bool_(traced.shuffle),
        epochs=np.int32(stage.epochs),
        monitor=np.int32(METRICS.index(watched.metric)),
        patience=np.int32(watched.patience),
        min_change=np.float32(watched.min_change),
        restore=np.bool_(stopping is not None if is_last else traced.stage_start == "best"),
    )
