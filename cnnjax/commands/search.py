"""An adaptive search in a run's folder: what it asks for next, given the results. Imports no jax.

The configurations that a search has asked for are in config.json, as the key `asked`. Decisions depend only on the
trials' records, so that a search that is killed anywhere and resumed asks for the same. search.jsonl lists them.
"""

import math
from typing import Any

from cnnjax import stats
from cnnjax.multihost import processes
from cnnjax.runs.integrity import json_lines, read_lines, replaced
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study import halving, samplers
from cnnjax.study.metrics import metric_of
from cnnjax.study.schema import Study, from_config
from cnnjax.study.search import first_asked, fixed
from cnnjax.study.trials import list_trials
from cnnjax.utils.tree import finite

FILE = "search.jsonl"


def resume(study: Study, folder: RunFolder, is_new: bool) -> Study:
    """Returns a study with the configurations that its adaptive search has asked for in a folder, or asks for first.

    Other studies stay as they are.

    Args:
        study: the study.
        folder: the run's folder.
        is_new: whether the search starts anew there.

    Raises:
        RequestError: Optuna is not installed, or has no such sampler.
    """
    if not study.search.is_adaptive:
        return study
    if study.search.method == "optuna":
        samplers.check_optuna(study)
    stored = None if is_new else folder.read_config()
    asked = [dict(one) for one in (() if stored is None else from_config(stored).asked)]
    if study.search.method == "halving":
        asked += first_asked(study)[len(asked) :]
    elif not asked:
        asked = samplers.ask(study, [], [])
    return _asking(study, asked)


def with_next(study: Study, folder: RunFolder) -> Study:
    """Returns a study with the configurations that its adaptive search asks for, given the results so far.

    It is the same study if nothing is left to ask for. Appends new decisions to search.jsonl.
    """
    if not study.search.is_adaptive:
        return study
    return _asking(study, processes.broadcast_from_process0(lambda: _next(study, RunFolder(folder.path))))


def _next(study: Study, folder: RunFolder) -> list[dict[str, Any]]:
    asked = [dict(one) for one in study.asked]
    results = _Results(study, folder)
    if study.search.method == "optuna":
        scores = [results.mean(one) for one in asked]
        new = samplers.ask(study, asked, scores)
        told = {"rule": "optuna", "sampler": study.search.sampler, "told": len(asked), "scores": scores}
        _record(folder, [told | {"asked": new}] if new else [])
        return [*asked, *new]
    after, decisions = halving.promote(study, asked, results.score)
    if after == asked and len(study.seeds) > 1:
        after, more = halving.race(study, asked, results.score, lambda scores: _judge(study, scores))
        decisions += more
    _record(folder, decisions)
    return after


def _asking(study: Study, asked: list[dict[str, Any]]) -> Study:
    """Returns a study with these configurations, in the form in which config.json gives them back."""
    return from_config(study.to_dict() | {"asked": asked})


class _Results:
    """The scores of configurations by the study's measure: larger is better."""

    def __init__(self, study: Study, folder: RunFolder):
        self._study, self._rows = study, folder.read_trials()
        self._sign = 1 if metric_of(study.select).larger_is_better else -1

    def mean(self, asked: dict[str, Any]) -> float | None:
        """Returns the mean over the trials of a configuration; None if one diverged or has no result."""
        score = self.score(asked)
        return None if score is None or math.isinf(score) else score

    def score(self, asked: dict[str, Any]) -> float | None:
        """Returns the mean over the trials of a configuration; None without a result, -inf if one diverged."""
        rows = [self._rows.get(trial.id) for trial in list_trials(fixed(self._study, asked))]
        values = [None if row is None else row.get(self._study.select, -math.inf * self._sign) for row in rows]
        if None in values:
            return None
        scores = [self._sign * float(value) for value in values]  # type: ignore[arg-type]
        return -math.inf if any(map(math.isnan, scores)) else sum(scores) / len(scores)


def _judge(study: Study, scores: halving.Scores) -> halving.Standing:
    """Returns how a race stands, given its scores. If all configurations diverged, the first one is left."""
    trained = {number: of for number, of in scores.items() if all(map(math.isfinite, of.values()))}
    if len(trained) < 2:
        return halving.Standing({*trained} or {min(scores)}, 1.0)
    ranks = stats.rank(trained, most=metric_of(study.select).most)
    left = [rank for rank in ranks if rank.may_be_best]
    powers = [rank.against.power(len(study.seeds)) for rank in left if rank.against is not None]
    return halving.Standing({rank.name for rank in left}, max(powers, default=1.0))  # type: ignore[misc]


def _record(folder: RunFolder, decisions: list[dict[str, Any]]) -> None:
    """Appends the decisions that search.jsonl lacks."""
    file = folder.path / FILE
    there = read_lines(file).intact if file.exists() else []
    new = [line for line in map(finite, decisions) if line not in there]
    if new:
        with replaced(file) as view:
            view.write(json_lines([*there, *new]))
