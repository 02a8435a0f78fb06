"""Names of older versions: refused in a new config with the new name, and understood where a run is read."""

from collections.abc import Mapping
from typing import Any

_DECAY = (
    "use train.optimizer: adamw and sgdw decay the weights beside the gradient's step, adam and sgd by the gradient"
)
_RENAMED = {
    "data": {"normalisation": "normalization"},
    "train": {"initialisation": "initialization"},
}
# Keys of a config that a new study may not use, and what to do instead.
OLD_KEYS = {f"{group}.{old}": f"use {group}.{new}" for group, names in _RENAMED.items() for old, new in names.items()}
OLD_KEYS["train.decay"] = _DECAY
# Columns of trials.csv.
OLD_COLUMNS = {
    "initialisation": "initialization",
    **{name: f"test_{name}" for name in ("precision", "recall", "f1")},  # of the test split
}


def modern_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's config in the names of this version; what it cannot say keeps its old key, and is refused."""
    modern = dict(config)
    for group, names in _RENAMED.items():
        if isinstance(modern.get(group), Mapping):
            modern[group] = {names.get(key, key): value for key, value in modern[group].items()}
    if "decay" in (modern.get("train") or ()):
        modern["train"] = _without_decay(modern["train"])
    return modern


def _without_decay(train: dict[str, Any]) -> dict[str, Any]:
    """Names the optimizers of a study whose `train.decay` is 'l2', 'decoupled', or an axis of both."""
    optimizers, decays = (_values(train.get(key, default)) for key, default in (("optimizer", "adam"), ("decay", "l2")))
    stages = [dict(stage) for stage in _values(train.get("stages", ()))]
    for stage in stages:
        if "optimizer" not in stage and "decay" not in stage:
            continue
        optimizer, decay = _values(stage.get("optimizer", optimizers)), _values(stage.pop("decay", decays))
        if len(optimizer) > 1 or len(decay) > 1:
            return train  # no stage can say that
        stage["optimizer"] = _named(optimizer[0], decay[0])
    named = [_named(optimizer, decay) for optimizer in optimizers for decay in decays]
    rest = {key: value for key, value in train.items() if key != "decay"}
    return {**rest, "optimizer": named} | ({"stages": stages} if stages else {})


def _named(optimizer: str, decay: str) -> str:
    return f"{optimizer}w" if decay == "decoupled" else optimizer


def _values(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]
