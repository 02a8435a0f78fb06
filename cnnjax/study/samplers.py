"""Searches by the samplers of Optuna, by ask and tell. One ask fills a population. Imports optuna where it is used.

Each batch of configurations is drawn by a new sampler, which is told all results so far and has a seed of its own. So
the batch depends only on the records of the run: no storage of Optuna's is needed to resume.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.study.ranges import Range
from cnnjax.study.search import Dimension, as_tuple, search_space
from cnnjax.utils.errors import RequestError, nearest

if TYPE_CHECKING:
    from cnnjax.study.schema import Study

# They keep what they have drawn in Optuna's storage, or need arguments.
_OTHERS = {"QMCSampler": "sobol", "GridSampler": "grid", "BruteForceSampler": "grid", "PartialFixedSampler": "random"}


def ask(study: "Study", asked: Sequence[Mapping[str, Any]], scores: Sequence[float | None]) -> list[dict[str, Any]]:
    """Returns the next batch of configurations: the values of each axis of the search space by key.

    Args:
        study: the study.
        asked: the configurations that were asked before.
        scores: their results, larger is better; None if a configuration diverged.

    Raises:
        RequestError: Optuna is not installed, or it has no such sampler.
    """
    count = min(study.search.batch, study.search.trials - len(asked))
    if count <= 0:
        return []
    space = search_space(study)
    optuna = _optuna()
    distributions = {_name(one): _distribution(optuna, one) for one in space}
    seed = np.random.SeedSequence([study.search.seed, len(asked)]).generate_state(1)[0]
    teller = optuna.create_study(direction="maximize", sampler=_sampler(optuna, study.search.sampler, int(seed)))
    for values, score in zip(asked, scores, strict=True):
        params = {_name(one): _param(one, values) for one in space}
        told = optuna.trial.create_trial(
            params=params, distributions=distributions, value=-np.inf if score is None else score
        )
        teller.add_trial(told)
    drawn = [teller.ask(distributions).params for _ in range(count)]
    return [_values(space, params) for params in drawn]


def check_optuna(study: "Study") -> None:
    """Raises RequestError if Optuna is not installed, or has no such sampler."""
    _sampler(_optuna(), study.search.sampler, 0)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise RequestError("search.method", "optuna", "Optuna is missing; pip install 'cnnjax[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    names = [one for one in dir(optuna.samplers) if one.endswith("Sampler") and one not in (*_OTHERS, "BaseSampler")]
    if name in _OTHERS:
        raise RequestError("search.sampler", name, f"it does not fit; use search.method={_OTHERS[name]!r}")
    if name not in names:
        near = nearest(name, names)
        problem = (
            f"Optuna has no such sampler; {f'did you mean {near}? U' if near else 'u'}se one of {', '.join(names)}"
        )
        raise RequestError("search.sampler", name, problem)
    try:
        return getattr(optuna.samplers, name)(seed=seed)
    except ImportError as error:
        raise RequestError("search.sampler", name, f"it needs a package: {str(error).splitlines()[0]}") from error


def _name(dimension: Dimension) -> str:
    return "+".join(dimension.keys)


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    values, of = dimension.values, optuna.distributions
    if not isinstance(values, Range):
        return of.CategoricalDistribution(range(len(values)))
    if values.is_int:
        return of.IntDistribution(int(values.low), int(values.high), log=values.is_log)
    return of.FloatDistribution(values.low, values.high, log=values.is_log)


def _param(dimension: Dimension, values: Mapping[str, Any]) -> Any:
    if isinstance(dimension.values, Range):
        return values[dimension.keys[0]]
    return dimension.values.index(tuple(as_tuple(values[key]) for key in dimension.keys))


def _values(space: Sequence[Dimension], params: Mapping[str, Any]) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for one in space:
        param = params[_name(one)]
        drawn |= {one.keys[0]: one.values.rounded(param)} if isinstance(one.values, Range) else one.choose(param)
    return drawn
