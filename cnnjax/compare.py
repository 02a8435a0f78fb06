"""Compares two configurations, A and B, from the files of their runs.

    python -m cnnjax.compare runs/a runs/b
    python -m cnnjax.compare runs/grid:model=baseline runs/grid:model=complex --margin=0.005
    python -m cnnjax.compare runs/a:trial=t3f9 runs/b:learning_rate=0.01,optimizer=sgd --measure=test_loss

Each side is the folder or URL of a run. After a colon, values of columns of its trials.csv select trials; the beginning
of a trial's ID is enough. The best configuration of these trials by the run's `select` is compared, over all its seeds.
"""

import argparse

from cnnjax.utils import cli


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line; `argv[0]` is the program.

    Raises:
        RequestError: an argument is invalid.
    """
    parser = cli.ArgumentParser(
        prog="python -m cnnjax.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", help="RUN or RUN:key=value,...")
    parser.add_argument("b", help="the other side, in the same form")
    measure = "a column of trials.csv (default: the `select` of both runs, or test_accuracy if they differ)"
    parser.add_argument("--measure", help=measure)
    parser.add_argument(
        "--margin", type=float, help="the largest difference that does not matter, in the unit of the measure: 0.005"
    )
    parser.add_argument("--format", default="text", choices=("text", "markdown", "json"))
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Prints the comparison.

    Raises:
        RequestError: a side cannot be read, or the sides cannot be compared.
    """
    from cnnjax.analysis import compare  # imports pandas: check the command line first

    a, b = compare.read_side(arguments.a), compare.read_side(arguments.b)
    evidence = compare.compare_configurations(a, b, arguments.measure, arguments.margin)
    print(compare.FORMATS[arguments.format](evidence))


if __name__ == "__main__":
    cli.run(main, parse)
