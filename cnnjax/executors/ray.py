"""Tasks on a Ray cluster: this machine's, or one that runs already."""

import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import ray

from cnnjax.executors.base import Outcome, Task
from cnnjax.executors.worker import work
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import counted, first_line

_RETRIES = 5  # of a task whose process or machine dies; it goes on from its newest state
_ANSWER = 30.0  # seconds that a cluster may take to answer


class RayEngine:
    """Starts a Ray cluster on this machine, or joins one.

    Args:
        address: HOST:PORT of the cluster to join, or 'auto'; None starts one.
        cpus: that a task takes. The default is those of the smallest node; or one, where each task takes a GPU.
    """

    def __init__(self, address: str | None, cpus: int | None):
        self.cpus = cpus
        self.compilation_cache: str | None = None
        self._address = address
        self._tasks: dict[Any, str] = {}

    def __enter__(self) -> Self:
        if self._address is not None:
            _check_answers(self._address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        how: dict[str, Any] = {"address": self._address}
        if self._address is None:  # little memory: only tasks and their outcomes go through the object store
            how = {"address": "local", "include_dashboard": False, "object_store_memory": 100 * 2**20}
        before = signal.getsignal(signal.SIGTERM)  # Ray takes it
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of jax, at a fork that only starts a program
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = f"no cluster could be joined there: {first_line(error)}"
            raise RequestError("--ray_address", self._address, said) from error
        finally:
            signal.signal(signal.SIGTERM, before)
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()

    def submit(self, workdir: Path, tasks: Sequence[Task]) -> str:
        """See Engine; a task that no node can ever run is refused."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
        able = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
        cpus = self.cpus or (1 if gpus else min(able, default=1))
        if cpus > max(able, default=0):
            raise RequestError("--task_cpus", cpus, f"must be at most {max(able, default=0)}, what a node has")
        # A process for each task: jax counts devices once, and what a program took is given back.
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES, max_calls=1)(work)
        self._tasks = {remote.remote(task): task["program"] for task in tasks}
        each = counted(cpus, "CPU") + " and a GPU" * gpus
        return f"Ray, {counted(len(nodes), 'node')}: {each} for each of {len(tasks)} programs"

    def ended(self) -> dict[str, Outcome]:
        """See Engine."""
        ready, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0) if self._tasks else ([], [])
        return {self._tasks.pop(task): _outcome(task) for task in ready}

    def cancel(self) -> None:
        """See Engine."""
        for task in self._tasks:
            ray.cancel(task, force=True)
        self._tasks.clear()


def _outcome(task: Any) -> Outcome:
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return {"host": "Ray", "error": f"{type(error).__name__}: {error}", "wrong": False}


def _check_answers(address: str) -> None:
    """Raises RequestError where no cluster answers; Ray itself would try for minutes, or end this process."""
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or not port.isdecimal() or not 0 < int(port) < 2**16):
        raise RequestError("--ray_address", address, "must be HOST:PORT as `ray start --head` says it, or auto")
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
        asked = [sys.executable, "-m", "ray.scripts.scripts", "status", f"--address={address}"]
        subprocess.run(asked, capture_output=True, check=True, timeout=_ANSWER)
    except (OSError, subprocess.SubprocessError) as error:
        what = f"no Ray cluster answers there within {_ANSWER:.0f} s; start one with `ray start --head`"
        raise RequestError("--ray_address", address, what) from error
