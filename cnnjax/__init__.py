"""Studies of small image classifiers: whole multi-seed grids trained as a few compiled programs.

`run` trains a study, `open_run` opens a run, `compare_runs` compares two. `load_results` is the table of a run's
trials, `load_trial` the network of one of them. A request that cannot be met raises `RequestError`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnjax.commands.api import compare_runs, open_run, run
    from cnnjax.runs.trials_csv import load_results
    from cnnjax.training.load import load_trial
    from cnnjax.utils.errors import RequestError

__version__ = "0.1.0"
__all__ = ["RequestError", "compare_runs", "load_results", "load_trial", "open_run", "run"]


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    # Nothing is imported before it is asked for: numpy takes its time, and jax even more.
    if name == "RequestError":
        from cnnjax.utils.errors import RequestError

        return RequestError
    if name in ("compare_runs", "open_run", "run"):
        from cnnjax.commands import api

        return getattr(api, name)
    if name == "load_results":
        from cnnjax.runs.remote import LARGE, reads
        from cnnjax.runs.trials_csv import load_results

        return reads(load_results, without=LARGE)
    if name == "load_trial":
        from cnnjax.runs.remote import reads
        from cnnjax.training.load import load_trial

        return reads(load_trial)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
