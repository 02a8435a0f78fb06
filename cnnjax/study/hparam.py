"""The declaration of one hyperparameter."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnjax.study.rules import Rule


@dataclasses.dataclass(frozen=True)
class Hparam:
    """One hyperparameter: a key of a study's `train` or `data`, and an axis of its grid.

    Attributes:
        name: the key.
        type: the type of the values that are not None. Numbers and bools are scalars of a compiled program, and so are
            strings with `options`. Other values are converted by `cnnjax.training.stacking`. A tuple has no column:
            its names are the columns, see `cnnjax.study.optimizers`.
        default: the default value.
        rule: checks the value.
        doc: the description in configs/README.md.
        group: the group of the key: `train` or `data`.
        static: whether the value is compiled into the program. Trials with different values run in different programs.
            Otherwise the hyperparameter is traced: the program takes an array with one element for each member.
        in_stages: whether a stage may change the value.
        optimizers: the optimizers that use the hyperparameter; () means all.
        matters: the condition under which the value has an effect on training, in words; "" means always.
        options: the allowed strings, if a program takes the number of the value among them.
        none_as: the number that represents None in a program.
        none_label: the label of None in the report.
        with_complement: whether a program also needs 1 - value, which in float32 would lose digits: the value becomes
            the pair [value, 1 - value], each rounded once.
        read: takes the key and a value of a config, checks the value, and returns the axis as the study stores it. None
            stands for one value or a tuple of values, checked by the rule.
        levels: returns the values of trials, given what the study stores; None if they are the same.
        is_repeat: whether trials that differ in nothing else repeat one configuration, as seeds do. The key takes one
            value.
        is_main: whether the report always shows the hyperparameter, even if all trials have the same value.
        column: the column of trials.csv; by default `name`.
        label: the label in the report; by default derived from `column`.
    """

    name: str
    type: type
    default: Any
    rule: Rule
    doc: str
    _: dataclasses.KW_ONLY
    group: str = "train"
    static: bool = False
    in_stages: bool = False
    optimizers: tuple[str, ...] = ()
    matters: str = ""
    options: tuple[str, ...] = ()
    none_as: float = np.nan
    none_label: str = "off"
    with_complement: bool = False
    read: Callable[[str, Any], Any] | None = None
    levels: Callable[[Any], tuple] | None = None
    is_repeat: bool = False
    is_main: bool = False
    column: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        column = self.column or self.name
        object.__setattr__(self, "column", column)
        object.__setattr__(self, "label", self.label or column.replace("_", " "))

    @property
    def key(self) -> str:
        """The dotted key of a config."""
        return f"{self.group}.{self.name}"

    @property
    def is_scalar(self) -> bool:
        """Whether the value is a scalar of a compiled program."""
        return not self.static and (self.type in (float, int, bool) or bool(self.options))

    def scalar(self, value: Any) -> np.generic | np.ndarray:
        """Converts a value to the scalar, or the pair, that a compiled program takes."""
        value = self.none_as if value is None else value
        if self.options:
            return np.int32(self.options.index(value))
        if self.with_complement:
            return np.array([value, 1 - value], np.float32)
        as_array = {float: np.float32, int: np.int32, bool: np.bool_}[self.type]
        return as_array(value)

    def values(self, study: Any) -> tuple:
        """Returns the values of the axis in a study, as trials have them."""
        stored = getattr(getattr(study, self.group), self.name)
        return self.levels(stored) if self.levels else stored

    def choices(self, study: Any) -> tuple:
        """Returns what the study stores for each value of the axis alone; all values together if they are repeats."""
        stored = getattr(getattr(study, self.group), self.name)
        if isinstance(stored, Mapping):  # a mapping of axes
            return tuple(type(stored)({name: (v,) for name, v in names}) for names in self.values(study))  # type: ignore[call-arg]
        return (stored,) if self.is_repeat else tuple((value,) for value in stored)
