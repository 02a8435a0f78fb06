"""Tasks on a Ray cluster: a new one on this machine, or a running one."""

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

_RETRIES = 5  # of a task whose process or machine dies; it resumes from its newest checkpoint
_ANSWER = 30.0  # seconds until a cluster must have answered


class RayEngine:
    """Starts a Ray cluster on this machine, or joins one.

    Args:
        address: HOST:PORT of the cluster to join, or 'auto'; None starts one.
        cpus: number of CPUs for each task. The default is that of the smallest node, or 1 if nodes have GPUs.
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
        if self._address is None:  # the object store only transfers tasks and outcomes
            how = {"address": "local", "include_dashboard": False, "object_store_memory": 100 * 2**20}
        before = signal.getsignal(signal.SIGTERM)  # Ray replaces the handler
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # jax's, about forks; these only start programs
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
        except (ConnectionError, RuntimeError, ValueError) as error:
            problem = f"the cluster cannot be joined: {first_line(error)}"
            raise RequestError("--ray_address", self._address, problem) from error
        finally:
            signal.signal(signal.SIGTERM, before)
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()

    def submit(self, workdir: Path, tasks: Sequence[Task]) -> str:
        """See Engine. Refuses tasks that need more CPUs than any node has."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
        able = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
        cpus = self.cpus or (1 if gpus else min(able, default=1))
        if cpus > max(able, default=0):
            raise RequestError("--task_cpus", cpus, f"must be at most {max(able, default=0)}, the most CPUs of a node")
        # One process per task: jax detects devices once per process, and the end of the process frees their memory.
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
    """Raises RequestError if no cluster answers. Ray itself would retry for minutes, or end this process."""
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or not port.isdecimal() or not 0 < int(port) < 2**16):
        raise RequestError("--ray_address", address, "must be HOST:PORT as printed by `ray start --head`, or auto")
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
        asked = [sys.executable, "-m", "ray.scripts.scripts", "status", f"--address={address}"]
        subprocess.run(asked, capture_output=True, check=True, timeout=_ANSWER)
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"no Ray cluster answers within {_ANSWER:.0f} s; start one with `ray start --head`"
        raise RequestError("--ray_address", address, problem) from error
