"""Studies of small image classifiers: whole multi-seed grids trained as a few compiled programs.

`load_results` is the table of a run's trials, `load_trial` the network of one of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnjax.runs.trials_csv import load_results
    from cnnjax.training.load import load_trial

__version__ = "0.1.0"
__all__ = ["load_results", "load_trial"]


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    if name == "load_results":  # not imported before it is asked for: numpy takes its time
        from cnnjax.runs.remote import LARGE, reads
        from cnnjax.runs.trials_csv import load_results

        return reads(load_results, without=LARGE)
    if name == "load_trial":  # jax even more
        from cnnjax.runs.remote import reads
        from cnnjax.training.load import load_trial

        return reads(load_trial)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
