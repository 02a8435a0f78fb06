"""The trials of a study: the points of its grid that train differently. Imports no JAX."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Hashable
from typing import Any, NamedTuple

from cnnjax.study.axes import digest, stage_content, static_content, used_by_training
from cnnjax.study.hparams import HPARAMS, STATIC, TRACED, Stage, Static, Streams, Traced
from cnnjax.study.optimizers import KEYS, OWN, arguments_of, readable, row_of
from cnnjax.study.schedules import read_plateau
from cnnjax.study.schema import Study
from cnnjax.study.search import configurations, search_space
from cnnjax.utils.errors import RequestError

MOST_TRIALS = 100_000


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


def list_trials(study: Study) -> tuple[Trial, ...]:
    """Returns the trials of a study in the order of its grid: models are the outermost axis, seeds the innermost.

    If points of the grid differ only in hyperparameters without effect (the momentum of Adam, the dropout rate of a
    model without dropout), only the first of them is a trial.

    Raises:
        RequestError: the grid is too large.
    """
    return expand_grid(study).trials


def configuration_id(trial: Trial) -> str:
    """Returns a hash of what the training of a trial uses, without its seed and streams."""
    return digest(stage_content(trial.static, trial.stages)[0])


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


class Grid(NamedTuple):
    """The trials of a grid. `repeats` and `unread` are as in `Plan`."""

    trials: tuple[Trial, ...]
    repeats: dict[str, int]
    unread: tuple[str, ...]


def expand_grid(study: Study) -> Grid:
    """Returns the trials of the grid of a study, see `list_trials`, and what of the grid is no trial."""
    known: dict[Hashable, int] = {}  # number of each combination of used hyperparameters
    found: dict[Hashable, tuple[tuple, Trial]] = {}  # the first point of the grid, by what training uses
    repeats: Counter[str] = Counter()
    inner = 1 + len(vars(study.streams))
    _check_count(study)
    for grid, axes in ((grid, axes_of(grid)) for grid in configurations(study)):
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
    return Grid(
        trials=tuple(trial for _, trial in found.values()),
        repeats=dict(repeats),
        unread=tuple(
            axis
            for place, (axis, given) in enumerate(axes_of(study).items())
            if study.search.method == "grid"
            and len(given) > 1
            and all(values[place] == given[0] for values, _ in found.values())
        ),
    )


def axes_of(study: Study) -> dict[str, tuple]:
    """Returns the axes of the grid of a study, the outermost first."""
    hparams = {h.key: h.values(study) for h in HPARAMS}
    of_streams = {f"streams.{name}": values for name, values in vars(study.streams).items()}
    return {"models": study.models, **hparams, **of_streams, "seeds": study.seeds}


def hparams_used(grid: Study) -> Hashable:
    """Returns the hyperparameters that training uses in a grid of one configuration."""
    axes = axes_of(grid)
    values = (axes[key][0] for key in ("models", *(h.key for h in HPARAMS)))
    return used_by_training(*_compiled_and_stages(grid, *values))[0]


def _check_count(study: Study) -> None:
    axes = axes_of(study)
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
