"""Which hyperparameters training uses at a point of the grid; points that agree in these train identically. No jax."""

import dataclasses
import functools
from collections.abc import Hashable, Sequence

from cnnjax.models.ladder import LADDER
from cnnjax.study.early_stopping import read_stopping
from cnnjax.study.hparams import HPARAMS, Stage, Static
from cnnjax.study.schedules import factors

_MATTERS = {
    "seeds": "where a stream that training reads follows the seed (None)",
    "streams.augment": "where data.augment is not empty",
    "streams.dropout": "for networks with dropout, at a rate > 0",
    "streams.init": "where it is another seed than the trial's own",
    "streams.order": "where train.shuffle is True",
    **{f"train.{h.name}": h.matters for h in HPARAMS if h.matters},
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
        dataclasses.replace(static, convolution=static.convolution if convolves else "", optimizer=""),
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
    """What training uses of a stage: every setting, those in the form in which they have an effect."""
    traced = stage.traced
    has_moment = not stage.optimizer.startswith("sgd") or traced.momentum > 0
    stopping = read_stopping(traced.early_stopping)
    used = {
        **vars(traced),
        "nesterov": traced.nesterov and has_moment,
        "dropout_rate": dropout_rates,
        "schedule": _table(traced.schedule, stage.epochs),
        "early_stopping": stopping and stopping._replace(patience=min(stopping.patience, stage.epochs)),
        "stage_start": None,  # of a trial, not of a stage
    }
    # Without a moment, to decay the weights by the gradient is to decay them beside it.
    decouples = traced.weight_decay > 0 and has_moment
    optimizer = stage.optimizer if decouples else stage.optimizer.removesuffix("w")
    return optimizer, stage.epochs, tuple(used.values())


@functools.lru_cache(1024)
def _table(schedule: str, epochs: int) -> bytes:
    return factors(schedule, epochs).tobytes()
