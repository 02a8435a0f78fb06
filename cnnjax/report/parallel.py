"""The tables and figures of a page's sections, by one process for each core where a fork is safe."""

import concurrent.futures
import gc
import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from cnnjax.analysis.evidence import weigh
from cnnjax.analysis.run import Run
from cnnjax.multihost import processes
from cnnjax.report.tables import Table
from cnnjax.report.theme import Plot

_run: Run | None = None  # of a forked process


class Section(Protocol):
    """A module of `report.sections`."""

    def tables(self, run: Run) -> list[Table]:
        """Returns the tables that the run has data for."""

    def figures(self, run: Run) -> list[Plot]:
        """Draws the figures that the run has data for."""


def build_sections(
    run: Run, sections: Sequence[Section], slow: Sequence[Section] = ()
) -> list[tuple[list[Table], list[Plot]]]:
    """Returns the tables and figures of each section.

    On Linux, forked processes share the work. If JAX is imported, this process does all of it: a fork does not copy the
    threads of JAX, so a lock that one of them holds would stay locked.

    Args:
        run: the run.
        sections: in the order of the result.
        slow: those to start first, so that no process is left with one at the end.
    """
    cores = processes.usable_cores() if sys.platform == "linux" else 1
    if cores == 1 or "jax" in sys.modules:
        return [(section.tables(run), section.figures(run)) for section in sections]
    import matplotlib.backends.backend_agg  # once, before the fork
    import matplotlib.backends.backend_svg  # noqa: F401

    weigh(run)  # most sections need it
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(min(cores, len(sections)), fork, _start, (run,)) as pool:
        order = dict.fromkeys([*slow, *sections])
        found = {section: pool.submit(_build, section.tables, section.figures) for section in order}
        return [found[section].result() for section in sections]


def _start(run: Run) -> None:
    global _run
    _run = run
    gc.freeze()  # what the first process made is not garbage
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # the first process says that it was interrupted


def _build(
    tables: Callable[[Run], list[Table]], figures: Callable[[Run], list[Plot]]
) -> tuple[list[Table], list[Plot]]:
    assert _run is not None
    return tables(_run), figures(_run)
