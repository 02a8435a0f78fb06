"""The plan of a study: its trials, grouped into members and into as few programs as possible. Imports no JAX."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping

from cnnjax.models.ladder import layers_of
from cnnjax.study.axes import where_it_matters
from cnnjax.study.hparams import Static
from cnnjax.study.schema import Study
from cnnjax.study.search import axis_values, draw, fixed, search_space
from cnnjax.study.trials import Trial, axes_of, expand_grid, hparams_used, list_trials
from cnnjax.utils.errors import RequestError

MOST_DECAYS = 8  # of averaged weights in one training
_PROBES = 64  # configurations of a search space


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
    grid = expand_grid(study)
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
        raise RequestError(axis, study.ranges.get(axis, axes_of(study)[axis]), problem)


def _unread_by_search(study: Study) -> Iterator[str]:
    """Yields the axes of a search space whose values have no effect on any configuration."""
    if study.search.method == "grid":
        return
    grids = [fixed(study, values) for values in draw(study, _PROBES)]  # more than a short search draws
    for key in (key for one in search_space(study) for key in one.keys):
        values = axis_values(study, key)
        if not any(len({hparams_used(fixed(grid, {key: value})) for value in values}) > 1 for grid in grids):
            yield key
