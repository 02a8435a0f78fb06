"""The hyperparameters that training uses at a point of the grid. Points with equal ones train identically. No JAX."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Hashable, Sequence
from typing import Any

from cnnjax.models.ladder import layers_of
from cnnjax.models.specs import flatten
from cnnjax.study.augmentation import NONE
from cnnjax.study.early_stopping import read_stopping
from cnnjax.study.hparams import HPARAMS, TRACED, Stage, Static, Traced
from cnnjax.study.losses import canonical
from cnnjax.study.optimizers import OWN, SGD, changed
from cnnjax.study.schedules import factors, has_horizon, is_by_step, read_plateau

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
    layers = layers_of(static.model)  # None: not known without running code
    own_rates = [None] if layers is None else [x.rate for x in flatten(layers) if hasattr(x, "rate")]
    convolves = layers is None or any(hasattr(layer, "kernel_size") for layer in flatten(layers))
    rates = [
        tuple(own if stage.traced.dropout_rate is None else stage.traced.dropout_rate for own in own_rates)
        for stage in stages
    ]
    used = (
        dataclasses.replace(
            static, convolution=static.convolution if convolves else "", optimizer="", loss=canonical(static.loss)
        ),
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


def digest(content: object) -> str:
    """Returns a hash of JSON values, 12 hexadecimal digits: among 100,000 trials, two agree once in 56,000 studies."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def static_content(static: Static) -> dict[str, Any]:
    """Returns the static hyperparameters that differ from their defaults, as JSON values. They identify a program."""
    defaults = {field.name: field.default for field in dataclasses.fields(static)}
    content = {**vars(static), "loss": canonical(static.loss)}
    return {name: value for name, value in content.items() if value != defaults[name]}


def stage_content(static: Static, stages: Sequence[Stage]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns the hyperparameters that identify a trial, its records by epoch, and its training, as JSON values.

    Those that have their default values, or no effect on training, are left out, so that the ids of trials survive a
    new hyperparameter, and a new value of an axis. Those of the records have no number of epochs, if a shorter trial
    is a prefix of a longer one. Those of the training have no decay of averaged weights either, unless what is measured
    on the averages stops the training or lowers its learning rate.
    """
    layers = layers_of(static.model)
    content = static_content(static)
    for derived in ("optimizer", "clips", "keeps_best", "plateaus", "parts", "averages"):  # of the stages
        content.pop(derived, None)
    if layers is not None and not any(hasattr(layer, "kernel_size") for layer in layers):
        content.pop("convolution", None)
    of_trial = [_stage_content(stage, layers) for stage in stages]
    of_member = of_trial
    if len(stages) == 1 and not stages[0].has_part and not has_horizon(stages[0].traced.schedule):
        of_member = [{key: value for key, value in of_trial[0].items() if key != "epochs"}]
    elif len(stages) > 1 and stages[0].traced.stage_start != "best":
        content["stage_start"] = stages[0].traced.stage_start
    of_training = of_member
    is_led = stages[0].traced.early_stopping != "off" or read_plateau(stages[0].traced.schedule) is not None
    if len(stages) == 1 and not is_led:  # by what is measured on the averages
        of_training = [of_member[0] | ({"ema": True} if "ema" in of_member[0] else {})]
    return content | {"stages": of_trial}, content | {"stages": of_member}, content | {"stages": of_training}


def _stage_content(stage: Stage, layers: Sequence[Any] | None) -> dict[str, Any]:
    """Returns the values of a stage that differ from the defaults and have an effect."""
    traced = stage.traced
    own_rates = {layer.rate for layer in layers if hasattr(layer, "rate")} if layers is not None else {None}
    default = Traced()
    effective = dataclasses.replace(
        traced,
        nesterov=traced.nesterov if _has_moment(stage) else default.nesterov,
        dropout_rate=default.dropout_rate if own_rates <= {traced.dropout_rate} else traced.dropout_rate,
        stage_start=default.stage_start,  # of the trial, not of the stage
        optimizer_args=changed(stage.optimizer, traced.optimizer_args),
    )
    differing = [h for h in TRACED if getattr(effective, h.column) != getattr(default, h.column)]
    values = {h.column: getattr(effective, h.column) for h in differing}
    numbers = {h.column: h.type(values[h.column]) for h in differing if values[h.column] is not None}  # 1 equals 1.0
    return values | numbers | {"optimizer": _effective_optimizer(stage), "epochs": stage.epochs}


def _effective_optimizer(stage: Stage) -> str:
    """Returns the optimizer of a stage, with L2 decay if it trains as with decoupled decay."""
    if stage.optimizer not in OWN:
        return stage.optimizer
    # Without momentum or adaptive moments, decoupled weight decay equals L2.
    decouples = stage.traced.weight_decay > 0 and _has_moment(stage)
    return stage.optimizer if decouples else stage.optimizer.removesuffix("w")


def _has_moment(stage: Stage) -> bool:
    return stage.optimizer not in SGD or stage.traced.momentum > 0


def _of_stage(stage: Stage, dropout_rates: tuple[float | None, ...]) -> Hashable:
    """Returns the hyperparameters of a stage. Values with the same effect on training are replaced by equal values."""
    traced = stage.traced
    stopping = read_stopping(traced.early_stopping)
    used = {
        **vars(traced),
        "nesterov": traced.nesterov and _has_moment(stage),
        "optimizer_args": changed(stage.optimizer, traced.optimizer_args),
        "dropout_rate": dropout_rates,
        "schedule": _table(traced.schedule, stage.epochs),
        "early_stopping": stopping and stopping._replace(patience=min(stopping.patience, stage.whole_epochs)),
        "stage_start": None,  # a hyperparameter of the trial, not of the stage
    }
    return _effective_optimizer(stage), stage.epochs, tuple(used.values())


@functools.lru_cache(1024)
def _table(schedule: str, epochs: float) -> Hashable:
    """Returns what identifies the effect of a schedule. The number of steps in an epoch is not known yet."""
    if is_by_step(schedule):
        return schedule
    return read_plateau(schedule), factors(schedule, epochs).tobytes()
