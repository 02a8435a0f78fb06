"""Tables, figures and one page of a study, from the files of its run alone. Imports no jax."""

from cnnjax.report.markdown import summarise_run
from cnnjax.report.page import build_report

__all__ = ["build_report", "summarise_run"]
