"""The plan of a study: its trials, grouped into as few programs as possible. Imports no JAX."""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cnnjax.models.ladder import layers_of
from cnnjax.study.axes import digest, stage_content, static_content, used_by_training, where_it_matters
from cnnjax.study.hparams import HPARAMS, STATIC, TRACED, Stage, Static, Streams, Traced
from cnnjax.study.optimizers import KEYS, OWN, arguments_of, readable, row_of
from cnnjax.study.schedules import read_plateau
from cnnjax.study.schema import Study
from cnnjax.study.search import axis_values, configurations, draw, fixed, search_space
from cnnjax.utils.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Trial:
    """One configuration and one seed.

    Attributes:
        id: a hash of what training uses. A study that grows renames no trial.
        member: the id of its records by epoch, which trials share that differ only in their number of epochs.
        training: the id of the training run that gives its results. Trials share it that differ only in the decay of
            averaged weights, too.
        program: the id of the program that trains the member.
    """

    id: str
    member: str
    program: str
    static: Static
    stages: tuple[Stage, ...]
    seed: int
    streams: Streams
    training: str = ""

    @property
    def epochs(self) -> int:
        """The maximum number of epochs over all stages. The last of a stage may be a part of one."""
        return sum(stage.whole_epochs for stage in self.stages)

    @property
    def passes(self) -> float:
        """The maximum number of passes over the training split."""
        return sum(stage.epochs for stage in self.stages)

    def row(self) -> dict[str, Any]:
        """Returns the trial as one flat row: all axes, the seed and the streams.

        With several stages, it has the hyperparameters of the first one. `later_stages` has the changes of the others.
        """
        streams = {f"stream_{name}": seed for name, seed in dataclasses.asdict(self.streams).items()}
        axes = {**vars(self.static), **_values(self.stages[0])}
        later = " > ".join(_changes(*pair) for pair in itertools.pairwise(self.stages)) or None
        optimizer = "+".join(sorted({stage.optimizer for stage in self.stages}))
        axes |= {"later_stages": later, "epochs": self.passes, "optimizer": optimizer}
        return {"trial": self.id, **axes, "seed": self.seed, **streams}


def _values(stage: Stage) -> dict[str, Any]:
    """Returns the traced hyperparameters of a stage and the arguments of its optimizer, by their columns."""
    values = dict(vars(stage.traced))
    return values | row_of(stage.optimizer, values.pop("optimizer_args"))


def _changes(before: Stage, stage: Stage) -> str:
    """Returns the changes of a stage: its optimizer, and key=value for each hyperparameter that differs."""
    old, new = ({**_values(each), "epochs": each.epochs} for each in (before, stage))
    optimizer = [stage.optimizer] if stage.optimizer != before.optimizer else []
    return " ".join(optimizer + [f"{name}={new[name]}" for name in new if new[name] != old.get(name)]) or "the same"


@dataclasses.dataclass(frozen=True)
class Member:
    """One training run, for trials that differ only in their number of epochs and in the decay of averaged weights.

    Attributes:
        trials: the trials, the shortest first. The longest is trained; the results of the others are read off it.
        series: the ids of the records by epoch with their decays, of all trials that any study of the run has asked
            for; () stands for one without averages.
    """

    trials: tuple[Trial, ...]
    series: tuple[tuple[str, float | None], ...] = ()

    @property
    def decays(self) -> dict[str, float | None]:
        """The decay of the averaged weights in each of the records by epoch, by their ids; None without averages."""
        return dict(self.series) or {self.trials[0].member: None}

    @property
    def id(self) -> str:
        """The ids of the records by epoch, joined by '+': one, if the weights are not averaged with several decays."""
        return "+".join(self.decays)

    @property
    def epochs(self) -> int:
        """The maximum number of epochs. The last of a stage may be a part of one."""
        return self.trials[-1].epochs

    def share(self, epoch: int) -> float:
        """Returns the part of an epoch that is trained, as if only the last epoch may be a part of one."""
        return 1 if epoch < self.epochs else 1 + self.trials[-1].passes - self.epochs


