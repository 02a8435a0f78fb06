"""From a study to its plan: the trials, and the fewest programs that train them. Imports no jax."""

import dataclasses
import itertools
from collections import defaultdict
from typing import Any

from cnnjax.schedules import has_horizon
from cnnjax.study import Study
from cnnjax.types import Member, Plan, Program, Static, Streams, Traced, Trial


def make_plan(study: Study) -> Plan:
    """Lists a study's trials and groups them into programs.

    Trials that differ only in `epochs` share a member: the longest is trained, the shorter ones are prefixes of it,
    unless their schedule depends on where it ends. Members with equal static settings share a program, whatever their
    traced settings and seeds.
    """
    trials = list_trials(study)
    prefixes: dict[tuple, list[Trial]] = defaultdict(list)
    for trial in trials:
        own = trial.epochs if has_horizon(trial.traced.schedule) else None
        prefixes[(trial.static, trial.traced, trial.streams, trial.seed, own)].append(trial)
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


def list_trials(study: Study) -> tuple[Trial, ...]:
    """Returns every trial of a study, models outermost and seeds innermost, ids in that order.

    A setting that an optimizer does not have (adam's momentum) is no axis there: the trials that would differ
    only in it are one trial.
    """
    train, streams = dataclasses.asdict(study.train), dataclasses.asdict(study.streams)
    points: dict[tuple, None] = {}  # an ordered set
    for model, values, stream_seeds, seed in itertools.product(
        study.models,
        itertools.product(*train.values()),
        itertools.product(*streams.values()),
        study.seeds,
    ):
        point: dict[str, Any] = dict(zip(train, values, strict=True))
        if point["optimizer"] == "adam":
            point["momentum"] = 0.0
        followed = Streams(*(seed if s is None else s for s in stream_seeds))
        points[(model, *point.values(), followed, seed)] = None
    digits = max(4, len(str(len(points))))
    return tuple(
        _trial(f"t{index:0{digits}d}", model, dict(zip(train, values, strict=True)), followed, seed)
        for index, (model, *values, followed, seed) in enumerate(points)
    )


def _trial(trial_id: str, model: str, point: dict[str, Any], streams: Streams, seed: int) -> Trial:
    names = ("initialisation", "optimizer", "batch_size", "precision", "convolution")
    static = Static(model, *(point.pop(name) for name in names))
    epochs = point.pop("epochs")
    return Trial(trial_id, static, Traced(**point), epochs, seed, streams)
