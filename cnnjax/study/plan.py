"""From a study to its plan: the trials, and the fewest programs that train them. Imports no jax."""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from cnnjax.models.ladder import LADDER
from cnnjax.study.axes import what_training_reads, where_it_matters
from cnnjax.study.hparams import HPARAMS, STATIC, TRACED, Stage, Static, Streams, Traced
from cnnjax.study.schedules import has_horizon
from cnnjax.study.schema import Study
from cnnjax.utils.errors import RequestError


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


MOST_TRIALS = 100_000


def make_plan(study: Study) -> Plan:
    """Lists a study's trials and groups them into programs.

    Trials that differ only in `epochs` share a member: the longest is trained, the shorter ones are prefixes of it,
    unless their schedule depends on where it ends, or they have several stages. Members with equal static settings
    share a program, whatever their traced settings and seeds.
    """
    grid = _expand(study)
    trials = grid.trials
    prefixes: dict[tuple, list[Trial]] = defaultdict(list)
    for trial in trials:
        prefixes[(trial.static, _without_end(trial), trial.streams, trial.seed)].append(trial)
    programs: dict[Static, list[Member]] = defaultdict(list)
    for group in prefixes.values():
        member = Member(tuple(sorted(group, key=lambda trial: trial.epochs)))
        programs[group[0].static].append(member)
    return Plan(
        trials=trials,
        programs=tuple(
            Program(f"p{index:03d}", static, tuple(members)) for index, (static, members) in enumerate(programs.items())
        ),
        repeats=grid.repeats,
        unread=grid.unread,
    )


def _without_end(trial: Trial) -> tuple[Stage, ...]:
    """The stages of a trial; where its first epochs are those of a longer one, without saying how many there are."""
    if len(trial.stages) > 1 or has_horizon(trial.stages[0].traced.schedule):
        return trial.stages
    return (dataclasses.replace(trial.stages[0], epochs=0),)


def list_trials(study: Study) -> tuple[Trial, ...]:
    """Returns every trial of a study, models outermost and seeds innermost, ids in that order.

    Points of the grid that differ only in what training does not read there (adam's momentum, the dropout rate of a
    network without dropout) train alike: the first of them is a trial.

    Raises:
        RequestError: there are too many.
    """
    return _expand(study).trials


def check_axes(study: Study, plan: Plan) -> None:
    """Raises RequestError for an axis that no trial of a study reads, and for one network under two names."""
    names: dict[tuple, str] = {}
    for name in study.models:
        first = names.setdefault(tuple(LADDER.get(name, (name,))), name)
        if first != name:
            raise RequestError("models", name, f"it has the layers of {first!r}: both would train alike")
    for axis in plan.unread:
        key = axis.removeprefix("train.")
        in_stages = study.train.stages and all(key in stage for stage in study.train.stages)
        where = "where a stage does not set it" if in_stages else where_it_matters(axis)
        said = f"all its values would train alike: it matters {where}; use one value"
        raise RequestError(axis, _axes(study)[axis], said)


class _Grid(NamedTuple):
    """The trials of a grid; `repeats` and `unread` as those of a Plan."""

    trials: tuple[Trial, ...]
    repeats: dict[str, int]
    unread: tuple[str, ...]


def _expand(study: Study) -> _Grid:
    axes = _axes(study)
    _check_count(axes)
    known: dict[Hashable, int] = {}  # settings as training reads them
    found: dict[Hashable, tuple[tuple, tuple]] = {}  # by what training reads: the values of the axes, and the trial
    repeats: Counter[str] = Counter()
    inner = 1 + len(vars(study.streams))
    for outer_values in itertools.product(*[*axes.values()][:-inner]):
        static, stages = _compiled_and_stages(study, *outer_values)
        settings, read_streams = what_training_reads(static, stages, augments=bool(study.data.augment))
        number = known.setdefault(settings, len(known))
        for *stream_seeds, seed in itertools.product(*[*axes.values()][-inner:]):
            values = (*outer_values, *stream_seeds, seed)
            streams = Streams(*(seed if given is None else given for given in stream_seeds))
            read = (number, *(getattr(streams, name) for name in read_streams))
            first, _ = found.setdefault(read, (values, (static, stages, seed, streams)))
            if first is not values:
                repeats.update(axis for axis, one, other in zip(axes, first, values, strict=True) if one != other)
    digits = max(4, len(str(len(found))))
    return _Grid(
        trials=tuple(Trial(f"t{index:0{digits}d}", *content) for index, (_, content) in enumerate(found.values())),
        repeats=dict(repeats),
        unread=tuple(
            axis
            for place, (axis, given) in enumerate(axes.items())
            if len(given) > 1 and all(values[place] == given[0] for values, _ in found.values())
        ),
    )


def _axes(study: Study) -> dict[str, tuple]:
    """The axes of a study's grid, from the outermost to the innermost."""
    of_train = {f"train.{h.name}": getattr(study.train, h.name) for h in HPARAMS}
    of_streams = {f"streams.{name}": values for name, values in vars(study.streams).items()}
    return {"models": study.models, **of_train, **of_streams, "seeds": study.seeds}


def _check_count(axes: Mapping[str, tuple]) -> None:
    count = math.prod(len(values) for values in axes.values())
    if count > MOST_TRIALS:
        longest = max(axes, key=lambda name: len(axes[name]))
        raise RequestError(
            longest, f"{len(axes[longest]):,} values", f"they make {count:,} trials; use at most {MOST_TRIALS:,}"
        )


def _compiled_and_stages(study: Study, model: str, *values: Any) -> tuple[Static, tuple[Stage, ...]]:
    """The static settings and the stages at a point of the grid; the values are those of the axes of `train`."""
    point = {h.name: value for h, value in zip(HPARAMS, values, strict=True)}
    stages = tuple(_stage({**point, **change}) for change in study.train.stages or ({},))
    return _static(model, point, stages), stages


def single_out(study: Study, trial: Trial, seeds: tuple[int, ...]) -> Study:
    """Returns the study of one trial's setting alone, with these seeds; its streams are as they were."""
    axes = [getattr(study.train, h.name) for h in HPARAMS]
    for model, *values in itertools.product(study.models, *axes):
        train = dataclasses.replace(study.train, **{h.name: (value,) for h, value in zip(HPARAMS, values, strict=True)})
        alone = dataclasses.replace(study, models=(model,), seeds=seeds, train=train)
        first = list_trials(alone)[0]
        if (first.static, first.stages) == (trial.static, trial.stages):
            return alone
    raise ValueError(f"{trial.id} is no trial of the study")


def _stage(point: dict[str, Any]) -> Stage:
    """The stage of some settings; those that its optimizer does not use have their defaults."""
    optimizer = point["optimizer"]
    used = {h.name: h.default if h.optimizers and optimizer not in h.optimizers else point[h.name] for h in TRACED}
    return Stage(optimizer, point["epochs"], Traced(**used))


def _static(model: str, point: dict[str, Any], stages: tuple[Stage, ...]) -> Static:
    settings = {h.column: point[h.name] for h in STATIC}
    settings["optimizer"] = "+".join(sorted({stage.optimizer for stage in stages}))
    return Static(model=model, **settings, clips=any(stage.traced.clip_norm is not None for stage in stages))