@dataclasses.dataclass(frozen=True)
class Program:
    """Members that one compiled program trains."""

    id: str
    static: Static
    members: tuple[Member, ...]

    def without(self, finished: Container[str]) -> "Program":
        """Returns the program with only those members that have a trial which is not finished."""
        left = (member for member in self.members if any(trial.id not in finished for trial in member.trials))
        return dataclasses.replace(self, members=tuple(left))


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trials of a study, grouped into programs.

    Attributes:
        trials: one for each point of the grid that trains differently from the earlier points.
        programs: the programs that train all trials.
        members: all members by id, with the trials that earlier studies of the same run asked for, too.
        repeats: by axis, the number of points of the grid that train identically to an earlier point with another value
            of the axis. They are not trials.
        unread: the axes with several values that have no effect on any trial.
    """

    trials: tuple[Trial, ...]
    programs: tuple[Program, ...]
    members: Mapping[str, Member]
    repeats: Mapping[str, int]
    unread: tuple[str, ...]

    @property
    def trained(self) -> int:
        """The number of trials that are trained. The others are read off longer ones."""
        return sum(len(program.members) for program in self.programs)


MOST_TRIALS = 100_000
MOST_DECAYS = 8  # of averaged weights in one training
_PROBES = 64  # configurations of a search space


def make_plan(study: Study, earlier: Collection[Study] = (), *, numbered: bool = False) -> Plan:
    """Lists the trials of a study and groups them into programs.

    Trials that differ only in `epochs` share a member: the longest is trained, and the others are prefixes of it.
    Trials do not share a member if their schedule depends on the number of epochs, or if they have several stages.
    Members with equal static hyperparameters share a program.

    Args:
        study: the study.
        earlier: studies that the same run has asked for before.
        numbered: whether the ids are numbers in the order of the grid, as in runs of version 0.1.

    Raises:
        RequestError: the grid is too large.
    """
    grid = _expand(study)
    every = {trial.id: trial for past in earlier for trial in list_trials(past)}
    every |= {trial.id: trial for trial in grid.trials}
    series = _series(every.values())
    programs: dict[str, list[Member]] = defaultdict(list)
    for member in _members(grid.trials, series):
        programs[member.trials[0].program].append(member)
    plan = Plan(
        trials=grid.trials,
        programs=tuple(
            Program(name, members[0].trials[0].static, tuple(members)) for name, members in programs.items()
        ),
        members={},
        repeats=grid.repeats,
        unread=grid.unread,
    )
    if numbered:
        return _with_numbers(plan)
    return dataclasses.replace(plan, members={member.id: member for member in _members(every.values(), series)})


def _members(trials: Iterable[Trial], series: Mapping[str, tuple]) -> list[Member]:
    groups: dict[tuple, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[series[trial.member]].append(trial)
    return [Member(tuple(sorted(group, key=lambda t: t.epochs)), found) for found, group in groups.items()]


def _series(trials: Iterable[Trial]) -> dict[str, tuple]:
    """Returns the series of the member of each trial, by the id of the trial's records by epoch."""
    groups: dict[str, dict[str, float | None]] = defaultdict(dict)
    for trial in trials:
        groups[trial.training][trial.member] = trial.stages[0].traced.ema
    found = {}
    for decays in groups.values():
        pairs = sorted(decays.items(), key=lambda pair: pair[1] or 0)
        for place, (name, _) in enumerate(pairs):
            first = place // MOST_DECAYS * MOST_DECAYS
            found[name] = tuple(pairs[first : first + MOST_DECAYS])
    return found


def _with_numbers(plan: Plan) -> Plan:
    """Returns a plan with the ids of version 0.1: numbers; a member has the id of its longest trial."""
    digits = max(4, len(str(len(plan.trials))))
    numbers = {trial.id: f"t{number:0{digits}d}" for number, trial in enumerate(plan.trials)}

    def rename(member: Member, program: str) -> Member:
        last = numbers[member.trials[-1].id]
        trials = (dataclasses.replace(t, id=numbers[t.id], member=last, program=program) for t in member.trials)
        return Member(tuple(trials))

    programs = tuple(
        Program(name := f"p{number:03d}", old.static, tuple(rename(member, name) for member in old.members))
        for number, old in enumerate(plan.programs)
    )
    renamed = {t.id: t for program in programs for member in program.members for t in member.trials}
    trials = tuple(renamed[numbers[trial.id]] for trial in plan.trials)
    members = {member.id: member for program in programs for member in program.members}
    return dataclasses.replace(plan, trials=trials, programs=programs, members=members)


