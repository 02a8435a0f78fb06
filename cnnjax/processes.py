"""Several processes that run one study together: they agree on what is read and written, and end together.

The few small values that all have to agree on go over the connections of `meeting`; arrays go between devices, by jax.
A connection that breaks says at once that a process was lost, however it died, and then all others end: they would wait
for it for ever. One process alone is everything by itself.
"""

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from cnnjax import signals
from cnnjax.environment import code_versions
from cnnjax.meeting import Meeting, Peer, Place, meet, name_process
from cnnjax.types import RequestError, Told

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
AUTO = "auto"
_MOMENT = 1.0  # seconds after which a broken connection has been seen
_GRACE = 10.0  # seconds that a process has to end by itself after another one has ended with an error
_HEARTBEAT = 10**6  # seconds: it is not jax that looks for lost processes, for it aborts without a clear word
_GOES_ON = "the same command on all processes goes on from the last state on disk"


class _Together:
    """This process among the others."""

    def __init__(self, number: int, meeting: Meeting, patience: float):
        self.number, self.hosts, self._peers = number, meeting.hosts, meeting.peers
        self.patience = patience
        self._ending = threading.Lock()
        self._is_over = False
        for peer in self._peers:
            threading.Thread(target=self._watch, args=(peer,), daemon=True).start()

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, by number, as JSON has them."""
        if self.number:
            self._peers[0].send({"value": value})
            return self._peers[0].values.get()
        values = json.loads(json.dumps([value, *(peer.values.get() for peer in self._peers)]))
        self._tell({"value": values})
        return values

    def leave(self, error: str | None = None) -> None:
        """Says that this process ends, and with which error, so that nobody takes it for lost."""
        self._is_over = True
        self._tell({"leaves": error})

    def interrupt(self) -> None:
        """Ends all processes soon. A thread does it: a signal may come in the midst of a message."""
        threading.Thread(target=self.end, args=(130, f"interrupted: {_GOES_ON}"), daemon=True).start()

    def end(self, code: int, line: str) -> None:
        """Ends all processes at once; what another thread is in the midst of is not waited for."""
        with self._ending:
            self._tell({"end": [code, line]})
            sys.stdout.flush()
            print(line, file=sys.stderr, flush=True)
            os._exit(code)

    def _tell(self, message: Mapping[str, Any]) -> None:
        for peer in self._peers:
            peer.send(message)

    def _watch(self, peer: Peer) -> None:
        while (message := peer.receive()) is not None:
            if "value" in message:
                peer.values.put(message["value"])
            elif "end" in message:
                self.end(*message["end"])
            elif message["leaves"] is None:
                return
            else:  # mostly all meet the same error, and end by themselves
                time.sleep(_GRACE)
                self.end(1, f"error: {peer.name} ended ({message['leaves']}); {_GOES_ON}")
        if not self._is_over:
            self.end(1, f"error: {peer.name} was lost; {_GOES_ON}")


_together: _Together | None = None


def count() -> int:
    """Returns how many processes run the study."""
    return len(_together.hosts) if _together else 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return _together is None or _together.number == 0


def names() -> list[str]:
    """Returns what a user calls each process, by number."""
    return [name_process(number, host) for number, host in enumerate(_together.hosts)] if _together else ["process 0"]


def on_this_host() -> int:
    """Returns how many of the processes run on the host of this one."""
    return _together.hosts.count(_together.hosts[_together.number]) if _together else 1


def patience() -> float:
    """Returns for how many seconds one process waits for what another one did to be seen."""
    return _together.patience if _together else 0.0


def gather(value: Any) -> list[Any]:
    """Returns a JSON value of each process, by number. All of them have to call it, as all that follows here."""
    return _together.gather(value) if _together else [value]


def agreed(function: Callable[[], _Result]) -> _Result:
    """Returns what a function returns in process 0, a JSON value; only there it is called.

    Raises:
        Exception: what it raises in process 0; elsewhere it is RequestError, OSError or RuntimeError.
    """
    if _together is None:
        return function()
    if _together.number:
        value, error = gather(None)[0]
        if error is not None:
            raise _read_error(error)
        return value
    try:
        value = function()
    except Exception as error:
        gather([None, _describe(error)])
        raise
    return gather([value, None])[0][0]


def together(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Returns what a function returns that every process calls; where one fails, all do.

    Raises:
        Exception: what it raised here; or, where only others failed, what it raised in the first of them.
    """
    if _together is None:
        return function(*arguments, **named)
    try:
        result = function(*arguments, **named)
    except Exception as error:
        gather(_describe(error))
        raise
    for name, described in zip(names(), gather(None), strict=True):
        if described is not None:
            raise _read_error({**described, "text": f"{name}: {described['text']}"})
    return result


