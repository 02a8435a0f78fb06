"""Whether a study continues or grows the run in a folder. Imports no jax."""

from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import list_trials
from cnnjax.study.schema import Study, from_config
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
    found = differences({**there, "code": {}}, {**study.to_dict(), "code": {}})
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
