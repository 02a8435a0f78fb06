"""Pages, figures and tables of a run, from its files alone. Imports no jax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnjax.report.build import build_report
    from cnnjax.report.markdown import summarize_run

__all__ = ["build_report", "summarize_run"]


def __getattr__(name: str) -> Any:
    # Nothing is imported before it is asked for: `python -m cnnjax.report --help` needs no pandas.
    if name == "build_report":
        from cnnjax.report.build import build_report

        return build_report
    if name == "summarize_run":
        from cnnjax.report.markdown import summarize_run

        return summarize_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