def list_trials(study: Study) -> tuple[Trial, ...]:
    """Returns the trials of a study in the order of its grid: models are the outermost axis, seeds the innermost.

    If points of the grid differ only in hyperparameters without effect (the momentum of Adam, the dropout rate of a
    model without dropout), only the first of them is a trial.

    Raises:
        RequestError: the grid is too large.
    """
    return _expand(study).trials


def configuration_id(trial: Trial) -> str:
    """Returns a hash of what the training of a trial uses, without its seed and streams."""
    return digest(stage_content(trial.static, trial.stages)[0])


def check_axes(study: Study, plan: Plan) -> None:
    """Raises RequestError if an axis has no effect on any trial, or if two models have the same layers."""
    names: dict[tuple, str] = {}
    for name in study.models:
        first = names.setdefault(layers_of(name) or (name,), name)
        if first != name:
            raise RequestError("models", name, f"it has the layers of {first!r}; use one of them")
    for axis in (*plan.unread, *_unread_by_search(study)):
        key = axis.removeprefix("train.")
        in_stages = study.train.stages and all(key in stage for stage in study.train.stages)
        where = "if a stage does not set it" if in_stages else where_it_matters(axis)
        problem = f"all values train identically, because it matters {where}; use one value"
        raise RequestError(axis, study.ranges.get(axis, _axes(study)[axis]), problem)


class _Grid(NamedTuple):
    """The trials of a grid. `repeats` and `unread` are as in `Plan`."""

    trials: tuple[Trial, ...]
    repeats: dict[str, int]
    unread: tuple[str, ...]


def _expand(study: Study) -> _Grid:
    known: dict[Hashable, int] = {}  # number of each combination of used hyperparameters
    found: dict[Hashable, tuple[tuple, Trial]] = {}  # the first point of the grid, by what training uses
    repeats: Counter[str] = Counter()
    inner = 1 + len(vars(study.streams))
    _check_count(study)
    for grid, axes in ((grid, _axes(grid)) for grid in configurations(study)):
        for outer_values in itertools.product(*[*axes.values()][:-inner]):
            static, stages = _compiled_and_stages(grid, *outer_values)
            used, used_streams = used_by_training(static, stages)
            number = known.setdefault(used, len(known))
            contents = [*map(digest, stage_content(static, stages))]
            program = f"p{digest(static_content(static))}"
            seeds_here = dict.fromkeys((*grid.seeds, *study.added.get(contents[0], ())))
            for *stream_seeds, seed in itertools.product(*[*axes.values()][-inner:-1], seeds_here):
                values = (*outer_values, *stream_seeds, seed)
                streams = Streams(*(seed if given is None else given for given in stream_seeds))
                key = (number, *(getattr(streams, name) for name in used_streams))
                if key in found:
                    pairs = zip(axes, found[key][0], values, strict=True)
                    repeats.update(axis for axis, one, other in pairs if one != other)
                    continue
                seeds = {name: getattr(streams, name) for name in used_streams}
                trial_id, member_id, training = (digest([content, seeds]) for content in contents)
                trial = Trial(f"t{trial_id}", f"m{member_id}", program, static, stages, seed, streams, training)
                found[key] = values, trial
    return _Grid(
        trials=tuple(trial for _, trial in found.values()),
        repeats=dict(repeats),
        unread=tuple(
            axis
            for place, (axis, given) in enumerate(_axes(study).items())
            if study.search.method == "grid"
            and len(given) > 1
            and all(values[place] == given[0] for values, _ in found.values())
        ),
    )


def _axes(study: Study) -> dict[str, tuple]:
    """Returns the axes of the grid of a study, the outermost first."""
    hparams = {h.key: h.values(study) for h in HPARAMS}
    of_streams = {f"streams.{name}": values for name, values in vars(study.streams).items()}
    return {"models": study.models, **hparams, **of_streams, "seeds": study.seeds}


