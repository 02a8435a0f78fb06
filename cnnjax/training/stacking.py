"""The traced hyperparameters of members as arrays, the inputs of a compiled program. Pure numpy."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax.study.early_stopping import Stopping, read_stopping
from cnnjax.study.hparams import TRACED, Streams, Traced
from cnnjax.study.metrics import EPOCH_MEASURES
from cnnjax.study.plan import Member, Trial
from cnnjax.study.schedules import factors
from cnnjax.utils.tree import tuple_type

_NEVER = Stopping("val_accuracy", 2**30)  # patience that outlasts any training


_FIELDS = (
    "optimizer",  # int: index in the program's optimizers, in the order of their joined name
    "epochs",  # int: the largest number of epochs of the stage
    *(h.column for h in TRACED if h.is_scalar),  # as `Hparam.scalar` converts them
    "schedule",  # float32 [..., epochs, 2]: factor of the learning rate at the beginning and the end of each epoch
    "monitor",  # int: index in the measures of an epoch of the one that selects the best epoch
    "patience",  # int: epochs in a row without improvement before the stage ends
    "min_change",  # float: smallest change of the metric that counts as an improvement
    "restore",  # bool: the stage ends with the best weights, not the newest
)
_Hparams: Any = tuple_type("_Hparams", _FIELDS)


class Hparams(_Hparams):
    """Traced hyperparameters of one member: arrays [stages], or scalars of one stage; stacked, [members, stages]."""

    __slots__ = ()


def stack_members(
    members: Sequence[Member],
    longest: int,
    monitor: str,
    split_seeds: Sequence[int],
    measures: Sequence[str] = EPOCH_MEASURES,
) -> tuple[Hparams, Streams]:
    """Returns the hyperparameters and stream seeds of members as arrays with the member axis first.

    Args:
        members: of one program, all with the same number of stages.
        longest: epochs of the longest stage of the program.
        monitor: the metric that selects the best epoch, unless early stopping names another.
        split_seeds: the seeds of the split stream in the study. A member's stream has the number of its seed.
        measures: those of an epoch, in their order.
    """
    trials = [member.trials[-1] for member in members]
    rows = [
        [_row(trial, number, longest, monitor, measures) for number in range(len(trial.stages))] for trial in trials
    ]
    hparams = Hparams(
        *(np.stack([np.stack([getattr(stage, name) for stage in row]) for row in rows]) for name in Hparams._fields)
    )
    seeds: dict[str, Any] = {
        field.name: np.array([getattr(trial.streams, field.name) for trial in trials], np.uint32)
        for field in dataclasses.fields(Streams)
    }
    seeds["split"] = np.array([split_seeds.index(trial.streams.split) for trial in trials], np.int32)
    return hparams, Streams(**seeds)


def _row(trial: Trial, number: int, longest: int, monitor: str, measures: Sequence[str]) -> Hparams:
    stage = trial.stages[number]
    traced: Traced = stage.traced
    stopping = read_stopping(traced.early_stopping)
    is_last = number == len(trial.stages) - 1
    watched = stopping or _NEVER._replace(metric=monitor)
    return Hparams(
        optimizer=np.int32(trial.static.optimizer.split("+").index(stage.optimizer)),
        epochs=np.int32(stage.epochs),
        **{h.column: h.scalar(getattr(traced, h.column)) for h in TRACED if h.is_scalar},
        schedule=factors(traced.schedule, stage.epochs, longest),
        monitor=np.int32(measures.index(watched.metric)),
        patience=np.int32(watched.patience),
        min_change=np.float32(watched.min_change),
        restore=np.bool_(stopping is not None if is_last else traced.stage_start == "best"),
    )
