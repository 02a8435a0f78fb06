"""python -m cnnjax.report WORKDIR: builds the report of a run again, from its files alone."""

import sys
from pathlib import Path

from cnnjax.report import build_report
from cnnjax.types import RequestError


def main(arguments: list[str]) -> int:
    """Builds the report of the run folder named by the one argument; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        wants_help = arguments in (["-h"], ["--help"])
        stream = sys.stdout if wants_help else sys.stderr
        print("usage: python -m cnnjax.report WORKDIR", file=stream)
        return 0 if wants_help else 2
    try:
        print(build_report(Path(arguments[0])))
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
