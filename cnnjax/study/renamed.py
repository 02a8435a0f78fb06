"""Config keys and columns of older versions. New configs may not use them. Runs with them can be read."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_DECAY = "use train.optimizer: adamw and sgdw use decoupled weight decay, adam and sgd add it to the gradient"
_RENAMED = {
    "data": {"normalisation": "normalization"},
    "train": {"initialisation": "initialization"},
}
# Old config keys, and the problems of their RequestErrors.
OLD_KEYS = {f"{group}.{old}": f"use {group}.{new}" for group, names in _RENAMED.items() for old, new in names.items()}
OLD_KEYS["train.decay"] = _DECAY
OLD_KEYS["data.split_seed"] = "use streams.split"
# Old columns of trials.csv, and their new names.
OLD_COLUMNS = {
    "initialisation": "initialization",
    **{name: f"test_{name}" for name in ("precision", "recall", "f1")},  # metrics of the test split
}


def modern_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of a run with the keys of this version. What they cannot express keeps its old key."""
    modern = dict(config)
    for group, names in _RENAMED.items():
        if isinstance(modern.get(group), Mapping):
            modern[group] = {names.get(key, key): value for key, value in modern[group].items()}
    data, streams = modern.get("data"), modern.get("streams", {})
    if isinstance(data, Mapping) and isinstance(streams, Mapping) and "split_seed" in data:
        modern["streams"] = {"split": data["split_seed"], **streams}
        modern["data"] = {key: value for key, value in data.items() if key != "split_seed"}
    if "decay" in (modern.get("train") or ()):
        modern["train"] = _without_decay(modern["train"])
    return modern


def with_old_columns(columns: Iterable[str]) -> list[str]:
    """Returns columns of trials.csv, and their names in older versions."""
    columns = [*columns]
    return [*columns, *(old for old, new in OLD_COLUMNS.items() if new in columns), "decay"]


def modern_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the rows of a trials.csv with the columns and the optimizers of this version."""
    table = table.rename(columns=OLD_COLUMNS)
    if "decay" in table:
        pairs = zip(table["optimizer"], table.pop("decay"), strict=True)
        table["optimizer"] = ["+".join(_named(one, decay) for one in names.split("+")) for names, decay in pairs]
    return table


def _without_decay(train: dict[str, Any]) -> dict[str, Any]:
    """Replaces `train.decay`, which is 'l2', 'decoupled', or an axis of both, by names of optimizers."""
    optimizers, decays = (_values(train.get(key, default)) for key, default in (("optimizer", "adam"), ("decay", "l2")))
    stages = [dict(stage) for stage in _values(train.get("stages", ()))]
    for stage in stages:
        if "optimizer" not in stage and "decay" not in stage:
            continue
        optimizer, decay = _values(stage.get("optimizer", optimizers)), _values(stage.pop("decay", decays))
        if len(optimizer) > 1 or len(decay) > 1:
            return train  # a stage has one optimizer
        stage["optimizer"] = _named(optimizer[0], decay[0])
    named = [_named(optimizer, decay) for optimizer in optimizers for decay in decays]
    rest = {key: value for key, value in train.items() if key != "decay"}
    return {**rest, "optimizer": named} | ({"stages": stages} if stages else {})


def _named(optimizer: str, decay: str) -> str:
    return f"{optimizer}w" if decay == "decoupled" else optimizer


def _values(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]
