"""How the processes of one study meet: process 0 listens at an address that all were told, the others call it.

Whoever does not come, or does not belong, is named in one line to all that are there. Imports no jax.
"""

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cnnjax.nested import flatten
from cnnjax.types import RequestError, Told

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # a host that is gone is missed in 40 seconds
_LOST_CALL = 5.0  # seconds for a caller to say who it is


class Place(NamedTuple):
    """Where a process stands among the others."""

    host: str  # of process 0
    port: int
    processes: int
    process: int  # the number of this one, from 0


class Meeting(NamedTuple):
    """What a process knows when all are there."""

    hosts: list[str]  # of all processes, by number
    peers: list["Peer"]  # the others, by number; of a process other than 0, only that one
    address: str  # where jax's own coordinator will listen


class Peer:
    """A connection to another process, which carries JSON values, one a line."""

    def __init__(self, connection: socket.socket, name: str = ""):
        self.name = name
        self.values: queue.SimpleQueue = queue.SimpleQueue()  # what was received and not yet used
        self._connection, self._file = connection, connection.makefile("r", encoding="utf-8")
        self._sending = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message; one to a process that is gone is dropped, for who receives from it notices."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Returns the next message; None where the other end is closed, says no JSON object or nothing in time."""
        try:
            self._connection.settimeout(timeout)
            line = self._file.readline()
            message = json.loads(line) if line.endswith("\n") else None
        except (OSError, ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Ends the connection."""
        self._file.close()
        self._connection.close()


def name_process(number: int, host: str) -> str:
    """Returns what a user calls a process."""
    return f"process {number} on {host}"


def meet(place: Place, facts: Mapping[str, Any], timeout: float) -> Meeting:
    """Waits until all processes are there.

    Args:
        place: of this one.
        facts: JSON values that have to be the same in all processes, by name, nested or not.
        timeout: seconds.

    Raises:
        RequestError: process 0 does not answer, or another does not come, or they do not belong together.
    """
    hello = json.loads(json.dumps({**place._asdict(), "host": socket.gethostname(), "facts": dict(flatten(facts))}))
    return _call(place, hello, timeout) if place.process else _receive_all(place, hello, timeout)


def _receive_all(place: Place, hello: dict[str, Any], timeout: float) -> Meeting:
    deadline = time.monotonic() + timeout
    hosts, peers = {0: hello["host"]}, {}
    with _listen(place, hello["host"]) as server:
        try:
            while len(hosts) < place.processes:
                server.settimeout(max(deadline - time.monotonic(), 0.01))
                peer = Peer(server.accept()[0])
                theirs = peer.receive(_LOST_CALL)
                if theirs is None or "facts" not in theirs:
                    peer.close()  # nobody of ours
                    continue
                number = theirs["process"]
                peer.name = name_process(number, theirs["host"])
                peers[number if number not in hosts else -1] = peer
                _check(hello, theirs, hosts)
                hosts[number] = theirs["host"]
            host = server.getsockname()[0]
            with socket.create_server((host, 0), family=server.family) as free:
                address = f"{f'[{host}]' if ':' in host else host}:{free.getsockname()[1]}"
        except (RequestError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                missing = ", ".join(str(number) for number in range(place.processes) if number not in hosts)
                said = f"process {missing} did not come to {place.host}:{place.port} within {timeout:g} s"
                error = RequestError("num_processes", place.processes, f"{said}; allowed: as many as are started")
            for peer in peers.values():
                peer.send({"error": str(error)})
            raise error from None
    listed = [hosts[number] for number in range(place.processes)]
    for peer in peers.values():
        peer.send({"hosts": listed, "address": address})
    return Meeting(listed, [peers[number] for number in sorted(peers)], address)


@contextlib.contextmanager
def _listen(place: Place, here: str) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        server = socket.create_server((place.host, place.port), family=family, backlog=place.processes)
    except OSError as error:
        # getaddrinfo's numbers are below 0, and its own words say more.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        said = f"process 0, on {here}, cannot listen there ({reason}); allowed: its own host, and a free port"
        raise RequestError("coordinator", f"{place.host}:{place.port}", said) from error
    with server:
        yield server


def _check(ours: Mapping[str, Any], theirs: Mapping[str, Any], hosts: Mapping[int, str]) -> None:
    """Raises RequestError where a process that came is not one of these."""
    number, they = theirs["process"], name_process(theirs["process"], theirs["host"])
    first = name_process(0, ours["host"])
    if theirs["processes"] != ours["processes"]:
        said = f"{they} was started for so many, {first} for {ours['processes']}"
        raise RequestError("num_processes", theirs["processes"], f"{said}; allowed: the same everywhere")
    if number in hosts:
        said = f"a process on {hosts[number]} and another on {theirs['host']} have it"
        raise RequestError("process_id", number, f"{said}; allowed: each number from 0 to {ours['processes'] - 1} once")
    for name in sorted(ours["facts"].keys() | theirs["facts"].keys()):
        mine, other = ours["facts"].get(name), theirs["facts"].get(name)
        if mine != other:
            raise RequestError(name, other, f"{they} has it, {first} has {mine!r}; allowed: the same everywhere")


def _call(place: Place, hello: dict[str, Any], timeout: float) -> Meeting:
    where, deadline = f"{place.host}:{place.port}", time.monotonic() + timeout
    refused = "no answer"
    while True:
        left = deadline - time.monotonic()
        try:
            peer = Peer(socket.create_connection((place.host, place.port), timeout=max(left, 0.01)))
            break
        except OSError as error:
            refused = error.strerror or str(error)
        if left < 0:
            said = f"process 0 does not answer there within {timeout:g} s ({refused}); allowed: where process 0 runs"
            raise RequestError("coordinator", where, said)
        time.sleep(0.1)
    peer.send(hello)
    answer = peer.receive(timeout + _LOST_CALL)  # process 0 may have begun to wait later
    if answer is not None and "error" in answer:
        peer.close()
        raise Told(answer["error"])
    if answer is None or "address" not in answer:
        peer.close()
        said = "what listens there did not answer as process 0 of a study does, or has ended"
        raise RequestError("coordinator", where, f"{said}; allowed: where process 0 runs")
    peer.name = name_process(0, answer["hosts"][0])
    return Meeting(answer["hosts"], [peer], answer["address"])
