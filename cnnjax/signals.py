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


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def end_orderly(end: Callable[[], None] = _interrupt) -> None:
    """From now on the first signal calls `end` in the main thread, by default KeyboardInterrupt; a second one kills."""

    def handle(number: int, frame: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        end()

    for number in _SIGNALS:
        signal.signal(number, handle)


def ignore() -> None:
    """From now on signals are ignored: all is done, and the interpreter's own end is no work that one could stop."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def interruptibly(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Returns what a function returns that compiles, or waits for a device.

    Python answers a signal only when the main thread comes back from such a call, minutes later perhaps. So another
    thread makes the call, and the main one waits for it. An interrupted call runs on, and its result is dropped.
    """
    return _thread.submit(function, *arguments, **named).result()
