"""Trains programs as tasks on many machines, queued by Ray, or by submitit for SLURM."""

import os
from collections.abc import Sequence

from cnnjax.executors.base import Engine
from cnnjax.utils.errors import RequestError

__all__ = ["EXECUTORS", "Engine", "make_engine"]

EXECUTORS = {"ray": "ray", "submitit": "slurm"}  # and the extra of cnnjax that installs each


def make_engine(
    executor: str,
    *,
    cpus: int | None = None,
    ray_address: str | None = None,
    cluster: str | None = None,
    slurm: Sequence[str] = (),
    compilation_cache: str | None = None,
) -> Engine:
    """Returns an engine, a context manager.

    Args:
        executor: one of EXECUTORS.
        cpus: number of CPUs for each task. The default is all CPUs of a node.
        ray_address: HOST:PORT of a Ray cluster to join, or 'auto'.
        cluster: submitit's cluster, 'slurm' or 'local'. The default is SLURM if it is available.
        slurm: parameters of SLURM's jobs as `key=value`.
        compilation_cache: the workers' folder for compiled programs, or 'off'. None is the default folder of the
            workers' user.

    Raises:
        RequestError: the engine is not installed, or does not have an option.
    """
    options = (
        ("--ray_address", "ray", ray_address),
        ("--cluster", "submitit", cluster),
        ("--slurm", "submitit", slurm),
    )
    for flag, owner, value in options:
        if value and owner != executor:
            raise RequestError(flag, value, f"--executor={executor} has no such option; use --executor={owner}")
    try:
        if executor == "ray":
            if ray_address is None:  # a cluster on this machine only: Ray listens on 127.0.0.1 only
                os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            from cnnjax.executors.ray import RayEngine

            engine: Engine = RayEngine(ray_address, cpus)
        else:
            from cnnjax.executors.slurm import SubmititEngine

            engine = SubmititEngine(cluster, cpus, slurm)
    except ModuleNotFoundError as error:
        if error.name != executor:
            raise
        extra = EXECUTORS[executor]
        raise RequestError("--executor", executor, f"it is not installed; pip install 'cnnjax[{extra}]'") from error
    engine.compilation_cache = compilation_cache
    return engine
