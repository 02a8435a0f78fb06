"""Predicts images with the networks that a run has trained.

    python -m cnnjax.predict runs/grid --input=new.csv --output=labels.csv
    python -m cnnjax.predict runs/grid --input=new.csv --output=labels.csv --trial=t0003
    python -m cnnjax.predict runs/grid --input=new.csv --output=labels.csv --figures=predicted

The output has a row for each image: its ID, the number and the name of its class, and the
probability of every class: the mean over all seeds of the configuration that the study selects, unless a
trial or another configuration is named. Of images in a folder for each class the accuracy is printed, and
the confusion matrix is written beside the output. The figures are of the first images, and of the first 20 of each
class, on a page of their own.
"""

import argparse
from pathlib import Path

from cnnjax.runs import remote
from cnnjax.utils import cli
from cnnjax.utils.paths import expanded


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line, its first word being the program.

    Raises:
        RequestError: it is wrong.
    """
    parser = cli.ArgumentParser(
        prog="python -m cnnjax.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_workdir()
    parser.add_argument(
        "--input",
        required=True,
        help="an image, a folder of images or of a folder for each class, or a .csv, .npy or .npz file",
    )
    parser.add_argument("--output", required=True, type=Path, help="the CSV file to write")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trial", help="predict with this trial alone")
    which.add_argument(
        "--configuration", default="best", help="best (default), or any trial of the configuration: all its seeds"
    )
    which.add_argument("--setting", dest="configuration", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # older
    parser.add_argument("--figures", type=Path, help="a folder for a page that shows images under their classes")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Predicts as the command line says.

    Raises:
        RequestError: it cannot be done.
    """
    from cnnjax.commands import predict  # imports pandas and scipy: a wrong command line is answered before

    output = expanded("--output", arguments.output)
    figures = arguments.figures and expanded("--figures", arguments.figures)
    given = arguments.input, output, arguments.trial, arguments.configuration, figures
    print(predict.predict_file(remote.copied(arguments.workdir), *given))


if __name__ == "__main__":
    cli.run(main, parse)
