"""The hyperparameters of training, each declared once.

From `HPARAMS` derive the keys of a study's `train`, their validation and errors, the static and traced settings of
trials, the arrays that a compiled program sees, the columns of trials.csv, the axes of the report, and the table in
configs/README.md. A new hyperparameter is one entry here, and the code that reads its value: a traced one is
`settings.NAME` inside a compiled program, a static one is `static.NAME` where the program is built.
"""

import dataclasses
from typing import Any

import numpy as np

from cnnjax.study import early_stopping, schedules
from cnnjax.study.rules import FLAG, Rule, choice, integer, none_or, number

MOST_EPOCHS = 100_000  # there is a table of them


@dataclasses.dataclass(frozen=True)
class Hparam:
    """One hyperparameter: a key of a study's `train`, and an axis of its grid.

    Attributes:
        name: the key.
        type: of its values, None aside. Numbers and flags become scalars of a compiled program by their type. What a
            text becomes is said in `settings`.
        default: its value where a study does not say.
        rule: what it takes.
        doc: what configs/README.md says of it.
        static: whether it is compiled in, so that another value is another program. Others are traced: arrays over the
            members of a program.
        in_stages: whether a stage may change it.
        optimizers: those that use it; (): all.
        matters: where its value has an effect on training, in words; "": everywhere.
        none_as: the number that stands for None in a program.
        none_label: what the report says for None.
        is_main: whether the report always names it, even if all trials have one value.
        column: of trials.csv; by default its name.
        label: the report's word for it; by default that of its column.
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
    is_main: bool = False
    column: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        column = self.column or self.name
        object.__setattr__(self, "column", column)
        object.__setattr__(self, "label", self.label or column.replace("_", " "))

    @property
    def is_scalar(self) -> bool:
        """Whether a compiled program sees the value as a scalar of its own."""
        return not self.static and self.type is not str

    def scalar(self, value: Any) -> np.generic:
        """Returns a value as the scalar that a compiled program sees."""
        as_array = {float: np.float32, int: np.int32, bool: np.bool_}[self.type]
        return as_array(self.none_as if value is None else value)


_ADAM = ("adam", "adamw")
_SGD = ("sgd", "sgdw")

# The order is that of the grid, the outermost axis first.
HPARAMS = (
    Hparam(
        "initialization",
        str,
        "pytorch",
        choice("pytorch", "he"),
        "Initial weights: PyTorch's defaults, or He et al. 2015.",
        static=True,
    ),
    Hparam(
        "optimizer",
        str,
        "adam",
        choice("adam", "adamw", "sgd", "sgdw"),
        "Adam (epsilon 1e-8), or SGD; adamw and sgdw decay the weights beside the gradient's step "
        "(Loshchilov & Hutter 2019), adam and sgd by the gradient.",
        static=True,
        matters="for adamw beside adam, or sgdw beside sgd, where weight_decay > 0, and for sgdw momentum > 0",
        in_stages=True,
        is_main=True,
    ),
    Hparam(
        "learning_rate", float, 1e-3, number(0, exclusive=True), "Before the schedule.", in_stages=True, is_main=True
    ),
    Hparam(
        "momentum",
        float,
        0.0,
        number(0, 1),
        "Of SGD; no axis for Adam.",
        in_stages=True,
        optimizers=_SGD,
        matters="for sgd and sgdw",
    ),
    Hparam(
        "nesterov",
        bool,
        False,
        FLAG,
        "Nesterov's momentum; no axis for Adam.",
        in_stages=True,
        optimizers=_SGD,
        matters="for sgd and sgdw with momentum > 0",
    ),
    Hparam(
        "b1",
        float,
        0.9,
        number(0, 1),
        "Of Adam: how much of the mean of the gradients stays at a step.",
        in_stages=True,
        optimizers=_ADAM,
        matters="for adam and adamw",
    ),
    Hparam(
        "b2",
        float,
        0.999,
        number(0, 1),
        "Of Adam: how much of the mean of the squared gradients stays at a step.",
        in_stages=True,
        optimizers=_ADAM,
        matters="for adam and adamw",
    ),
    Hparam("weight_decay", float, 0.0, number(0), "Of the weights: its strength.", in_stages=True),
    Hparam(
        "clip_norm",
        float,
        None,
        none_or(number(0, exclusive=True)),
        "The largest norm of a step's gradient over all weights; None, any.",
        in_stages=True,
        none_as=np.inf,
    ),
    Hparam(
        "label_smoothing",
        float,
        0.0,
        number(0, 1),
        "The share of the target that is spread over all classes.",
        in_stages=True,
    ),
    Hparam(
        "dropout_rate",
        float,
        None,
        none_or(number(0, 1)),
        "Of every dropout layer; None, as the network says.",
        in_stages=True,
        matters="for networks with dropout, where it is another rate than theirs",
        none_label="as in model",
    ),
    Hparam(
        "batch_size", int, 64, integer(1), "Images a step; another one is another program.", static=True, is_main=True
    ),
    Hparam("shuffle", bool, True, FLAG, "A new order of the training images in each epoch."),
    Hparam(
        "drop_last",
        bool,
        False,
        FLAG,
        "Leave out the images that fill no batch, other ones in each epoch.",
        static=True,
    ),
    Hparam(
        "epochs",
        int,
        10,
        integer(1, MOST_EPOCHS),
        "Passes over the training split; a shorter training is read off a longer one where both begin alike.",
        in_stages=True,
        is_main=True,
    ),
    Hparam(
        "schedule",
        str,
        "constant",
        Rule(schedules.is_schedule, schedules.ALLOWED),
        "Factors of the learning rate over the epochs ([schedules.py](../cnnjax/study/schedules.py)).",
        in_stages=True,
        matters="where the schedules differ within the epochs that are trained",
    ),
    Hparam(
        "early_stopping",
        str,
        "off",
        Rule(early_stopping.is_stopping, early_stopping.ALLOWED),
        "End after so many epochs in a row in which the metric did not improve by more than a change, with the best "
        "weights.",
        in_stages=True,
        matters="where the patience is shorter than the training",
    ),
    Hparam(
        "stage_start",
        str,
        "best",
        choice("best", "last"),
        "The weights that the next stage starts from; without validation and early stopping the last.",
        matters="where train.stages has several stages",
    ),
    Hparam(
        "precision",
        str,
        "float32",
        choice("float32", "tf32", "bfloat16"),
        "Of the layers' arithmetic; weights, batch statistics, loss and optimizer are float32.",
        static=True,
        column="arithmetic",  # `precision` was the test split's metric in tables of older versions
    ),
    Hparam(
        "convolution",
        str,
        "auto",
        choice("auto", "block_patches", "winograd", "patches", "shifts", "dense", "grouped"),
        "How to convolve; auto takes what was measured as fastest. Results differ by rounding.",
        static=True,
        matters="for networks with convolutions",
    ),
)
STATIC = tuple(h for h in HPARAMS if h.static)
TRACED = tuple(h for h in HPARAMS if not h.static and h.name != "epochs")  # a stage has its epochs beside them
BY_COLUMN = {h.column: h for h in HPARAMS}


# Made from the list, so no static checker knows their fields: `Any`.
_Static: Any = dataclasses.make_dataclass(
    "_Static",
    [("model", str), *((h.column, h.type, h.default) for h in STATIC), ("clips", bool, False)],
    frozen=True,
)
_Traced: Any = dataclasses.make_dataclass("_Traced", [(h.name, h.type, h.default) for h in TRACED], frozen=True)


class Static(_Static):
    """Settings of a trial that are compiled in: trials that differ here run in different programs.

    Beside the model and the static hyperparameters (by their columns; the optimizers of all stages joined by '+') it
    says whether gradients are clipped at all, `clips`: their norm costs a pass over them.
    """


class Traced(_Traced):
    """Settings of a stage that are array elements inside a program: they never cause a compilation."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of a trial's training with its own optimizer and settings; most trials have one."""

    optimizer: str
    epochs: int  # at most
    traced: Traced


@dataclasses.dataclass(frozen=True)
class Streams:
    """Seeds of a trial's four sources of randomness."""

    init: int
    order: int
    augment: int
    dropout: int
