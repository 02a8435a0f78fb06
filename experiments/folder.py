"""The folder of results that a command is about."""

from pathlib import Path

from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError


def parse_folder(argv: list[str], command: str, description: str | None, *files: str) -> Path:
    """Returns the folder that a command line names.

    Args:
        argv: the command line, its first word being the program.
        command: the name of its module here.
        description: for its help.
        files: what has to be in the folder.

    Raises:
        RequestError: it names none, or one that lacks a file.
    """
    parser = cli.ArgumentParser(prog=f"python -m experiments.{command}", description=description)
    parser.add_argument("folder", type=Path, help=f"a folder with {' and '.join(files)}")
    folder: Path = parser.parse_args(argv[1:]).folder
    for name in files:
        if not (folder / name).is_file():
            raise RequestError("folder", str(folder), f"it has no {name}")
    return folder
