"""Compares A with B by the files of their runs.

    python -m cnnjax.compare runs/a runs/b
    python -m cnnjax.compare runs/grid:model=baseline runs/grid:model=complex --margin=0.005
    python -m cnnjax.compare runs/a:trial=t0003 runs/b:learning_rate=0.01,optimizer=sgd --measure=test_loss

A side is a run's folder or URL, and after a colon the values of columns of its trials.csv. Of the configurations with
these values, the best by the run's `select` is compared, over all its seeds.
"""

import argparse

from cnnjax.utils import cli


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line, its first word being the program.

    Raises:
        RequestError: it is wrong.
    """
    parser = cli.ArgumentParser(
        prog="python -m cnnjax.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", help="RUN or RUN:key=value,...")
    parser.add_argument("b", help="RUN or RUN:key=value,..., to compare with A")
    measure = "a column of trials.csv (default: the measure that both runs select by, else test_accuracy)"
    parser.add_argument("--measure", help=measure)
    parser.add_argument(
        "--margin", type=float, help="the largest difference that does not matter, in the measure's unit: 0.005"
    )
    parser.add_argument("--format", default="text", choices=("text", "markdown", "json"))
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Prints the comparison that the command line asks for.

    Raises:
        RequestError: it cannot be done.
    """
    from cnnjax.analysis import compare  # imports pandas: check the command line first

    a, b = compare.read_side(arguments.a), compare.read_side(arguments.b)
    evidence = compare.compare_configurations(a, b, arguments.measure, arguments.margin)
    print(compare.FORMATS[arguments.format](evidence))


if __name__ == "__main__":
    cli.run(main, parse)
