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
    return {name: value for name, value in vars(static).items() if value != defaults[name]}


def stage_content(static: Static, stages: Sequence[Stage]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the hyperparameters that identify a trial, and those that identify its member, as JSON values.

    Those that have their default values, or no effect on training, are left out, so that the ids of trials survive a
    new hyperparameter, and a new value of an axis. The member's have no number of epochs, if a shorter trial is a
    prefix of a longer one.
    """
    layers = layers_of(static.model)
    content = static_content(static)
    for derived in ("optimizer", "clips", "keeps_best", "plateaus", "parts"):  # each stage has its own optimizer
        content.pop(derived, None)
    if layers is not None and not any(hasattr(layer, "kernel_size") for layer in layers):
        content.pop("convolution", None)
    of_trial = [_stage_content(stage, layers) for stage in stages]
    of_member = of_trial
    if len(stages) == 1 and not stages[0].has_part and not has_horizon(stages[0].traced.schedule):
        of_member = [{key: value for key, value in of_trial[0].items() if key != "epochs"}]
    elif len(stages) > 1 and stages[0].traced.stage_start != "best":
        content["stage_start"] = stages[0].traced.stage_start
    return content | {"stages": of_trial}, content | {"stages": of_member}


def _stage_content(stage: Stage, layers: Sequence[Any] | None) -> dict[str, Any]:
    """Returns the values of a stage that differ from the defaults and have an effect."""
    traced = stage.traced
    has_moment = not stage.optimizer.startswith("sgd") or traced.momentum > 0
    decouples = traced.weight_decay > 0 and has_moment
    own_rates = {layer.rate for layer in layers if hasattr(layer, "rate")} if layers is not None else {None}
    default = Traced()
    effective = dataclasses.replace(
        traced,
        nesterov=traced.nesterov if has_moment else default.nesterov,
        dropout_rate=default.dropout_rate if own_rates <= {traced.dropout_rate} else traced.dropout_rate,
        stage_start=default.stage_start,  # of the trial, not of the stage
    )
    changed = [h for h in TRACED if getattr(effective, h.column) != getattr(default, h.column)]
    values = {h.column: getattr(effective, h.column) for h in changed}
    numbers = {h.column: h.type(values[h.column]) for h in changed if values[h.column] is not None}  # 1 equals 1.0
    optimizer = stage.optimizer if decouples else stage.optimizer.removesuffix("w")
    return values | numbers | {"optimizer": optimizer, "epochs": stage.epochs}


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
        "early_stopping": stopping and stopping._replace(patience=min(stopping.patience, stage.whole_epochs)),
        "stage_start": None,  # a hyperparameter of the trial, not of the stage
    }
    # Without momentum or adaptive moments, decoupled weight decay equals L2.
    decouples = traced.weight_decay > 0 and has_moment
    optimizer = stage.optimizer if decouples else stage.optimizer.removesuffix("w")
    return optimizer, stage.epochs, tuple(used.values())


@functools.lru_cache(1024)
def _table(schedule: str, epochs: float) -> Hashable:
    """Returns what identifies the effect of a schedule. The number of steps in an epoch is not known yet."""
    if is_by_step(schedule):
        return schedule
    return read_plateau(schedule), factors(schedule, epochs).tobytes()
