"""The devices of this machine, for plans and estimates. Imports jax only if this machine may have an accelerator."""

import importlib.metadata
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import psutil

from cnnjax.multihost import processes
from cnnjax.runs.environment import processor

COUNT_FLAG = "xla_force_host_platform_device_count"
_SIDE = 1024  # of the matrices of `calibrate`


class Machine(NamedTuple):
    """The devices that train.

    Attributes:
        platform: cpu, gpu or tpu.
        device: kind of a device; of a CPU, the model of the processor.
        devices: number of devices that members, and batches of members, are spread over.
        memory: bytes that are free for training on one device.
    """

    platform: str
    device: str
    devices: int
    memory: int


def this_machine(useful: int) -> Machine:
    """Returns the devices of a study that can use this number of CPU devices, see `layout.useful_devices`."""
    if "jax" in sys.modules or _may_accelerate():
        return _ask_jax()
    devices = cpu_devices(useful)
    return Machine("cpu", processor(), devices, psutil.virtual_memory().available // devices)


def cpu_devices(useful: int, most: int | None = None) -> int:
    """Returns the number of JAX devices on a CPU: that of XLA_FLAGS, or else one for each core, up to `useful`.

    Args:
        useful: the number of devices that the study can use.
        most: number of cores to use. None stands for all cores that the process may use.
    """
    if given := re.search(rf"{COUNT_FLAG}=(\d+)", os.environ.get("XLA_FLAGS", "")):
        return max(1, int(given[1]))
    cores = processes.usable_cores()
    return max(1, min(cores, most or cores, useful))


def _may_accelerate() -> bool:
    """Returns whether JAX has a plugin for accelerators, and the user has not chosen the CPU."""
    if os.environ.get("JAX_PLATFORMS", "").lower() == "cpu":
        return False
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))


def _ask_jax() -> Machine:
    import jax

    platform, kind = jax.default_backend(), jax.devices()[0].device_kind
    return Machine(platform, processor() if platform == "cpu" else kind, jax.device_count(), memory_limit())


def memory_limit() -> int:
    """Returns the bytes of memory for one device: the allocator's limit, or a share of the host's available memory."""
    import jax

    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return psutil.virtual_memory().available // (jax.local_device_count() * processes.on_this_host())


def calibrate(machine: Machine) -> float:
    """Returns the operations per second of a matrix product on all devices, timed for some tenths of a second."""
    if machine.platform == "cpu":
        matrix = np.ones((_SIDE, _SIDE), np.float32)
        seconds, operations = _time(lambda: matrix @ matrix), 2 * _SIDE**3
        return operations / seconds
    import jax
    import jax.numpy as jnp

    side = 4 * _SIDE
    ones = jnp.ones((side, side), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    return machine.devices * 2 * side**3 / _time(lambda: jax.block_until_ready(product(ones)))


def _time(run: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of several calls, after a first one."""
    run()
    fastest, until = float("inf"), time.perf_counter() + 0.15
    while (start := time.perf_counter()) < until:
        run()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
