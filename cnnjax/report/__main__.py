"""Builds the report of a run again, from its files alone.

python -m cnnjax.report runs/grid                      # tables, figures and the page, in runs/grid/report
python -m cnnjax.report runs/grid --format=markdown    # prints a summary for a README or a pull request
"""

import argparse
import sys
from pathlib import Path

from cnnjax.commands import ArgumentParser
from cnnjax.report import build_report, summarise_run
from cnnjax.sealed import unwritable
from cnnjax.types import RequestError


def main(arguments: list[str]) -> int:
    """Builds or prints the report that the command line names; returns the exit code."""
    parser = ArgumentParser(
        prog="python -m cnnjax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", type=Path, help="the run's folder")
    parser.add_argument("--format", choices=("html", "markdown"), default="html", help="html (default) or markdown")
    try:
        given = parser.parse_args(arguments)
        print(build_report(given.workdir) if given.format == "html" else summarise_run(given.workdir))
    except RequestError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        if (said := unwritable(error)) is None:
            raise
        print(said, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
