"""Predicts the classes of images with the trained networks of a run.

    python -m cnnjax.predict runs/grid --input=new.csv --output=labels.csv
    python -m cnnjax.predict runs/grid --input=new.csv --output=labels.csv --trial=t3f9
    python -m cnnjax.predict runs/grid --input=new.csv --output=labels.csv --figures=predicted

The output has a row per image: its ID, the number and the name of its class, and the probability of each class. The
probabilities are means over all seeds of the best configuration, or of the one that --configuration or --trial names.
--augment=flip, or flip+shift, averages over views of each image.
The beginning of a trial's ID in trials.csv names the trial.
If the images lie in one folder per class, the command also prints the accuracy and writes the confusion matrix beside
the output. --figures writes a page with the first images and the first 20 of each class.
"""

import argparse
from pathlib import Path

from cnnjax.runs import remote
from cnnjax.study.augmentation import TEST_TIME_KINDS
from cnnjax.utils import cli
from cnnjax.utils.paths import expanded


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line; `argv[0]` is the program.

    Raises:
        RequestError: an argument is invalid.
    """
    parser = cli.ArgumentParser(
        prog="python -m cnnjax.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_workdir()
    parser.add_argument(
        "--input",
        required=True,
        help="an image, a folder of images, a folder with one folder per class, or a .csv, .npy or .npz file",
    )
    parser.add_argument("--output", required=True, type=Path, help="the CSV file to write")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trial", help="predict with this trial only")
    which.add_argument(
        "--configuration",
        default="best",
        help="best (default), or a trial: predict with all seeds of its configuration",
    )
    which.add_argument(
        "--setting", dest="configuration", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )  # version 0.1
    parser.add_argument(
        "--augment",
        choices=TEST_TIME_KINDS,
        help="average over the image and its mirror image, and over shifts by a pixel (default: as the study)",
    )
    parser.add_argument("--figures", type=Path, help="a folder for a page of images with their predicted classes")
    parser.add_argument(
        "--trust_code",
        action="store_true",
        help="run the copies of own code in the run's folder, if the original files have changed or are gone",
    )
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Writes the predictions and prints a summary.

    Raises:
        RequestError: the run, the images or the output is invalid.
    """
    from cnnjax.commands import predict  # imports pandas and scipy: check the command line first

    output = expanded("--output", arguments.output)
    figures = arguments.figures and expanded("--figures", arguments.figures)
    given = arguments.input, output, arguments.trial, arguments.configuration, figures
    options = {"augment": arguments.augment, "trust_code": arguments.trust_code}
    print(predict.predict_file(remote.copied(arguments.workdir), *given, **options))


if __name__ == "__main__":
    cli.run(main, parse)
