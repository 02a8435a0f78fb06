"""The hyperparameters of training, each declared once.

`HPARAMS` defines the keys of a study's `train`, their validation and errors, the static and traced hyperparameters of
trials, the arrays that a compiled program takes, the columns of trials.csv, the axes of the report, and the table in
configs/README.md. To add a hyperparameter, add one entry here, and the code that reads its value: `hparams.NAME` inside
a compiled program if it is traced, `static.NAME` where the program is built if it is static.
"""

import dataclasses
from typing import Any

import numpy as np

from cnnjax.study import early_stopping, schedules
from cnnjax.study.rules import FLAG, Rule, choice, integer, none_or, number

MOST_EPOCHS = 100_000  # the schedule is a table with one row for each epoch


@dataclasses.dataclass(frozen=True)
class Hparam:
    """One hyperparameter: a key of a study's `train`, and an axis of its grid.

    Attributes:
        name: the key.
        type: the type of the values that are not None. Numbers and bools are scalars of a compiled program. Strings are
            converted by `cnnjax.training.stacking`.
        default: the default value.
        rule: checks the value.
        doc: the description in configs/README.md.
        static: whether the value is compiled into the program. Trials with different values run in different programs.
            Otherwise the hyperparameter is traced: the program takes an array with one element for each member.
        in_stages: whether a stage may change the value.
        optimizers: the optimizers that use the hyperparameter; () means all.
        matters: the condition under which the value has an effect on training, in words; "" means always.
        none_as: the number that represents None in a program.
        none_label: the label of None in the report.
        with_complement: whether a program also needs 1 - value, which in float32 would lose digits: the value becomes
            the pair [value, 1 - value], each rounded once.
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
    static: bool = False
    in_stages: bool = False
    optimizers: tuple[str, ...] = ()
    matters: str = ""
    none_as: float = np.nan
    none_label: str = "off"
    with_complement: bool = False
    is_main: bool = False
    column: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        column = self.column or self.name
        object.__setattr__(self, "column", column)
        object.__setattr__(self, "label", self.label or column.replace("_", " "))

    @property
    def is_scalar(self) -> bool:
        """Whether the value is a scalar of a compiled program."""
        return not self.static and self.type is not str

    def scalar(self, value: Any) -> np.generic | np.ndarray:
        """Converts a value to the scalar, or the pair, that a compiled program takes."""
        if self.with_complement:
            return np.array([value, 1 - value], np.float32)
        as_array = {float: np.float32, int: np.int32, bool: np.bool_}[self.type]
        return as_array(self.none_as if value is None else value)


_ADAM = ("adam", "adamw")
_SGD = ("sgd", "sgdw")

# In the order of the axes of the grid, the outermost first.
HPARAMS = (
    Hparam(
        "initialization",
        str,
        "pytorch",
        choice("pytorch", "he"),
        "Initialization of the weights: PyTorch's defaults, or He et al. 2015.",
        static=True,
    ),
    Hparam(
        "optimizer",
        str,
        "adam",
        choice("adam", "adamw", "sgd", "sgdw"),
        "Adam (epsilon 1e-8) or SGD. adamw and sgdw use decoupled weight decay (Loshchilov & Hutter 2019); adam and "
        "sgd add it to the gradient (L2).",
        static=True,
        matters="between adam and adamw if weight_decay > 0, and between sgd and sgdw if momentum > 0 as well",
        in_stages=True,
        is_main=True,
    ),
    Hparam(
        "learning_rate",
        float,
        1e-3,
        number(0, exclusive=True),
        "Learning rate, which the schedule multiplies.",
        in_stages=True,
        is_main=True,
    ),
    Hparam(
        "momentum",
        float,
        0.0,
        number(0, 1),
        "Momentum of SGD.",
        in_stages=True,
        optimizers=_SGD,
        matters="for sgd and sgdw",
    ),
    Hparam(
        "nesterov",
        bool,
        False,
        FLAG,
        "Use Nesterov momentum in SGD.",
        in_stages=True,
        optimizers=_SGD,
        matters="for sgd and sgdw if momentum > 0",
    ),
    Hparam(
        "b1",
        float,
        0.9,
        number(0, 1),
        "Decay rate of Adam's mean of the gradients.",
        in_stages=True,
        optimizers=_ADAM,
        matters="for adam and adamw",
        with_complement=True,
    ),
    Hparam(
        "b2",
        float,
        0.999,
        number(0, 1),
        "Decay rate of Adam's mean of the squared gradients.",
        in_stages=True,
        optimizers=_ADAM,
        matters="for adam and adamw",
        with_complement=True,
    ),
    Hparam("weight_decay", float, 0.0, number(0), "Strength of weight decay.", in_stages=True),
    Hparam(
        "clip_norm",
        float,
        None,
        none_or(number(0, exclusive=True)),
        "Maximum global norm of the gradients; None disables clipping.",
        in_stages=True,
        none_as=np.inf,
    ),
    Hparam(
        "label_smoothing",
        float,
        0.0,
        number(0, 1),
        "Fraction of the target that is spread evenly over all classes.",
        in_stages=True,
    ),
    Hparam(
        "dropout_rate",
        float,
        None,
        none_or(number(0, 1)),
        "Rate of all dropout layers; None uses the rates of the model.",
        in_stages=True,
        matters="for models with dropout, if the rate is not the model's own",
        none_label="as in model",
    ),
    Hparam(
        "batch_size",
        int,
        64,
        integer(1),
        "Number of images per step. Each batch size is compiled separately.",
        static=True,
        is_main=True,
    ),
    Hparam("shuffle", bool, True, FLAG, "Shuffle the training images in each epoch."),
    Hparam(
        "drop_last",
        bool,
        False,
        FLAG,
        "Drop the last, incomplete batch of each epoch.",
        static=True,
    ),
    Hparam(
        "epochs",
        int,
        10,
        integer(1, MOST_EPOCHS),
        "Number of passes over the training split. A shorter trial is read off a longer one if both begin identically.",
        in_stages=True,
        is_main=True,
    ),
    Hparam(
        "schedule",
        str,
        "constant",
        Rule(schedules.is_schedule, schedules.ALLOWED),
        "Learning-rate schedule ([schedules.py](../cnnjax/study/schedules.py)).",
        in_stages=True,
        matters="if the schedules differ within the trained epochs",
    ),
    Hparam(
        "early_stopping",
        str,
        "off",
        Rule(early_stopping.is_stopping, early_stopping.ALLOWED),
        "Stop after PATIENCE epochs in a row in which METRIC did not improve by more than CHANGE, and restore the best "
        "weights.",
        in_stages=True,
        matters="if the patience is less than the number of epochs",
    ),
    Hparam(
        "stage_start",
        str,
        "best",
        choice("best", "last"),
        "Weights that the next stage starts from: the best or the last of the stage. Without validation and early "
        "stopping, always the last.",
        matters="if train.stages has several stages",
    ),
    Hparam(
        "precision",
        str,
        "float32",
        choice("float32", "tf32", "bfloat16"),
        "Precision of the layers' arithmetic. Weights, batch statistics, loss and optimizer are always float32.",
        static=True,
        column="arithmetic",  # in tables of older versions, `precision` is a metric of the test split
    ),
    Hparam(
        "convolution",
        str,
        "auto",
        choice("auto", "block_patches", "winograd", "patches", "shifts", "dense", "grouped"),
        "Algorithm of convolutions. auto uses the fastest in our measurements. Results differ by rounding.",
        static=True,
        matters="for models with convolutions",
    ),
)
STATIC = tuple(h for h in HPARAMS if h.static)
TRACED = tuple(h for h in HPARAMS if not h.static and h.name != "epochs")  # `epochs` is a field of Stage
BY_COLUMN = {h.column: h for h in HPARAMS}


# `Any`, because type checkers do not know the fields of generated classes.
_Static: Any = dataclasses.make_dataclass(
    "_Static",
    [
        ("model", str),
        *((h.column, h.type, h.default) for h in STATIC),
        *((name, bool, False) for name in ("clips", "keeps_best")),
    ],
    frozen=True,
)
_Traced: Any = dataclasses.make_dataclass("_Traced", [(h.name, h.type, h.default) for h in TRACED], frozen=True)


class Static(_Static):
    """Static hyperparameters of a trial. They are compiled into the program.

    The fields are `model`, the static hyperparameters by their columns, `clips` and `keeps_best`. `optimizer` has the
    optimizers of all stages, joined by '+'. `clips` is whether any stage clips gradients: the norm costs a pass over
    them. `keeps_best` is whether the state has the weights of the best epoch, too: with a validation split or early
    stopping.
    """


class Traced(_Traced):
    """Traced hyperparameters of a stage. They are elements of arrays in a program, and never cause a compilation."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a trial's training, with its own optimizer and hyperparameters. Most trials have one."""

    optimizer: str
    epochs: int  # the maximum; early stopping may end the stage before
    traced: Traced


@dataclasses.dataclass(frozen=True)
class Streams:
    """Seeds of the four random streams of a trial."""

    init: int
    order: int
    augment: int
    dropout: int
