"""Which hyperparameters training uses at a point of the grid; points that agree in these train identically. No jax."""

import dataclasses
import functools
from collections.abc import Hashable, Sequence

from cnnjax.models.ladder import LADDER
from cnnjax.study.early_stopping import read_stopping
from cnnjax.study.hparams import Stage, Static
from cnnjax.study.schedules import factors

_MATTERS = {
    "seeds": "where a stream that training reads follows the seed (None)",
    "train.convolution": "for networks with convolutions",
    "train.decay": "where weight_decay > 0, with adam or with momentum > 0",
    "train.dropout_rate": "for networks with dropout, where it is another rate than theirs",
    "train.early_stopping": "where the patience is shorter than the training",
    "train.momentum": "for sgd",
    "train.nesterov": "for sgd with momentum > 0",
    "train.schedule": "where the schedules differ within the epochs that are trained",
    "train.stage_start": "where train.stages has several stages",
    "streams.augment": "where data.augment is not empty",
    "streams.dropout": "for networks with dropout, at a rate > 0",
    "streams.init": "where it is another seed than the trial's own",
    "streams.order": "where train.shuffle is True",
}


def where_it_matters(axis: str) -> str:
    """Returns the condition under which the value of an axis has an effect on training, in words."""
    return _MATTERS.get(axis, "everywhere else")


def what_training_reads(static: Static, stages: Sequence[Stage], *, augments: bool) -> tuple[Hashable, tuple[str, ...]]:
    """Returns the settings that training uses, as a value to compare, and the names of the streams that it uses.

    Args:
        static: the static settings.
        stages: the stages.
        augments: whether the study augments its training images.
    """
    layers = LADDER.get(static.model)  # None where the name is wrong, which is said when the network is built
    own_rates = [None] if layers is None else [x.rate for x in layers if hasattr(x, "rate")]
    convolves = layers is None or any(hasattr(layer, "kernel_size") for layer in layers)
    rates = [
        tuple(own if stage.traced.dropout_rate is None else stage.traced.dropout_rate for own in own_rates)
        for stage in stages
    ]
    settings = (
        dataclasses.replace(static, convolution=static.convolution if convolves else ""),
        tuple(map(_of_stage, stages, rates)),
        stages[0].traced.stage_start if len(stages) > 1 else None,
    )
    streams = {
        "init": True,
        "order": stages[0].traced.shuffle,
        "augment": augments,
        "dropout": any(rate != 0 for of_stage in rates for rate in of_stage),
    }
    return settings, tuple(name for name, is_read in streams.items() if is_read)


def _of_stage(stage: Stage, dropout_rates: tuple[float | None, ...]) -> Hashable:
    read = stage.traced
    has_momentum = stage.optimizer == "sgd" and read.momentum > 0
    stopping = read_stopping(read.early_stopping)
    return (
        *(stage.optimizer, stage.epochs, read.learning_rate, read.weight_decay, read.label_smoothing),
        *(read.clip_norm, read.shuffle, dropout_rates),
        *(has_momentum and (read.momentum, read.nesterov),),
        # Without moments, to decay by the gradient is to decay beside it.
        read.decay if read.weight_decay > 0 and (has_momentum or stage.optimizer != "sgd") else None,
        stopping and stopping._replace(patience=min(stopping.patience, stage.epochs)),
        _table(read.schedule, stage.epochs),
    )


@functools.lru_cache(1024)
def _table(schedule: str, epochs: int) -> bytes:
    return factors(schedule, epochs).tobytes()
