"""The summary of a run as HTML, for the output of a notebook's cell."""

from cnnjax.analysis.evidence import weigh
from cnnjax.analysis.run import Run
from cnnjax.report.html import environment
from cnnjax.report.sections import headline
from cnnjax.report.sections.ranking import ranking
from cnnjax.utils.text import counted

_ROWS = 5  # of the ranking, at most


def summary_html(run: Run, page: str) -> str:
    """Returns the answer, the first rows of the ranking and where the report is, as an element without scripts.

    Args:
        run: the run.
        page: where the report is, in words.
    """
    evidence = weigh(run)
    table = None if evidence is None or run.crossed else ranking(run, evidence)
    trials = f"{len(run.trials)} of {counted(run.planned, 'trial')} finished"
    trials += f", {run.diverged} diverged" if run.diverged else ""
    more = 0 if table is None else max(len(table.frame) - _ROWS, 0)
    answer, _ = headline.text(run)
    return (
        environment()
        .get_template("notebook.html")
        .render(answer=answer, table=table, rows=_ROWS, more=more, trials=trials, page=page)
    )