def _unread_by_search(study: Study) -> Iterator[str]:
    """Yields the axes of a search space whose values have no effect on any configuration."""
    if study.search.method == "grid":
        return
    grids = [fixed(study, values) for values in draw(study, _PROBES)]  # more than a short search draws
    for key in (key for one in search_space(study) for key in one.keys):
        values = axis_values(study, key)
        if not any(len({_used(fixed(grid, {key: value})) for value in values}) > 1 for grid in grids):
            yield key


def _used(grid: Study) -> Hashable:
    """Returns the hyperparameters that training uses in a grid of one configuration."""
    axes = _axes(grid)
    values = (axes[key][0] for key in ("models", *(h.key for h in HPARAMS)))
    return used_by_training(*_compiled_and_stages(grid, *values))[0]


def _check_count(study: Study) -> None:
    axes = _axes(study)
    if study.search.method != "grid":
        searched = {key for one in search_space(study) for key in one.keys}
        axes = {key: values for key, values in axes.items() if key not in searched}
        axes["search.trials"] = (None,) * study.search.trials
    count = math.prod(len(values) for values in axes.values())
    if count > MOST_TRIALS:
        longest = max(axes, key=lambda name: len(axes[name]))
        raise RequestError(
            longest, f"{len(axes[longest]):,} values", f"the grid has {count:,} points; use at most {MOST_TRIALS:,}"
        )


def _compiled_and_stages(study: Study, model: str, *values: Any) -> tuple[Static, tuple[Stage, ...]]:
    """Returns the static hyperparameters and the stages at a point of the grid. `values` are those of `HPARAMS`."""
    point = {h.name: value for h, value in zip(HPARAMS, values, strict=True)}
    stages = tuple(_stage({**point, **change}) for change in study.train.stages or ({},))
    hparams = {h.column: point[h.name] for h in STATIC}
    hparams["optimizer"] = "+".join(sorted({stage.spec for stage in stages}))
    clips = any(stage.traced.clip_norm is not None for stage in stages)
    keeps_best = study.data.has_validation or any(stage.traced.early_stopping != "off" for stage in stages)
    flags = {
        "clips": clips,
        "keeps_best": keeps_best,
        "plateaus": any(read_plateau(stage.traced.schedule) is not None for stage in stages),
        "parts": any(stage.has_part for stage in stages),
        "averages": any(stage.traced.ema is not None or stage.traced.lookahead != "off" for stage in stages),
    }
    return Static(model=model, **hparams, **flags), stages


def single_out(study: Study, trial: Trial, seeds: tuple[int, ...]) -> Study:
    """Returns a study of one trial's configuration only, with these seeds alone and the same streams and folds."""
    for grid in configurations(study):
        for model, *values in itertools.product(grid.models, *(h.choices(grid) for h in HPARAMS)):
            chosen = [*zip(HPARAMS, values, strict=True)]
            groups: dict[str, Any] = {
                group: dataclasses.replace(getattr(grid, group), **{h.name: v for h, v in chosen if h.group == group})
                for group in ("data", "train")
            }
            alone = dataclasses.replace(grid, models=(model,), seeds=seeds, added={}, **groups)
            first = list_trials(alone)[0]
            if (first.static, first.stages) == (trial.static, trial.stages):
                return dataclasses.replace(alone, train=readable(alone.train))
    raise ValueError(f"{trial.id} is not a trial of the study")


def _stage(point: dict[str, Any]) -> Stage:
    """Returns the stage at a point of the grid. Hyperparameters that its optimizer does not use have their defaults."""
    optimizer = point["optimizer"]
    arguments = arguments_of(optimizer, point["optimizer_args"])
    if optimizer in OWN:  # their arguments are hyperparameters, but for epsilon
        point = point | {name: value for name, value in arguments if name in KEYS}
        arguments = tuple((name, value) for name, value in arguments if name not in KEYS)
    point = point | {"optimizer_args": arguments}
    used = {h.column: h.default if h.optimizers and optimizer not in h.optimizers else point[h.name] for h in TRACED}
    epochs = point["epochs"]
    return Stage(optimizer, int(epochs) if epochs == int(epochs) else epochs, Traced(**used))
