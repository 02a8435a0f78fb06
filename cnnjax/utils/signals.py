"""Interruption by signals, also during a compiled call."""

import concurrent.futures
import signal
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and a batch system that ends a job
_RETRY = 0.02  # seconds after which a lost KeyboardInterrupt is raised again
# One thread for all calls, so that they allocate in one memory arena.
_thread = concurrent.futures.ThreadPoolExecutor(1, "compiled calls")
_is_interrupted = False


def install_handlers() -> None:
    """Makes the first signal raise KeyboardInterrupt in the main thread, and the second one kill the process.

    Python drops exceptions that are raised in destructors and in callbacks of weak references. A KeyboardInterrupt that
    is dropped there is raised again a moment later.
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
        timer = threading.Timer(_RETRY, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    for number in _SIGNALS:
        signal.signal(number, handle)
    sys.unraisablehook = interrupt_again


def is_interrupted() -> bool:
    """Whether a signal has raised KeyboardInterrupt, even if other code has caught it."""
    return _is_interrupted


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt again if other code has caught it."""
    if _is_interrupted:
        raise KeyboardInterrupt


def ignore() -> None:
    """Ignores signals from now on: all work is done, and only the interpreter's shutdown remains."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def interruptibly(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Calls a function that compiles or waits for a device, so that signals can interrupt the call.

    Python handles a signal only when the main thread returns from such a call, possibly minutes later. Another thread
    runs the function, and the main thread waits. An interrupted call runs to its end, and its result is dropped.
    """
    raise_if_interrupted()
    return _thread.submit(function, *arguments, **named).result()