def _describe(error: Exception) -> dict[str, Any]:
    number = error.errno if isinstance(error, OSError) else None
    text = f"out of memory: {error}" if isinstance(error, MemoryError) else str(error) or repr(error)
    return {"is_request": isinstance(error, RequestError), "errno": number, "text": text}


def _read_error(described: Mapping[str, Any]) -> Exception:
    if described["is_request"]:
        return Told(described["text"])
    if described["errno"] is not None:
        return OSError(described["errno"], described["text"])
    return RuntimeError(described["text"])


@contextlib.contextmanager
def joined(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    *,
    facts: Mapping[str, Any],
    timeout: float,
) -> Iterator[None]:
    """Joins the other processes of a study while the block runs. Has to come before anything uses jax's devices.

    Args:
        coordinator: HOST:PORT of process 0; 'auto' for what the cluster says of it (SLURM, Open MPI, Cloud TPU, ...),
            and of the next two; or None for a process alone.
        processes: how many there are.
        process: the number of this one, from 0.
        facts: JSON values that have to be the same in all processes, by name; versions of packages join them.
        timeout: seconds in which all have to be there.

    Raises:
        RequestError: the coordinator does not answer, a process does not come, or they do not belong together.
    """
    global _together
    if coordinator is None:
        for flag, value in (("num_processes", processes), ("process_id", process)):
            if value is not None:
                raise RequestError(flag, value, "allowed: together with --coordinator")
        yield
        return
    place, devices = _find_place(coordinator, processes, process, timeout)
    versions = {f"version of {name}": version for name, version in code_versions().items()}
    meeting = meet(place, {**versions, **facts}, timeout)
    us = _together = _Together(place.process, meeting, timeout)
    signals.end_orderly(us.interrupt)
    _start_jax(place, meeting.address, devices, timeout)
    try:
        yield
        gather(None)
        us.leave()
    except Exception as error:
        if not isinstance(error, RequestError | OSError):
            time.sleep(_MOMENT)  # it may be jax's word for a lost process, which `_watch` has a clear one for
        us.leave(str(error) or repr(error))
        raise
    finally:
        _together = None


def _find_place(
    coordinator: str, processes: int | None, process: int | None, timeout: float
) -> tuple[Place, Sequence[int] | None]:
    """What flags or cluster say of this process; and which devices of its host are its own, if not all."""
    devices = None
    address: str | None = coordinator
    if coordinator == AUTO:
        from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize finds, without its start

        address, processes, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
            None, processes, process, None, None, int(timeout)
        )
        if address is None or processes is None or process is None:
            allowed = "nothing says that this is SLURM, Open MPI or Cloud TPU; allowed: HOST:PORT of process 0"
            raise RequestError("coordinator", coordinator, allowed)
    assert address is not None  # for type checkers
    if processes is None or processes < 1:
        raise RequestError("num_processes", processes, "allowed: how many processes there are")
    if process is None or not 0 <= process < processes:
        allowed = f"allowed: the number of this process, from 0 to {processes - 1}, for --num_processes={processes}"
        raise RequestError("process_id", process, allowed)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise RequestError("coordinator", coordinator, "allowed: HOST:PORT of process 0, or auto")
    return Place(host.strip("[]"), int(port), processes, process), devices


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _wait_before_abort(_: int) -> None:
    time.sleep(_GRACE)
    faulthandler.dump_traceback()


def _start_jax(place: Place, address: str, devices: Sequence[int] | None, timeout: float) -> None:
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    # Where process 0 is lost jax's client aborts, in C++, within milliseconds; `_watch` is to have the time to say so.
    ctypes.CDLL(None).signal(signal.SIGABRT, _wait_before_abort)
    jax.distributed.initialize(
        *(address, place.processes, place.process, devices, "deactivate"),
        initialization_timeout=int(timeout) + 1,
        heartbeat_timeout_seconds=_HEARTBEAT,
        shutdown_timeout_seconds=int(_GRACE),
        coordinator_bind_address=address,
    )
