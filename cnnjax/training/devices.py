"""The devices that train a population: their number, their configuration and their memory."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding

from cnnjax.models.shards import AXIS
from cnnjax.multihost import processes
from cnnjax.training.machine import COUNT_FLAG, cpu_devices
from cnnjax.utils.errors import RequestError

_THREADS_FLAG = "xla_cpu_multi_thread_eigen"

# Options of JAX that change results, and that the user may have set (JAX_ENABLE_X64=1, for example).
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
    """Sets the options of JAX that change results. Call it before any computation.

    Raises:
        RequestError: a context manager, such as `jax.enable_x64`, sets an option for the code that it encloses.
    """
    for name, value in _PINNED.items():
        jax.config.update(name, value)
        if (found := getattr(jax.config, name)) != value:
            raise RequestError(name, found, f"must be {value!r}; leave the `with` block that sets it")


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Sets the same options while the block runs, and then restores those of the user, a notebook for example."""
    before = {name: getattr(jax.config, name) for name in _PINNED}
    pin_settings()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def use_every_core(useful: int, most: int | None = None) -> str | None:
    """Makes each CPU core a JAX device, up to the number that a study can use. Call it before anything uses JAX.

    Members that train side by side, each on its own core, train faster than members that use all cores one after
    another: no core waits, and a member's arrays stay in the core's cache. So do shards of a member's batches. Nothing
    changes if XLA_FLAGS set the number of CPU devices, or if JAX has already been used.

    Args:
        useful: see `layout.useful_devices`.
        most: number of cores to use. None stands for all cores that the process may use.

    Returns:
        A line that says so if it is too late, because JAX has been used with fewer devices; else None.
    """
    if most is not None:
        os.environ["PJRT_NPROC"] = str(most)  # the size of XLA's thread pools
    flags = os.environ.get("XLA_FLAGS", "")
    cores = min(processes.usable_cores(), most or processes.usable_cores())
    devices = cpu_devices(useful, most)
    if COUNT_FLAG in flags or devices < 2 or processes.count() > 1:  # `processes.initialized` sets the number
        return None
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:
        there = jax.local_device_count()
        if jax.default_backend() != "cpu" or there >= devices:
            return None
        slower = f"this study trains on {there} of {devices} CPU cores, with results equal up to rounding"
        return f"JAX was used before in this process: {slower}; a new process uses all"
    if devices == cores and _THREADS_FLAG not in flags:
        # No core is free to help with another core's matrix products.
        os.environ["XLA_FLAGS"] = f"{flags} --{_THREADS_FLAG}=false".strip()
    return None


def leave_devices_to_workers() -> str | None:
    """Makes this process, which does not train, use the CPU only. Call it before anything uses JAX.

    Returns:
        A line that says so if it is too late, because JAX holds other devices; else None.
    """
    jax.config.update("jax_platforms", "cpu")
    if (backend := jax.default_backend()) == "cpu":
        return None
    return f"JAX was used before in this process and holds memory of its {backend}: workers here may lack it"


def make_mesh(devices: Sequence[jax.Device], shards: int = 1) -> Mesh:
    """Returns a mesh of devices: groups of `shards` devices along its axis 'batch', the groups along 'members'."""
    return Mesh(np.array(devices).reshape(-1, shards), ("members", AXIS))


def put(tree: Any, sharding: Sharding) -> Any:
    """Puts arrays on devices, some of which may belong to other processes: each process puts its own part.

    Args:
        tree: pytree of arrays, equal in all processes.
        sharding: of the result.
    """

    def put_leaf(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    return jax.tree.map(put_leaf, tree) if processes.count() > 1 else jax.device_put(tree, sharding)


def get(tree: Any) -> Any:
    """Returns NumPy arrays, gathered from all processes. All processes have to call it."""
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def count_members(stacked: Any) -> int:
    """Returns how many members a pytree of stacked arrays holds."""
    return jax.tree.leaves(stacked)[0].shape[0]


def is_out_of_memory(error: Exception) -> bool:
    """Whether a call failed because memory ran out."""
    text = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
