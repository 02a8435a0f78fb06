"""Whether a study continues or grows the run in a folder, and the looks at a run that grows. Imports no jax."""

import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from cnnjax import stats
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import Plan
from cnnjax.study.schema import Study, from_config
from cnnjax.study.trials import Trial, list_trials
from cnnjax.study.validation import axis_keys
from cnnjax.utils.errors import RequestError
from cnnjax.utils.tree import differences

_GROWING = {"asked", "search.trials", "seeds"}


def check_folder(folder: RunFolder, study: Study, overwrite: bool) -> bool:
    """Returns whether the folder is cleared first. Raises RequestError if its study differs in more than axes."""
    if overwrite:
        return folder.check_overwritable()
    found = folder.read_config()
    if found is None:
        return False
    try:
        there = from_config(found).to_dict()
    except RequestError as error:
        raise RequestError("workdir", str(folder.path), f"its config.json is not a valid study ({error})") from error
    folder.check_version()
    # What an adaptive search has decided holds for its search space only.
    axes = {*axis_keys(Study), "asked", "search.trials"} if not study.search.is_adaptive else _GROWING
    apart: dict[str, Any] = {"code": {}, "added": {}}
    found = differences({**there, **apart}, {**study.to_dict(), **apart})
    found = {k: pair for k, pair in found.items() if k not in axes and not k.startswith("train.optimizer_args.")}
    if "sha256" in (folder.read_if_intact("data.json") or {}):
        found.pop("data.path", None)  # the data may have moved; its fingerprint is compared when it is read
    differing = [f"{key} ({theirs!r} there, {ours!r} here)" for key, (theirs, ours) in found.items()]
    if differing:
        of_data = ", ".join(sorted(key for key in axes if key.startswith("data.")))
        raise RequestError(
            "workdir",
            str(folder.path),
            f"it holds another study, which differs in {', '.join(differing)}; only axes may have other values "
            f"(models, seeds, {of_data}, streams, train without its stages): choose another folder, or --overwrite it",
        )
    folder.check_networks(study.models)
    folder.check_code(study.code)
    return False


def earlier_studies(folder: RunFolder, study: Study) -> list[Study]:
    """Returns the studies that the run was asked for before and that have trials which this study lacks."""
    newest = folder.read_config()
    if newest is None:
        return []
    others = [past for config in (*folder.read_earlier(), newest) if (past := from_config(config)) != study]
    if not others:
        return []
    asked = {trial.id for trial in list_trials(study)}
    return [past for past in others if any(trial.id not in asked for trial in list_trials(past))]


def check_repeatable(study: Study, flag: str) -> None:
    """Raises RequestError, for a flag, if another seed would not give another trial of the same configuration."""
    streams = vars(study.streams)
    for name, values in streams.items():
        if len(values) > 1:
            raise RequestError(f"streams.{name}", values, f"{flag} needs one value of each stream")
    if None not in {value for values in streams.values() for value in values}:
        raise RequestError("streams", streams, f"{flag} needs a stream that follows the seed (None)")


def with_added_seeds(folder: RunFolder, study: Study) -> Study:
    """Returns the study with the seeds that were added to single configurations of the run."""
    found = folder.read_config()
    return study if found is None else dataclasses.replace(study, added=from_config(found).added)


def count_seeds(trials: Iterable[Trial], finished: Collection[str]) -> dict[str, int]:
    """Returns the number of finished seeds of each configuration that has any, by its first finished trial."""
    seeds = defaultdict[Any, dict[str, int]](dict)
    for trial in trials:
        if trial.id in finished:
            seeds[trial.static, trial.stages][trial.id] = trial.seed
    return {next(iter(of)): len({*of.values()}) for of in seeds.values()}


def make_look(seeds: dict[str, int], share: float) -> dict[str, Any]:
    """Returns the record of a look at a study: when, the seeds of each configuration, and its share of the risk."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"at": now, "seeds": seeds, "share": share}


def looks_so_far(folder: RunFolder, plan: Plan, planned: bool) -> list[dict[str, Any]] | None:
    """Returns the looks at a run before its plan is trained; None if none was planned or has been.

    Whoever adds seeds to configurations that have at least two has looked at them: that look, if it is not recorded
    yet, is added here. So is that of a run which is finished when looks are planned for the first time.

    Args:
        folder: the run's folder.
        plan: the plan of the study with its new seeds.
        planned: whether looks are planned: `--until=decided`.
    """
    looks = folder.read_looks()
    before = (folder.read_if_intact("plan.json") or {}).get("trial_ids", ())
    trials = {trial.id: trial for member in plan.members.values() for trial in member.trials}
    seeds = count_seeds((trials[name] for name in before if name in trials), folder.read_trials())
    has_two = {(trials[name].static, trials[name].stages) for name, count in seeds.items() if count > 1}
    known = {*before}
    grows = any((t.static, t.stages) in has_two and t.id not in known for t in plan.trials)
    is_first_plan = planned and looks is None and has_two
    if (grows or is_first_plan) and not (looks and looks[-1]["seeds"] == seeds):
        spent = sum(look["share"] for look in looks or ())
        return [*(looks or ()), make_look(seeds, stats.share_of_unplanned_look(spent))]
    return [] if planned and looks is None else looks
