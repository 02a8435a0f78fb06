"""`python -m cnnjax.launch` without the report: for tests of what a run writes before it."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from cnnjax import launch
from cnnjax.utils import cli


def no_report_process() -> contextlib.AbstractContextManager[Callable[[Path], Path]]:
    """Takes the place of `report_process`: its function builds no report."""
    return contextlib.nullcontext(lambda workdir: workdir)


if __name__ == "__main__":
    launch.report_process = no_report_process
    cli.run(launch.main)
