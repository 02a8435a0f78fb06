"""The traced hyperparameters of members as arrays, the inputs of a compiled program. Pure numpy."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnjax.study import optimizers
from cnnjax.study.early_stopping import Stopping, read_stopping
from cnnjax.study.hparams import BY_COLUMN, TRACED, Stage, Streams, Traced
from cnnjax.study.lookahead import read_lookahead
from cnnjax.study.metrics import EPOCH_MEASURES
from cnnjax.study.plan import Member
from cnnjax.study.schedules import Plateau, factors, is_by_step, read_plateau, total_steps
from cnnjax.study.trials import Trial
from cnnjax.utils.tree import tuple_type

_NEVER = Stopping("val_accuracy", 2**30)  # patience that outlasts any training


_FIELDS = (
    "optimizer",  # int: index in the program's optimizers, in the order of their joined name
    "epochs",  # int: the largest number of epochs of the stage, of which the last may be a part of one
    "last_steps",  # int: the number of steps in the last epoch
    *(h.column for h in TRACED if h.is_scalar),  # as `Hparam.scalar` converts them
    "optimizer_args",  # float32 by name: all traced arguments of the program's optimizers
    "lookahead",  # float32 [..., 2]: steps and rate; 0 steps: off
    "schedule",  # float32 [..., epochs, 2 or steps + 1]: factor of the learning rate, as `TableSize` says
    "plateau_factor",  # float: multiplies the learning rate on a plateau
    "plateau_patience",  # int: epochs in a row without improvement that are no plateau yet
    "monitor",  # int: index in the measures of an epoch of the one that selects the best epoch
    "patience",  # int: epochs in a row without improvement before the stage ends
    "min_change",  # float: smallest change of the metric that counts as an improvement
    "restore",  # bool: the stage ends with the best weights, not the newest
)
_Hparams: Any = tuple_type("_Hparams", _FIELDS)


class Hparams(_Hparams):
    """Traced hyperparameters of one member: arrays [stages], or scalars of one stage; stacked, [members, stages]."""

    __slots__ = ()


class TableSize(NamedTuple):
    """The size of the schedules' tables in a program.

    Attributes:
        epochs: of the longest stage: the number of rows.
        steps: in an epoch.
        by_step: whether a row has the factor of each step, and at the end of the epoch. Otherwise the factors of all
            schedules are linear within each epoch, and a row has those at its start and its end.
    """

    epochs: int
    steps: int = 1
    by_step: bool = False


def table_size(stages: Iterable[Stage], steps: int) -> TableSize:
    """Returns the size of the tables of a program that trains these stages, with this number of steps in an epoch."""
    stages = [*stages]
    by_step = any(is_by_step(stage.traced.schedule) for stage in stages)
    return TableSize(max(stage.whole_epochs for stage in stages), steps, by_step)


def steps_per_epoch(examples: int, batch_size: int, drop_last: bool) -> int:
    """Returns the number of steps in an epoch of this number of examples."""
    return examples // batch_size if drop_last else -(-examples // batch_size)


def stack_members(
    members: Sequence[Member],
    tables: TableSize,
    monitor: str,
    split_seeds: Sequence[int],
    measures: Sequence[str] = EPOCH_MEASURES,
) -> tuple[Hparams, Streams]:
    """Returns the hyperparameters and stream seeds of members as arrays with the member axis first.

    Args:
        members: of one program, all with the same number of stages.
        tables: the size of the program's tables.
        monitor: the metric that selects the best epoch, unless early stopping names another.
        split_seeds: the seeds of the split stream in the study. A member's stream has the number of its seed.
        measures: those of an epoch, in their order.
    """
    trials = [member.trials[-1] for member in members]

    @functools.cache  # members share them, and own functions are slow
    def table(schedule: str, epochs: float) -> np.ndarray:
        assert tables.by_step or not is_by_step(schedule)
        return factors(schedule, epochs, tables.steps if tables.by_step else 1, tables.epochs)

    rows = [
        [_row(trial, number, table, tables.steps, monitor, measures) for number in range(len(trial.stages))]
        for trial in trials
    ]
    most = max(len(member.decays) for member in members)
    rows = [
        [row._replace(ema=_decays(member, most)) for row in each] for each, member in zip(rows, members, strict=True)
    ]
    arrays: dict[str, Any] = {
        name: np.stack([np.stack([getattr(stage, name) for stage in row]) for row in rows])
        for name in Hparams._fields
        if name != "optimizer_args"
    }
    arguments = {
        n: np.array([[stage.optimizer_args[n] for stage in row] for row in rows]) for n in rows[0][0].optimizer_args
    }
    hparams = Hparams(**arrays, optimizer_args=arguments)
    seeds: dict[str, Any] = {
        field.name: np.array([getattr(trial.streams, field.name) for trial in trials], np.uint32)
        for field in dataclasses.fields(Streams)
    }
    seeds["split"] = np.array([split_seeds.index(trial.streams.split) for trial in trials], np.int32)
    return hparams, Streams(**seeds)


def _decays(member: Member, count: int) -> np.ndarray:
    """Returns the decays of a member's averaged weights with their complements [count, 2]; the last one fills it."""
    decays = [BY_COLUMN["ema"].scalar(decay) for decay in member.decays.values()]
    return np.stack((decays + decays[-1:] * count)[:count])


def _row(trial: Trial, number: int, table: Callable, steps: int, monitor: str, measures: Sequence[str]) -> Hparams:
    stage, specs = trial.stages[number], trial.static.optimizer.split("+")
    names = dict.fromkeys(name for spec in specs for name in optimizers.read_spec(spec)[2])
    traced: Traced = stage.traced
    arguments = optimizers.traced(stage.optimizer, traced.optimizer_args)
    stopping = read_stopping(traced.early_stopping)
    is_last = number == len(trial.stages) - 1
    watched = stopping or _NEVER._replace(metric=monitor)
    plateau = read_plateau(traced.schedule) or Plateau(1.0, _NEVER.patience)
    return Hparams(
        optimizer=np.int32(specs.index(stage.spec)),
        epochs=np.int32(stage.whole_epochs),
        last_steps=np.int32(total_steps(stage.epochs, steps) - (stage.whole_epochs - 1) * steps),
        **{h.column: h.scalar(getattr(traced, h.column)) for h in TRACED if h.is_scalar},
        lookahead=np.array(read_lookahead(traced.lookahead) or (0, 0), np.float32),
        optimizer_args={name: np.float32(arguments.get(name, np.nan)) for name in names},
        schedule=table(traced.schedule, stage.epochs),
        plateau_factor=np.float32(plateau.factor),
        plateau_patience=np.int32(plateau.patience),
        monitor=np.int32(measures.index(watched.metric)),
        patience=np.int32(watched.patience),
        min_change=np.float32(watched.min_change),
        restore=np.bool_(stopping is not None if is_last else traced.stage_start == "best"),
    )
