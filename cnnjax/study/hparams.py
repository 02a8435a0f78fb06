"""The hyperparameters of a trial: which are compiled in, and which are arrays inside a program."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Static:
    """Settings of a trial that are compiled in: trials that differ here run in different programs."""

    model: str
    initialisation: str
    optimizer: str  # of all stages, joined by '+'
    batch_size: int
    arithmetic: str = "float32"  # a study's train.precision, which in a table of trials is another thing
    convolution: str = "auto"
    drop_last: bool = False
    clips: bool = False  # whether gradients are clipped at all: their norm costs a pass over them


@dataclasses.dataclass(frozen=True)
class Traced:
    """Settings of a trial that are array elements inside a program: they never cause a compilation."""

    learning_rate: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    dropout_rate: float | None  # None: the rates the model's definition names
    nesterov: bool = False
    decay: str = "l2"  # or 'decoupled'
    clip_norm: float | None = None
    schedule: str = "constant"  # of the learning rate
    early_stopping: str = "off"
    stage_start: str = "best"  # or 'last': the weights that the next stage starts from
    shuffle: bool = True


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
