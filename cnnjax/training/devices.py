"""The devices that a population is spread over, and what fits on one."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding

from cnnjax.multihost import processes

_COUNT_FLAG, _THREADS_FLAG = "xla_force_host_platform_device_count", "xla_cpu_multi_thread_eigen"


# Settings of jax that a user may have set (JAX_ENABLE_X64=1, for example), and that would change results.
_PINNED = {
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_numpy_rank_promotion": "allow",
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_debug_nans": False,  # a member that diverges is a result
    "jax_debug_infs": False,
    "jax_transfer_guard": "allow",
}


def pin_settings() -> None:
    """Sets the jax settings that results depend on. Call it before any computation."""
    for name, value in _PINNED.items():
        jax.config.update(name, value)


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Sets the same settings while the block runs, and restores them: other code in a notebook needs its own."""
    before = {name: getattr(jax.config, name) for name in _PINNED}
    pin_settings()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def use_every_core(members: int, most: int | None = None) -> None:
    """Lets jax see each CPU core as a device, as many as there are members. Has to come before anything uses jax.

    A member that has a core to itself trains faster than a core's share of members that one after another use all
    cores: nothing waits, and what it works on stays in the core's own cache. Where XLA_FLAGS already say how many CPU
    devices there are, or jax has begun to use them, all stays as it is.

    Args:
        members: that train at a time, at most.
        most: cores to use; the default is all that the process may.
    """
    if most is not None:
        os.environ["PJRT_NPROC"] = str(most)  # the size of XLA's pools of threads
    flags = os.environ.get("XLA_FLAGS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, most or cores)
    devices = min(cores, members)
    if _COUNT_FLAG in flags or devices < 2 or processes.count() > 1:  # several processes have chosen as they started
        return
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:
        return
    if devices == cores and _THREADS_FLAG not in flags:
        # No core is left to help with another's matrix products.
        os.environ["XLA_FLAGS"] = f"{flags} --{_THREADS_FLAG}=false".strip()


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Returns the mesh whose one axis, 'members', runs over the given devices."""
    return Mesh(np.array(devices), ("members",))


def put(tree: Any, sharding: Sharding) -> Any:
    """Lays arrays out over devices, of which some may be other processes': each takes its own part of equal arrays.

    Args:
        tree: pytree of arrays, equal in all processes.
        sharding: how they will lie.
    """

    def put_leaf(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    return jax.tree.map(put_leaf, tree) if processes.count() > 1 else jax.device_put(tree, sharding)


def get(tree: Any) -> Any:
    """Returns arrays as numpy's, whole also where other processes hold parts of them; all processes have to call it."""
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def count_members(stacked: Any) -> int:
    """Returns how many members a pytree of stacked arrays holds."""
    return jax.tree.leaves(stacked)[0].shape[0]


def memory_limit() -> int:
    """Returns the bytes one device may use: the allocator's limit, or what the host has available."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return psutil.virtual_memory().available // (jax.local_device_count() * processes.on_this_host())


def is_out_of_memory(error: Exception) -> bool:
    """Whether a failed call failed for want of memory."""
    said = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said or "out of memory" in said.lower()
