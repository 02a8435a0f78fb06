"""Says whether A is better than B, from the files of their runs alone.

    python -m cnnjax.compare runs/a runs/b
    python -m cnnjax.compare runs/grid:model=baseline runs/grid:model=complex --margin=0.005
    python -m cnnjax.compare runs/a:trial=t0003 runs/b:learning_rate=0.01,optimizer=sgd --measure=test_loss

A side is a run's folder, or its URL, and after a colon the values of columns of its trials.csv. Of the settings
that are left, the one that is best by the run's `select` is compared, over all its seeds.
"""

import argparse

from cnnjax import commands


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line, its first word being the program.

    Raises:
        RequestError: it is wrong.
    """
    parser = commands.ArgumentParser(
        prog="python -m cnnjax.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", help="RUN or RUN:key=value,...")
    parser.add_argument("b", help="what to hold it against")
    measure = "a column of trials.csv (default: what both runs select by, or test_accuracy if that is not the same)"
    parser.add_argument("--measure", help=measure)
    parser.add_argument(
        "--margin", type=float, help="the difference that is too small to matter, in the measure's unit: 0.005"
    )
    parser.add_argument("--format", default="text", choices=("text", "markdown", "json"))
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Compares as the command line says.

    Raises:
        RequestError: it cannot be done.
    """
    from cnnjax import comparison  # imports pandas: a wrong command line is answered before

    a, b = comparison.read_side(arguments.a), comparison.read_side(arguments.b)
    evidence = comparison.compare_settings(a, b, arguments.measure, arguments.margin)
    print(comparison.FORMATS[arguments.format](evidence))


if __name__ == "__main__":
    commands.run(main, parse)
