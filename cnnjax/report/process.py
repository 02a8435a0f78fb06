"""A process that builds reports. It imports what that takes while its parent trains, and may fork: it has no JAX.

A path that it reads as a line of JSON is a run's folder. It answers each with a line: whether it has built the report.
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
    """Starts a process, and yields a function that lets it build a run's report, as `build_report` does.

    The function builds the report in this process if the other one has failed, and so raises the same errors. The other
    process ends with this one, because the pipe between them closes. Without a second core, or where a fork is not
    safe, there is no other process.
    """
    if sys.platform != "linux" or processes.usable_cores() == 1:
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
