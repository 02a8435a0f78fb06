"""`python -m cnnjax.launch` without the report: for tests of what a run writes before it."""

import contextlib

from cnnjax import launch
from cnnjax.utils import cli

if __name__ == "__main__":
    launch.report_process = lambda: contextlib.nullcontext(lambda workdir: workdir)
    cli.run(launch.main)
