"""Checks that the arguments of a study's optimizers fit the optimizers."""

import itertools
from collections.abc import Collection, Mapping
from typing import Any

from cnnjax.study.hparams import BY_COLUMN
from cnnjax.study.optimizers import KEYS, OTHER, OWN, parameters, read_arguments, read_names
from cnnjax.study.parameter_groups import read_groups
from cnnjax.study.rules import is_number
from cnnjax.utils.errors import RequestError, one_of


def check_optimizers(train: Any) -> None:
    """Checks the arguments of optimizers in a validated `TrainConfig`.

    Raises:
        RequestError: no optimizer takes an argument, or one takes no such value, or a key of `train` is an argument of
            an optimizer that does not read it.
    """
    if {*train.ema} - {None} and {*train.lookahead} - {"off"}:
        raise RequestError("train.lookahead", train.lookahead, "train.ema averages the weights, too; use one of them")
    stages: tuple[Mapping[str, Any], ...] = train.stages or ({},)
    names = [read_names("", stage.get("optimizer", train.optimizer)) for stage in stages]
    _check_arguments("train.optimizer_args", train.optimizer_args, {*itertools.chain(*names)})
    for groups in map(read_groups, train.groups):
        lacks = [
            name for name in itertools.chain(*names) if not any("weight_decay" in each for each in parameters(name))
        ]
        if lacks and any(factors.weight_decay != 1 for factors in groups.values()):
            raise RequestError("train.groups", groups, f"{lacks[0]} has no weight decay; use learning_rate only")
    for place, (stage, takers) in enumerate(zip(stages, names, strict=True)):
        if "optimizer_args" in stage:
            key = f"train.stages[{place}].optimizer_args"
            _check_arguments(key, read_arguments(key, stage["optimizer_args"]), takers)
        for argument in KEYS:
            value = stage.get(argument, getattr(train, argument))
            if value not in ((default := BY_COLUMN[argument].default), (default,)):
                _check_key(argument, value, takers, {**train.optimizer_args, **stage.get("optimizer_args", {})})


def _check_arguments(key: str, arguments: Mapping[str, tuple], names: Collection[str]) -> None:
    """Raises RequestError if none of the optimizers takes an argument, or one takes no such value."""
    for argument, values in arguments.items():
        takers = [name for name in sorted(names) if argument in parameters(name)]
        if not takers:
            taken = {each for name in names for each in parameters(name)}
            problem = f"{', '.join(sorted(names))} takes no such argument; {one_of(argument, taken)}"
            raise RequestError(f"{key}.{argument}", values, problem)
        for name, value in itertools.product(takers, values):
            default, is_flag = parameters(name)[argument], isinstance(value, bool)
            rule = BY_COLUMN[argument].rule if name in OWN and argument in KEYS else None
            if rule and not rule.accepts(value):
                raise RequestError(f"{key}.{argument}", value, rule.allowed)
            if isinstance(default, bool) and not is_flag:
                raise RequestError(f"{key}.{argument}", value, f"must be True or False for {name}")
            if is_number(default) and not is_number(value):
                raise RequestError(f"{key}.{argument}", value, f"must be a number for {name}")
            if default is OTHER and (is_number(value) or is_flag):
                raise RequestError(f"{key}.{argument}", value, f"must not be a number for {name}; leave it out")


def _check_key(key: str, value: Any, names: Collection[str], arguments: Mapping[str, Any]) -> None:
    """Raises RequestError if an optimizer of Optax takes a key of `train` as an argument, or if it is set twice."""
    for name in names:
        if name not in OWN and (key in parameters(name) or key == "weight_decay"):
            how = f"use train.optimizer_args, which {', '.join(OWN)} take, too"
            raise RequestError(f"train.{key}", value, f"{name} does not use it; {how}")
    if key in arguments:
        raise RequestError(f"train.{key}", value, "train.optimizer_args sets it, too; use one of them")
