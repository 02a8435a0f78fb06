"""The nouns every layer shares: trials, members, programs, and the error a user can cause.

What a compiled program may vary without a new compilation is said here once, by type: `Traced` settings (and
`Streams`) are arrays over a population; two trials that differ in a `Static` setting need two programs.
"""

import dataclasses
import difflib
import itertools
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any


class RequestError(ValueError):
    """A request that cannot be met. The message is one line that names the key, the value and what is allowed.

    Args:
        key: what the user wrote: a config key, a flag, or `workdir`.
        value: of the key.
        problem: begins with "must " ("must be >= 1": `train.batch_size must be >= 1, got 0`), or is a sentence
            (`workdir='runs/a': config.json cannot be read`). What follows a semicolon is advice.
    """

    def __init__(self, key: str, value: object, problem: str):
        what, mark, advice = problem.partition("; ")
        must = what.startswith("must ")
        super().__init__(
            _printable(f"{key} {what}, got {value!r}{mark}{advice}" if must else f"{key}={value!r}: {problem}")
        )

    def __reduce__(self) -> tuple:
        return Told, (str(self),)  # so it is said in another process


class Told(RequestError):
    """A wrong request that another process found, in its words."""

    def __init__(self, line: str):
        ValueError.__init__(self, _printable(line))


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in line)


def one_of(value: object, names: Iterable[str]) -> str:
    """Returns the problem of a value that is none of `names`, with the nearest name first."""
    names = sorted(names)
    near = nearest(value, names)
    listed = f"one of {', '.join(names)}"
    return f"did you mean {near!r}? Use {listed}" if near else f"must be {listed}"


def nearest(value: object, names: Iterable[str]) -> str | None:
    """Returns the name that a value is most like, or is the initials of, as lr of learning_rate; None of none."""
    text = _plain(str(value))
    by_text = {_plain(name): name for name in names}
    initials = [name for name in by_text.values() if "".join(word[:1] for word in name.split("_")) == text]
    near = difflib.get_close_matches(text, by_text, n=1, cutoff=0.5)
    return by_text[text] if text in by_text else initials[0] if initials else by_text[near[0]] if near else None


def _plain(text: str) -> str:
    return text.lower().replace("-", "").replace("_", "").replace(" ", "")


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC), as which one that looks alike is the same, whoever wrote it."""
    return unicodedata.normalize("NFC", name)


def counted(count: int, noun: str) -> str:
    """Returns "1 seed" or "1,000 seeds"."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says; its kind, of one that says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


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


@dataclasses.dataclass(frozen=True)
class Trial:
    """One point of the grid and one seed."""

    id: str
    static: Static
    stages: tuple[Stage, ...]
    seed: int
    streams: Streams

    @property
    def epochs(self) -> int:
        """How many epochs the trial trains at most, all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def row(self) -> dict[str, Any]:
        """Returns the trial as one flat row: every axis, the seed and the streams.

        Of several stages it has the first one's settings, and as `later_stages` what each further one changes.
        """
        streams = {f"stream_{name}": seed for name, seed in dataclasses.asdict(self.streams).items()}
        axes = {**dataclasses.asdict(self.static), **dataclasses.asdict(self.stages[0].traced)}
        later = " > ".join(_changes(*pair) for pair in itertools.pairwise(self.stages)) or None
        axes |= {"later_stages": later, "epochs": self.epochs}
        return {"trial": self.id, **axes, "seed": self.seed, **streams}


def _changes(before: Stage, stage: Stage) -> str:
    """What a stage has other than the one before: its optimizer, and key=value for each setting."""
    old, new = ({**dataclasses.asdict(each.traced), "epochs": each.epochs} for each in (before, stage))
    optimizer = [stage.optimizer] if stage.optimizer != before.optimizer else []
    return " ".join(optimizer + [f"{name}={new[name]}" for name in new if new[name] != old[name]]) or "the same"


@dataclasses.dataclass(frozen=True)
class Member:
    """Trials that differ only in epochs, shortest first: the longest is trained, the others are read off it."""

    trials: tuple[Trial, ...]

    @property
    def id(self) -> str:
        """The id of the trial that is trained."""
        return self.trials[-1].id

    @property
    def epochs(self) -> int:
        """How many epochs the member trains."""
        return self.trials[-1].epochs


@dataclasses.dataclass(frozen=True)
class Program:
    """Members trained by one compiled program."""

    id: str
    static: Static
    members: tuple[Member, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Every trial of a study, grouped into the fewest programs.

    Attributes:
        trials: of all points of the grid that train differently.
        programs: of all trials.
        repeats: how many points of the grid are no trials, for they train as another does that differs in an axis from
            them, by axis.
        unread: the axes of several values of which no trial reads any.
    """

    trials: tuple[Trial, ...]
    programs: tuple[Program, ...]
    repeats: Mapping[str, int]
    unread: tuple[str, ...]

    @property
    def trained(self) -> int:
        """The number of trials that are trained (the others are read off longer ones)."""
        return sum(len(program.members) for program in self.programs)
