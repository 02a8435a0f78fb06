"""The console script: `cnnjax launch ...` is `python -m cnnjax.launch ...`."""

import runpy
import sys

from cnnjax import __version__

COMMANDS = {
    "launch": ("cnnjax.launch", "train a study, or resume it, and build its report"),
    "report": ("cnnjax.report", "build the report of a run again"),
    "compare": ("cnnjax.compare", "is A better than B?"),
    "predict": ("cnnjax.predict", "label images with the trained networks"),
    "inspect": ("cnnjax.inspect", "show the data and the models before training"),
    "prepare": ("cnnjax.data.prepare", "download and prepare a dataset"),
    "to_csv": ("cnnjax.data.to_csv", "write gray images as CSV files"),
}


def main() -> None:
    """Runs the command that the first argument names, and exits as the command does."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in COMMANDS:
        del sys.argv[1]
        runpy.run_module(COMMANDS[command][0], run_name="__main__", alter_sys=True)
    elif command in ("--help", "-h", "help"):
        rows = [f"  {name:<8} {text}" for name, (_, text) in COMMANDS.items()]
        print("\n".join(["usage: cnnjax COMMAND ...", *rows, "cnnjax COMMAND --help lists its options."]))
    elif command == "--version":
        print(f"cnnjax {__version__}")
    else:
        from cnnjax.utils.errors import RequestError, one_of

        print(f"error: {RequestError('command', command, one_of(command, COMMANDS))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
