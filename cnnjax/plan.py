"""From a study to its plan: the trials, and the fewest programs that train them. Imports no jax."""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from cnnjax.schedules import has_horizon
from cnnjax.study import Study, TrainConfig
from cnnjax.types import Member, Plan, Program, RequestError, Stage, Static, Streams, Traced, Trial

MOST_TRIALS = 100_000


def make_plan(study: Study) -> Plan:
    """Lists a study's trials and groups them into programs.

    Trials that differ only in `epochs` share a member: the longest is trained, the shorter ones are prefixes of it,
    unless their schedule depends on where it ends, or they have several stages. Members with equal static settings
    share a program, whatever their traced settings and seeds.
    """
    trials = list_trials(study)
    prefixes: dict[tuple, list[Trial]] = defaultdict(list)
    for trial in trials:
        prefixes[(trial.static, _without_end(trial), trial.streams, trial.seed)].append(trial)
    programs: dict[Static, list[Member]] = defaultdict(list)
    for group in prefixes.values():
        member = Member(tuple(sorted(group, key=lambda trial: trial.epochs)))
        programs[group[0].static].append(member)
    return Plan(
        trials=trials,
        programs=tuple(
            Program(f"p{index:03d}", static, tuple(members)) for index, (static, members) in enumerate(programs.items())
        ),
    )


def _without_end(trial: Trial) -> tuple[Stage, ...]:
    """The stages of a trial; where its first epochs are those of a longer one, without saying how many there are."""
    if len(trial.stages) > 1 or has_horizon(trial.stages[0].traced.schedule):
        return trial.stages
    return (dataclasses.replace(trial.stages[0], epochs=0),)


def list_trials(study: Study) -> tuple[Trial, ...]:
    """Returns every trial of a study, models outermost and seeds innermost, ids in that order.

    A setting that an optimizer does not have (adam's momentum) is no axis there: the trials that would differ
    only in it are one trial.

    Raises:
        RequestError: there are too many.
    """
    streams = dataclasses.asdict(study.streams)
    axes = {field.name: getattr(study.train, field.name) for field in dataclasses.fields(study.train)}
    changes: tuple[Mapping[str, Any], ...] = axes.pop("stages") or ({},)
    of_train = {f"train.{name}": values for name, values in axes.items()}
    of_streams = {f"streams.{name}": values for name, values in streams.items()}
    _check_count({"models": study.models, "seeds": study.seeds, **of_train, **of_streams})
    points: dict[tuple, None] = {}  # an ordered set
    for model, values, stream_seeds, seed in itertools.product(
        study.models,
        itertools.product(*axes.values()),
        itertools.product(*streams.values()),
        study.seeds,
    ):
        point = dict(zip(axes, values, strict=True))
        stages = tuple(_stage({**point, **change}) for change in changes)
        followed = Streams(*(seed if s is None else s for s in stream_seeds))
        points[(_static(model, point, stages), stages, seed, followed)] = None
    digits = max(4, len(str(len(points))))
    return tuple(Trial(f"t{index:0{digits}d}", *point) for index, point in enumerate(points))


def single_out(study: Study, trial: Trial, seeds: tuple[int, ...]) -> Study:
    """Returns the study of one trial's setting alone, with these seeds; its streams are as they were."""
    axes = {field.name: getattr(study.train, field.name) for field in dataclasses.fields(study.train)}
    stages = axes.pop("stages")
    for model, *values in itertools.product(study.models, *axes.values()):
        train = TrainConfig(**{name: (value,) for name, value in zip(axes, values, strict=True)}, stages=stages)
        alone = dataclasses.replace(study, models=(model,), seeds=seeds, train=train)
        first = list_trials(alone)[0]
        if (first.static, first.stages) == (trial.static, trial.stages):
            return alone
    raise ValueError(f"{trial.id} is no trial of the study")


def _check_count(axes: Mapping[str, tuple]) -> None:
    count = math.prod(len(values) for values in axes.values())
    if count > MOST_TRIALS:
        longest = max(axes, key=lambda name: len(axes[name]))
        raise RequestError(
            longest, f"{len(axes[longest]):,} values", f"they make {count:,} trials; allowed: at most {MOST_TRIALS:,}"
        )


def _stage(point: dict[str, Any]) -> Stage:
    if point["optimizer"] != "sgd":
        point |= {"momentum": 0.0, "nesterov": False}
    traced = Traced(**{field.name: point[field.name] for field in dataclasses.fields(Traced)})
    return Stage(point["optimizer"], point["epochs"], traced)


def _static(model: str, point: dict[str, Any], stages: tuple[Stage, ...]) -> Static:
    return Static(
        model=model,
        initialisation=point["initialisation"],
        optimizer="+".join(sorted({stage.optimizer for stage in stages})),
        batch_size=point["batch_size"],
        arithmetic=point["precision"],
        convolution=point["convolution"],
        drop_last=point["drop_last"],
        clips=any(stage.traced.clip_norm is not None for stage in stages),
    )
