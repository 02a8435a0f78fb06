"""Builds the report of a run from its files.

python -m cnnjax.report runs/grid                      # tables, figures and the page, in runs/grid/report
python -m cnnjax.report runs/grid --format=markdown    # prints a summary for a README or a pull request
python -m cnnjax.report runs/grid --select=val_loss    # ranked by another measure
python -m cnnjax.report s3://BUCKET/runs/grid          # of a run in a store; uploads the report
"""

import argparse

from cnnjax.runs import remote
from cnnjax.utils import cli


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line; `argv[0]` is the program.

    Raises:
        RequestError: an argument is invalid.
    """
    parser = cli.ArgumentParser(
        prog="python -m cnnjax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_workdir()
    parser.add_argument("--select", help="rank the configurations by this measure (default: the study's own)")
    parser.add_argument("--format", choices=("html", "markdown"), default="html", help="html (default) or markdown")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Builds the report, or prints its summary.

    Raises:
        RequestError: the run cannot be read.
    """
    from cnnjax.report import build_report, summarize_run

    workdir = remote.copied(arguments.workdir, without=remote.LARGE)
    if arguments.format == "markdown":
        print(summarize_run(workdir, arguments.select))
        return
    page = build_report(workdir, arguments.select)
    if remote.is_url(arguments.workdir):
        remote.upload(arguments.workdir, "report")
    print(page)


if __name__ == "__main__":
    cli.run(main, parse)
