"""Pages, figures and tables of a run, from its files alone. Imports no jax."""

from cnnjax.report.build import build_report
from cnnjax.report.markdown import summarize_run

__all__ = ["build_report", "summarize_run"]
