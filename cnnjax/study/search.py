"""How a study searches: the keys of `search`, their checks, and the configurations that a study asks for. No JAX."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.study.hparams import HPARAMS
from cnnjax.study.optimizers import ArgumentAxes, arguments_of, combinations, readable, spec_of
from cnnjax.study.ranges import Range, read_range
from cnnjax.study.rules import Rule, choice, integer, none_or
from cnnjax.study.schedules import has_horizon
from cnnjax.study.validation import single
from cnnjax.utils.errors import RequestError

if TYPE_CHECKING:
    from cnnjax.study.schema import Study

MOST_CONFIGURATIONS = 100_000
SEQUENCES = ("random", "sobol")  # their configurations are known before training
ARGUMENTS = "train.optimizer_args"  # a mapping of axes
ADAPTIVE = ("halving", "optuna")  # results decide which configurations come next
_SAMPLER = Rule(lambda v: isinstance(v, str) and v.isidentifier(), "must be the name of a sampler of Optuna")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Which configurations are trained: all combinations of a grid, or some of a search space."""

    method: str = single(
        "grid",
        choice("grid", *SEQUENCES, *ADAPTIVE),
        "`grid` trains all combinations of the axes. Otherwise each configuration has one value of each axis, drawn at "
        "`random`, by a scrambled `sobol` sequence, or by a sampler of `optuna`; `halving` draws by `sobol` and trains "
        "only the best of them for more epochs. See [search](../docs/how-to/search.md).",
    )
    trials: int = single(16, integer(1, MOST_CONFIGURATIONS), "Number of configurations of a search.")
    seed: int = single(0, integer(0, 2**32 - 1), "Seed of the search.")
    programs: int = single(
        8,
        integer(1, 1000),
        "The most programs of a search: if models, batch sizes and other hyperparameters that are compiled separately "
        "have more combinations, this number of them is drawn from.",
    )
    factor: int = single(3, integer(2, 100), "Halving: one configuration in this number goes on to the next rung.")
    rungs: int | None = single(
        None,
        none_or(integer(1, 50)),
        "Halving: number of rungs. The last one trains `train.epochs` epochs, the one before 1/`search.factor` of "
        "them, and so on; None for as many as there are.",
    )
    brackets: int = single(
        1,
        integer(1, 50),
        "Halving: number of Hyperband's brackets. The first one starts at the first rung, the second at the second.",
    )
    sampler: str = single("TPESampler", _SAMPLER, "Optuna: class name of the sampler.")
    batch: int = single(16, integer(1, MOST_CONFIGURATIONS), "Optuna: number of configurations that train together.")

    @property
    def is_adaptive(self) -> bool:
        """Whether results decide which configurations come next."""
        return self.method in ADAPTIVE


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One dimension of a search space.

    Attributes:
        keys: the axis that it sets, or all axes that are compiled separately, together.
        values: a range, or for each choice the values of the keys.
    """

    keys: tuple[str, ...]
    values: Range | tuple[tuple, ...]

    def at(self, u: float) -> dict[str, Any]:
        """Returns the values of the keys at a quantile, 0 <= u < 1."""
        if isinstance(self.values, Range):
            return {self.keys[0]: self.values.at(u)}
        return self.choose(int(u * len(self.values)))

    def choose(self, number: int) -> dict[str, Any]:
        """Returns the values of the keys of a choice."""
        assert not isinstance(self.values, Range)
        return dict(zip(self.keys, self.values[number], strict=True))


def search_space(study: "Study") -> tuple[Dimension, ...]:
    """Returns the dimensions of a study's search space: axes with several values, or a range.

    Axes that are compiled separately become one dimension if they have more combinations than `search.programs`. It
    has that number of combinations, with each value as often as the others.
    """
    static: list[Dimension] = []
    others: list[Dimension] = []
    hparams = {h.key: axis_values(study, h.key) for h in HPARAMS if not h.is_repeat}
    compiled = {"models", *(h.key for h in HPARAMS if h.static)}
    arguments = combinations(study.train.optimizer_args)
    if any(len({spec_of(name, arguments_of(name, of)) for of in arguments}) > 1 for name in study.train.optimizer):
        compiled.add(ARGUMENTS)  # one of them is compiled
    for key, values in {"models": study.models, **hparams}.items():
        read = read_range(key, study.ranges[key]) if key in study.ranges else None
        if isinstance(read, Range) and key not in compiled:
            others.append(Dimension((key,), read))
        elif len(values) > 1:
            (static if key in compiled else others).append(Dimension((key,), tuple((value,) for value in values)))
    most = study.search.programs
    if math.prod(len(one.values) for one in static if not isinstance(one.values, Range)) > most:
        random = np.random.default_rng([study.search.seed, most])
        rows = zip(*(_spread(one, most, random) for one in static), strict=True)
        static = [Dimension(tuple(one.keys[0] for one in static), tuple(dict.fromkeys(rows)))]
    return (*static, *others)


def axis_values(study: "Study", key: str) -> tuple:
    """Returns the values of an axis as a search asks for them: as stored, of a mapping of axes all combinations."""
    group, _, name = key.rpartition(".")
    stored = getattr(getattr(study, group) if group else study, name)
    return combinations(stored) if isinstance(stored, ArgumentAxes) else stored


def _spread(dimension: Dimension, count: int, random: np.random.Generator) -> list:
    """Returns `count` values of a dimension of one axis in random order, each as often as the others."""
    assert not isinstance(dimension.values, Range)
    order = random.permutation(len(dimension.values))
    places = random.permutation(np.resize(order, count))
    return [dimension.values[place][0] for place in places]


@lru_cache(16)
def quantiles(method: str, dimensions: int, seed: int, count: int) -> np.ndarray:
    """Returns the first points of the unit cube [count, dimensions] of a sequence that has no end."""
    if method == "random":
        return np.random.default_rng(seed).random((count, dimensions))
    from scipy.stats import qmc  # takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about numbers that are no powers of two: a search may have any number
        return qmc.Sobol(dimensions, scramble=True, seed=seed).random(count)


def draw(study: "Study", count: int | None = None) -> list[dict[str, Any]]:
    """Returns the first configurations of a study's sequence: the values of each axis of the search space by key.

    Args:
        study: the study; `halving` draws by `sobol`.
        count: how many; by default `search.trials`.
    """
    space = search_space(study)
    method = "random" if study.search.method == "random" else "sobol"
    points = quantiles(method, len(space), study.search.seed, count or study.search.trials)
    return [
        {key: value for one, u in zip(space, point, strict=True) for key, value in one.at(float(u)).items()}
        for point in points
    ]


def configurations(study: "Study") -> Iterator["Study"]:
    """Yields a grid for each configuration of a search, with its seeds; a study that does not search as it is."""
    if study.search.method == "grid":
        yield study
        return
    yield from (fixed(study, values) for values in study.asked or first_asked(study))


def first_asked(study: "Study") -> list[dict[str, Any]]:
    """Returns the configurations that a search asks for before any has a result."""
    if study.search.method in SEQUENCES:
        return draw(study)
    if study.search.method == "halving":
        from cnnjax.study.halving import first_rungs

        return first_rungs(study)
    return draw(study, min(study.search.batch, study.search.trials))  # Optuna draws other ones, as many


def fixed(study: "Study", values: Mapping[str, Any]) -> "Study":
    """Returns a study without a search that has these values of its axes, by dotted key; `seeds` are several."""
    groups: dict[str, dict[str, Any]] = {"": {"seeds": tuple(values.get("seeds", study.seeds))}}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        if key != "seeds":
            axis = ArgumentAxes({n: (v,) for n, v in value}) if key == ARGUMENTS else (as_tuple(value),)
            groups.setdefault(group, {})[name] = axis
    changed: dict[str, Any] = groups.pop("")
    for group, fields in groups.items():
        changed[group] = dataclasses.replace(getattr(study, group), **fields)
    return dataclasses.replace(study, **changed, search=SearchConfig(), ranges={}, asked=())


def default_configuration(study: "Study") -> "Study":
    """Returns a study of one configuration that has the default values of the axes that a search sets.

    The model is the first of the study, and the number of epochs the largest.
    """
    defaults: dict[str, Any] = {"models": study.models[0], "train.epochs": max(study.train.epochs)}
    searched = {key for one in search_space(study) for key in one.keys}
    for h in HPARAMS:
        if h.key in searched and h.name != "epochs":
            defaults[h.key] = () if h.key == ARGUMENTS else (h.read(h.key, h.default) if h.read else (h.default,))[0]
    found = fixed(study, defaults)
    return dataclasses.replace(found, train=readable(found.train))


def as_tuple(value: Any) -> Any:
    """Returns a value read from JSON as it was asked for: lists, also those in lists, become tuples."""
    return tuple(map(as_tuple, value)) if isinstance(value, list | tuple) else value


def check_search(study: "Study") -> None:
    """Raises RequestError if the keys of `search` do not fit the study."""
    search = study.search
    if search.method == "grid":
        for key, text in study.ranges.items():
            raise RequestError(key, text, "a range needs a search; use values, or search.method='random'")
        for name, value in vars(search).items():
            if value != getattr(SearchConfig, name):
                raise RequestError(f"search.{name}", value, "a grid does not search; use search.method='random'")
        return
    if not search_space(study):
        raise RequestError("search.method", search.method, "there is nothing to search; give an axis a range or values")
    if search.method == "halving":
        _check_halving(study)


def _check_halving(study: "Study") -> None:
    search, train = study.search, study.train
    most = most_rungs(train.epochs[0], search.factor)
    rungs = search.rungs or most
    several = len(train.epochs) > 1
    horizon = next(filter(has_horizon, train.schedule), None)
    for is_wrong, key, value, problem in (
        (
            train.epochs[0] % 1 > 0,
            "train.epochs",
            train.epochs[0],
            "halving continues whole epochs; use a whole number",
        ),
        (
            not study.data.has_validation,
            "search.method",
            "halving",
            "needs a validation split; set data.validation",
        ),
        (
            not study.select.startswith("val_"),
            "select",
            study.select,
            "it must be of validation; use val_accuracy",
        ),
        (several, "train.epochs", train.epochs, "halving decides the number of epochs; use the largest"),
        (bool(train.stages), "train.stages", train.stages, "halving cannot continue several stages; use one"),
        (
            horizon,
            "train.schedule",
            horizon,
            "it fixes the number of epochs, and halving changes it; use another",
        ),
        (rungs > most, "search.rungs", rungs, f"{train.epochs[0]} epochs have {most} rungs; use at most {most}"),
        (search.brackets > rungs, "search.brackets", search.brackets, f"there are {rungs} rungs; use at most {rungs}"),
    ):
        if is_wrong:
            raise RequestError(key, value, problem)


def most_rungs(epochs: int, factor: int) -> int:
    """Returns the number of rungs, of which each trains `factor` times the epochs of the one before."""
    return next(rungs for rungs in itertools.count(1) if factor**rungs > epochs)
