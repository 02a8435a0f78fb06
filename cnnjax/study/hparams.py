"""The hyperparameters of training, each declared once.

`HPARAMS` defines the axes of a study's `train` and `data`, their validation and errors, the static and traced
hyperparameters of trials, the arrays that a compiled program takes, the columns of trials.csv, the axes of the report,
and the table in configs/README.md. To add a hyperparameter, add one entry here, and the code that reads its value:
`hparams.NAME` inside a compiled program if it is traced, `static.NAME` where the program is built if it is static.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from cnnjax.study import augmentation, early_stopping, lookahead, losses, optimizers, parameter_groups, schedules
from cnnjax.study.hparam import Hparam
from cnnjax.study.optimizers import ADAM, OWN, SGD
from cnnjax.study.rules import FLAG, Rule, choice, integer, is_number, none_or, number

MOST_EPOCHS = 100_000  # the schedule is a table with one row for each epoch
MOST_FOLDS = 1000
NORMALIZATIONS = ("unit", "half", "standard", "none")

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
        Rule(lambda name: name in OWN, optimizers.ALLOWED),
        "Adam (epsilon 1e-8) or SGD with PyTorch's arithmetic, or any optimizer of Optax "
        "([how to](../docs/how-to/optimizers.md)). adamw and sgdw use decoupled weight decay (Loshchilov & Hutter "
        "2019); adam and sgd add it to the gradient (L2).",
        static=True,
        read=optimizers.read_names,
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
        optimizers=SGD,
        matters="for sgd and sgdw",
    ),
    Hparam(
        "nesterov",
        bool,
        False,
        FLAG,
        "Use Nesterov momentum in SGD.",
        in_stages=True,
        optimizers=SGD,
        matters="for sgd and sgdw if momentum > 0",
    ),
    Hparam(
        "b1",
        float,
        0.9,
        number(0, 1),
        "Decay rate of Adam's mean of the gradients.",
        in_stages=True,
        optimizers=ADAM,
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
        optimizers=ADAM,
        matters="for adam and adamw",
        with_complement=True,
    ),
    Hparam(
        "weight_decay",
        float,
        0.0,
        number(0),
        "Strength of weight decay.",
        in_stages=True,
        optimizers=OWN,
    ),
    Hparam(
        "optimizer_args",
        tuple,
        {},
        Rule(lambda _: False, 'must be a mapping, as in `{"b2": (0.95, 0.999), "eps": 1e-8}`'),
        "Arguments of the optimizer; each is an axis. Numbers are traced, other values are compiled. Of several "
        "optimizers, those that take an argument have it.",
        in_stages=True,
        matters="if the optimizer takes them",
        read=optimizers.read_arguments,
        levels=optimizers.combinations,
    ),
    Hparam(
        "groups",
        str,
        parameter_groups.NONE,
        Rule(lambda _: False, parameter_groups.ALLOWED),
        "Factors of the learning rate and weight decay of the parameters whose dotted name, such as `conv0.bias`, "
        "matches a regular expression (`re.search`). The factors of several matching patterns are multiplied.",
        static=True,
        read=parameter_groups.read_axis,
    ),
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
        "ema",
        float,
        None,
        none_or(number(0, 1)),
        "Decay of an exponential moving average of the weights and batch statistics over the steps. Evaluation and "
        "selection use the average. Several decays are read off one training.",
        with_complement=True,
    ),
    Hparam(
        "lookahead",
        str,
        "off",
        Rule(lookahead.is_lookahead, lookahead.ALLOWED),
        "Lookahead (Zhang et al. 2019): after every STEPS steps, slow weights move by RATE of the way to the weights, "
        "which go on from there. Evaluation uses the slow weights.",
    ),
    Hparam(
        "loss",
        str,
        "cross_entropy",
        losses.RULE,
        "Loss of training ([losses](../docs/how-to/own-loss-and-metric.md)). `focal:GAMMA` is the cross-entropy of an "
        "example with probability p, times (1 - p)^GAMMA (Lin et al. 2017); `binary` the binary cross-entropy of each "
        "class against the rest, `brier` the squared error of the probabilities. The metric loss is always the "
        "cross-entropy.",
        static=True,
        label="loss function",
    ),
    Hparam(
        "class_weights",
        str,
        None,
        losses.CLASS_WEIGHTS,
        "Weights of the classes in the mean of the losses over a batch: a number > 0 for each class, or `balanced`, "
        "the inverse of the frequencies of the classes in the trial's training split. Several values: "
        '`(None, "balanced", (1, 2.5))`.',
        static=True,
        none_label="equal",
        read=losses.read_class_weights,
        levels=losses.class_weight_levels,
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
        float,
        10,
        Rule(lambda v: is_number(v) and 0 < v <= MOST_EPOCHS, f"must be a number > 0 and <= {MOST_EPOCHS}"),
        "Number of passes over the training split. A shorter trial is read off a longer one if both begin identically. "
        "With 9.9, the tenth epoch has 0.9 of its steps, rounded up; such a trial trains by itself.",
        in_stages=True,
        is_main=True,
    ),
    Hparam(
        "schedule",
        str,
        "constant",
        Rule(schedules.is_schedule, schedules.ALLOWED),
        "[Learning-rate schedule](../docs/reference/schedules.md).",
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
        choice("auto", "block_patches", "winograd", "patches", "shifts", "dense", "grouped", "kernels", "pallas"),
        "Algorithm of convolutions. auto uses the fastest in our measurements; kernels are our own in C, for CPUs, "
        "and need `pip install 'cnnjax[kernels]'`; pallas needs a GPU. "
        "Results differ by rounding.",
        static=True,
        matters="for models with convolutions",
    ),
    Hparam(
        "augment",
        str,
        "none",
        augmentation.RULE,
        "Random augmentations of each training image in each epoch ([what each does](../docs/how-to/augmentation.md)). "
        "Names joined by + are applied together, and so is a plain tuple of names: "
        '`("flip", "crop:2", "mixup:0.2")`. Several values: `(("flip",), ("flip", "crop"), ())`, or '
        "`none,flip,flip+crop` on the command line.",
        group="data",
        static=True,
        read=augmentation.read_axis,
        levels=augmentation.levels,
    ),
    Hparam(
        "normalization",
        str,
        "half",
        choice(*NORMALIZATIONS),
        "Scale of the pixels, which are 0 to 255: `unit` 0 to 1, `half` -1 to 1, `standard` mean 0 and variance 1 in "
        "each channel of the trial's training split, `none` unchanged.",
        group="data",
        options=NORMALIZATIONS,
    ),
    Hparam(
        "train_examples",
        int,
        None,
        none_or(integer(1)),
        "Number of examples of the training split to train on; None uses all. Each number is compiled separately.",
        group="data",
        static=True,
        none_label="all",
    ),
    Hparam(
        "folds",
        int,
        None,
        none_or(integer(2, MOST_FOLDS)),
        "k-fold cross-validation: each configuration is trained k times with each seed, and each fold validates on "
        "another k-th of the training images. The folds are those of scikit-learn's `KFold`, with `data.stratify` "
        "`StratifiedKFold`, with `shuffle=True` and the seed of the split as `random_state`.",
        group="data",
        none_as=0,
        levels=lambda folds: (None,) if folds is None else tuple(range(folds)),
        is_repeat=True,
        column="fold",
    ),
)
STATIC = tuple(h for h in HPARAMS if h.static)
TRACED = tuple(h for h in HPARAMS if not h.static and h.name != "epochs")  # `epochs` is a field of Stage
COLUMNS = tuple(
    h.column for h in HPARAMS if h.type is not tuple
)  # of trials.csv, with those of the optimizer's arguments
BY_COLUMN = {h.column: h for h in HPARAMS}


# `Any`, because type checkers do not know the fields of generated classes.
_Static: Any = dataclasses.make_dataclass(
    "_Static",
    [
        ("model", str),
        *((h.column, h.type, h.default) for h in STATIC),
        *((name, bool, False) for name in ("clips", "keeps_best", "plateaus", "parts", "averages")),
    ],
    frozen=True,
)
_Traced: Any = dataclasses.make_dataclass(
    "_Traced", [(h.column, h.type, () if h.type is tuple else h.default) for h in TRACED], frozen=True
)


class Static(_Static):
    """Static hyperparameters of a trial. They are compiled into the program.

    The fields are `model`, the static hyperparameters by their columns, and flags. `optimizer` has the optimizers of
    all stages with their static arguments, as `optimizers.spec_of` writes them, joined by '+'. `clips` is whether any
    stage clips gradients: the norm costs a pass over them. `keeps_best` is whether the state has the weights of the
    best epoch, too: with a validation split or early stopping. `plateaus` is whether any stage reduces the learning
    rate on a plateau. `parts` is whether any stage ends within an epoch. `averages` is whether the state has averages
    of the weights, too.
    """


class Traced(_Traced):
    """Traced hyperparameters of a stage. They are elements of arrays in a program, and never cause a compilation."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a trial's training, with its own optimizer and hyperparameters. Most trials have one."""

    optimizer: str
    epochs: float  # the maximum; early stopping may end the stage before
    traced: Traced

    @property
    def whole_epochs(self) -> int:
        """The number of epochs, of which the last may be a part of one."""
        return math.ceil(self.epochs)

    @property
    def has_part(self) -> bool:
        """Whether the last epoch is a part of one."""
        return self.whole_epochs > self.epochs

    @property
    def spec(self) -> str:
        """The optimizer with its static arguments, as a program compiles it."""
        return optimizers.spec_of(self.optimizer, self.traced.optimizer_args)


@dataclasses.dataclass(frozen=True)
class Streams:
    """Seeds of the five random streams of a trial.

    In the arrays of a program, `split` is the number of the seed among those of the study (`Study.split_seeds`).
    """

    init: int
    order: int
    augment: int
    dropout: int
    split: int = 0  # which examples train, validate and test


STREAMS = tuple(field.name for field in dataclasses.fields(Streams))
STREAM_COLUMNS = tuple(f"stream_{name}" for name in STREAMS)  # of trials.csv
