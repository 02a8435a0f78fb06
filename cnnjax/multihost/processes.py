"""Several processes that run one study, on `jax.distributed`.

Process 0 reads, writes and prints. All processes train. They exchange small values as JSON in arrays of bytes, with
`multihost_utils`. If a process is lost, JAX ends the others with a message. A single process is process 0.
"""

import contextlib
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np

from cnnjax.runs.environment import code_versions
from cnnjax.utils.errors import RelayedError, RequestError
from cnnjax.utils.text import first_line
from cnnjax.utils.tree import flatten

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
AUTO = "auto"
_SHUTDOWN_TIMEOUT = 10  # seconds that a failing process waits for the others

_hosts = [socket.gethostname()]  # of all processes, by number
_number = 0  # of this process


def count() -> int:
    """Returns the number of processes."""
    return len(_hosts)


def is_first() -> bool:
    """Returns whether this is process 0, which reads, writes and prints."""
    return _number == 0


def name(number: int) -> str:
    """Returns the number and the host of a process, for messages."""
    return f"process {number} on {_hosts[number]}"


def on_this_host() -> int:
    """Returns the number of processes on this process's host."""
    return _hosts.count(_hosts[_number])


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gather(value: Any) -> list[Any]:
    """Returns the JSON values of all processes, by number. All processes have to call it, and the functions below."""
    if count() == 1:
        return [value]
    from jax.experimental.multihost_utils import process_allgather

    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = process_allgather(np.int32(text.size)).ravel()
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)  # powers of two, because each size is compiled
    padded[: text.size] = text
    return [json.loads(bytes(row[:size])) for row, size in zip(process_allgather(padded), sizes, strict=True)]


def broadcast_from_process0(function: Callable[[], _Result]) -> _Result:
    """Calls a function in process 0 only, and returns its JSON value in all processes.

    Raises:
        Exception: the function's exception in process 0; RequestError, OSError or RuntimeError in other processes.
    """
    value, error, described = None, None, None
    if is_first():
        try:
            value = function()
        except Exception as raised:
            error, described = raised, _describe(raised)
    if count() > 1:
        value, described = gather([value, described])[0]
    if error is not None:
        raise error
    if described is not None:
        raise _read_error(described)
    return value  # type: ignore[return-value]


def raise_on_all(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Calls a function in every process and returns its local value. If one process fails, all processes fail.

    Raises:
        Exception: the exception of this process, or else of the first process that failed.
    """
    if count() == 1:
        return function(*arguments, **named)
    try:
        result = function(*arguments, **named)
    except Exception as error:
        gather(_describe(error))
        raise
    for number, described in enumerate(gather(None)):
        if described is not None:
            raise _read_error({**described, "text": f"{name(number)}: {described['text']}"})
    return result


def _describe(error: Exception) -> dict[str, Any]:
    number = error.errno if isinstance(error, OSError) else None
    text = f"out of memory: {error}" if isinstance(error, MemoryError) else str(error) or repr(error)
    return {"is_request": isinstance(error, RequestError), "errno": number, "text": text}


def _read_error(described: Mapping[str, Any]) -> Exception:
    if described["is_request"]:
        return RelayedError(described["text"])
    if described["errno"] is not None:
        return OSError(described["errno"], described["text"])
    return RuntimeError(described["text"])


@contextlib.contextmanager
def initialized(
    coordinator: str | None, processes: int | None, process: int | None, *, facts: Mapping[str, Any], timeout: float
) -> Iterator[None]:
    """Connects the processes of a study while the block runs. Enter it before anything uses JAX's devices.

    On CPUs each process gets one device for each of its cores. If the coordinator's address is a loopback address, the
    processes share the cores of the host equally. Otherwise the cluster has to bind each process to its cores.

    Args:
        coordinator: HOST:PORT of process 0; 'auto' to read it and the next two arguments from the cluster (SLURM,
            Open MPI, Cloud TPU, ...); or None for a single process.
        processes: the number of processes.
        process: the number of this process, from 0.
        facts: JSON values by name. They and the versions of packages have to be equal in all processes.
        timeout: seconds to wait for all processes.

    Raises:
        RequestError: the flags contradict each other, a process does not connect in time, or the facts differ.
    """
    global _hosts, _number
    _check_flags(coordinator, processes, process)
    if coordinator is None:
        yield
        return
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would intercept SIGTERM
    address = None if coordinator == AUTO else coordinator
    try:
        jax.distributed.initialize(
            *(address, processes, process),
            initialization_timeout=int(timeout) + 1,
            shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        problem = f"{first_line(error)}; use HOST:PORT of process 0, or auto on a cluster"
        raise RequestError("coordinator", coordinator, problem) from error
    sharing = processes if processes and address and _is_loopback(address) else 1
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", max(1, usable_cores() // sharing))
    try:
        _number = jax.process_index()
        _hosts = _hosts * jax.process_count()
        _hosts = gather(socket.gethostname())
        _check_facts({**{f"version of {key}": version for key, version in code_versions().items()}, **facts})
        yield
        gather(None)  # wait until all processes have finished
    finally:
        _hosts, _number = [socket.gethostname()], 0


def _check_flags(coordinator: str | None, processes: int | None, process: int | None) -> None:
    if coordinator is None:
        for flag, value in (("num_processes", processes), ("process_id", process)):
            if value is not None:
                raise RequestError(flag, value, "needs --coordinator, too")
    elif coordinator != AUTO:
        if processes is None or processes < 1:
            raise RequestError("num_processes", processes, "must be the number of processes, >= 1")
        if process is None or not 0 <= process < processes:
            allowed = f"must be the number of this process, from 0 to {processes - 1}, for --num_processes={processes}"
            raise RequestError("process_id", process, allowed)
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise RequestError("coordinator", coordinator, "must be HOST:PORT of process 0, or auto")


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_facts(facts: Mapping[str, Any]) -> None:
    everywhere = gather(dict(flatten(facts)))
    for number, theirs in enumerate(everywhere):
        for key in sorted(everywhere[0].keys() | theirs.keys()):
            first, other = everywhere[0].get(key), theirs.get(key)
            if first != other:
                problem = f"{name(number)} has this value, {name(0)} has {first!r}; use the same value in all processes"
                raise RequestError(key, other, problem)
