"""The common part of all entry points: they parse flags and exit with a code.

0: done. 1: something broke (traceback on stderr). 2: the request is wrong (one line on stderr). 130: interrupted.
141: the reader of the output has closed the pipe, as `head` does (nothing on stderr).
"""

import argparse
import errno
import gc
import io
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from cnnjax.utils import signals
from cnnjax.utils.errors import RequestError, unwritable


class ArgumentParser(argparse.ArgumentParser):
    """A parser for commands without a config. It reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises RequestError."""
        raise RequestError("arguments", " ".join(sys.argv[1:]), f"{message}; {self.format_usage()}")

    def add_workdir(self) -> None:
        """Adds the run's folder, as a positional argument or as --workdir."""
        self.add_argument("workdir", nargs="?", help="the run's folder, or its URL")
        self.add_argument("--workdir", dest="named_workdir", metavar="WORKDIR", help="the same")

    def parse_args(self, *arguments: Any, **named: Any) -> Any:
        """Parses a command line. The run's folder has to be given exactly once."""
        parsed = super().parse_args(*arguments, **named)
        if hasattr(parsed, "named_workdir"):
            if (parsed.workdir is None) == (parsed.named_workdir is None):
                self.error("name one run's folder")
            parsed.workdir = parsed.workdir or parsed.named_workdir
        return parsed


def run(main: Callable[[Any], None], parse: Callable[[list[str]], Any] | None = None) -> NoReturn:
    """Runs an entry point on `sys.argv` and exits.

    Args:
        main: called with the value of `parse`.
        parse: called with `sys.argv`. The default parses absl's flags and returns the overrides of the config, each as
            `key=value`.
    """

    def start(parsed: Any) -> None:
        main(parsed)
        sys.stdout.flush()  # a closed pipe raises here
        signals.raise_if_interrupted()
        signals.ignore()
        gc.freeze()  # the interpreter would search all modules for garbage when it exits, for almost half a second

    def parse_flags(argv: list[str]) -> Any:
        overrides = _parse(argv if parse is None else argv[:1])  # also configures absl's logging
        return overrides if parse is None else parse(argv)

    _open_streams()
    signals.install_handlers()
    try:
        app.run(start, flags_parser=parse_flags)
    except BrokenPipeError:
        if not (lost := [*filter(_has_lost_its_reader, (sys.stdout.fileno(), sys.stderr.fileno()))]):
            raise  # another pipe
        for pipe in lost:  # otherwise Python reports an error when it flushes the buffers at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), pipe)
        sys.exit(128 + signal.SIGPIPE)
    except (RequestError, flags.Error) as error:
        _print_error(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR):  # only a path from the user can cause these
            _print_error(f"error: {error}")
            sys.exit(2)
        if (problem := unwritable(error)) is None:
            raise
        _print_error(f"error: {problem}")
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        # Compiled code may turn KeyboardInterrupt into another error.
        if not isinstance(error, KeyboardInterrupt) and not signals.is_interrupted():
            raise
        _print_error("interrupted: run the same command again to resume from the last state on disk")
        # Threads that still compile or write would delay or crash the interpreter's shutdown. The next start ignores
        # their incomplete files.
        os._exit(130)
    raise AssertionError("app.run exits")  # for type checkers


def _open_streams() -> None:
    """Makes standard input, output and error usable.

    A stream that the shell closed is connected to /dev/null. Otherwise the next file that is opened would get its
    number, and messages of C++ code would be written into that file. Letters that the encoding lacks are escaped.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _has_lost_its_reader(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _print_error(line: str) -> None:
    sys.stdout.flush()
    print(" ".join(line.split()), file=sys.stderr, flush=True)


def _parse(argv: list[str]) -> list[str]:
    """Parses absl's flags and returns the overrides of the config."""
    known, overrides = split_overrides(argv)
    try:
        rest = flags.FLAGS(known)[1:]
    except SystemExit:
        sys.exit(0)  # after --help, for which absl exits with 1
    except flags.UnrecognizedFlagError as error:
        unknown = str(error).replace(" ?", "?").replace("U", "u", 1)
        problem = f"{unknown}; a key of the config is written --config.KEY=VALUE"
        raise RequestError("arguments", error.flagvalue, problem) from error
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # type: ignore[assignment]  # otherwise absl shows messages of JAX and Orbax
        # Orbax logs errors that it also raises; the raised error is printed in one line.
        logging.get_absl_logger().addFilter(lambda record: "orbax" not in Path(record.pathname).parts)
    if rest:
        raise RequestError("arguments", rest[0], "a flag and its value are written --flag=value")
    return overrides


def split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into absl's arguments and the overrides of the config.

    Returns:
        The arguments that are not overrides, in order; and the overrides, each as `key=value`.

    Raises:
        RequestError: an override has no value.
    """
    known, overrides = [], []
    arguments = iter(argv)
    for argument in arguments:
        if not argument.startswith(("--config.", "-config.")):
            known.append(argument)
            continue
        key, equals, value = argument.partition("config.")[2].partition("=")
        if not equals:
            value = next(arguments, "--")
            if value.startswith("--"):
                raise RequestError(f"--config.{key}", "", f"it needs a value: --config.{key}=VALUE")
        overrides.append(f"{key}={value}")
    return known, overrides
