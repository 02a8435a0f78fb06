"""An orderly end when a signal asks for it, also in the midst of a compiled call."""

import concurrent.futures
import signal
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a batch system that ends a job gets what Ctrl-C gets
_AGAIN = 0.02  # seconds after which an interrupt that was lost is raised again
# One thread for all calls: what they allocate stays in one arena of memory.
_thread = concurrent.futures.ThreadPoolExecutor(1, "compiled calls")
_is_interrupted = False


def end_orderly() -> None:
    """From now on the first signal raises KeyboardInterrupt in the main thread; a second one kills.

    Python drops an exception that is raised in a destructor or in the callback of a weak reference, where a signal may
    well come: there KeyboardInterrupt is raised again a moment later.
    """

    def handle(number: int, frame: object) -> None:
        global _is_interrupted
        _is_interrupted = True
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    def interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
        in_main = threading.current_thread() is threading.main_thread()
        if not (in_main and _is_interrupted and issubclass(lost.exc_type, KeyboardInterrupt)):
            sys.__unraisablehook__(lost)
            return
        signal.signal(signal.SIGINT, handle)
        main = threading.main_thread().ident or 0
        timer = threading.Timer(_AGAIN, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    for number in _SIGNALS:
        signal.signal(number, handle)
    sys.unraisablehook = interrupt_again


def is_interrupted() -> bool:
    """Whether a signal has raised KeyboardInterrupt, whatever became of it."""
    return _is_interrupted


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt where a signal has, and some other code has caught it."""
    if _is_interrupted:
        raise KeyboardInterrupt


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
    raise_if_interrupted()
    return _thread.submit(function, *arguments, **named).result()
