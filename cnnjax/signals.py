"""An orderly end when a signal asks for it, also in the midst of a compiled call."""

import concurrent.futures
import signal
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a batch system that ends a job gets what Ctrl-C gets
# One thread for all calls: what they allocate stays in one arena of memory.
_thread = concurrent.futures.ThreadPoolExecutor(1, "compiled calls")


def end_orderly() -> None:
    """From now on the first signal raises KeyboardInterrupt in the main thread, and a second one kills."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt


def interruptibly(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Returns what a function returns that compiles, or waits for a device.

    Python answers a signal only when the main thread comes back from such a call, minutes later perhaps. So another
    thread makes the call, and the main one waits for it. An interrupted call runs on, and its result is dropped.
    """
    return _thread.submit(function, *arguments, **named).result()
