"""A process that builds reports, for a parent that trains.

The process imports plots while the parent trains. It may fork, because it never uses JAX. Each line of its input is the
path of a run's folder, in JSON, and each line of its output the path of the report's page.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cnnjax.multihost import processes


@contextlib.contextmanager
def report_process() -> Iterator[Callable[[Path], Path]]:
    """Starts a process that builds reports. Yields a function with the argument and the result of `build_report`.

    If the process fails, the function builds the report in this process, and so raises the same errors. If this process
    is killed, the other one ends, too, because its input ends. There is no other process without a second core, where a
    fork is not safe, or if this process is one of several that train and not the first.
    """
    if sys.platform != "linux" or processes.usable_cores() == 1 or not processes.is_first():
        yield build_here
        return
    command = [sys.executable, "-m", __name__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # A session of its own: Ctrl-C is for this process, which then ends the other one and its children.
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as process:  # type: ignore[call-overload]

        def build(workdir: Path) -> Path:
            with contextlib.suppress(OSError):  # it has ended
                print(json.dumps(str(workdir)), file=process.stdin, flush=True)
                if page := process.stdout.readline():
                    return Path(json.loads(page))
            return build_here(workdir)

        try:
            yield build
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def build_here(workdir: Path) -> Path:
    """Builds a run's report in this process."""
    from cnnjax.report import build_report  # imports plots

    return build_report(workdir)


def main() -> None:
    """Builds the reports that are asked for, until there is an error or the input ends."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg  # noqa: F401

    from cnnjax.report.build import build_report

    for line in sys.stdin:
        with contextlib.suppress(Exception):
            print(json.dumps(str(build_report(Path(json.loads(line))))), flush=True)
            continue
        return  # the parent repeats it, and says what is wrong


if __name__ == "__main__":
    main()
