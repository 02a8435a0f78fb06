"""Checkpoints of populations. The only file that imports Orbax."""

import contextlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import psutil
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from cnnjax.multihost import processes
from cnnjax.runs import schema
from cnnjax.runs.integrity import Damaged, add_checksum, verify_checksum
from cnnjax.training.devices import count_members, is_out_of_memory, put
from cnnjax.utils import signals
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import first_line
from cnnjax.utils.tree import differences


class Checkpoints:
    """The states of one batch of members, in one Orbax directory.

    A state is a stacked `TrainState`, stored under the names of its fields. Saving is asynchronous. If a kill
    interrupts a save, the incomplete state is ignored. Orbax does not detect all damage to the arrays, so the metadata
    holds their checksums.

    Args:
        directory: of the batch of members.
        keep: how many of the newest states to keep.
        stops: epochs at which a trial ends; their states are always kept.

    Attributes:
        stale: epochs whose stored states are replaced if they are saved again.
    """

    def __init__(self, directory: Path, keep: int, stops: Sequence[int] = ()):
        policy = AnyPreservationPolicy([LatestN(keep), CustomSteps(stops)])
        directory.mkdir(parents=True, exist_ok=True)
        self.stale: set[int] = set()
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._readable = self._stack.enter_context(_readable(directory))
        self._manager = ocp.CheckpointManager(
            self._readable, options=ocp.CheckpointManagerOptions(preservation_policy=policy)
        )

    def save(self, epoch: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts to write the state of an epoch, a pytree of arrays, and its metadata, JSON values."""
        if epoch in self._manager.all_steps():
            if epoch not in self.stale:
                return  # saved before a resume
            self._manager.delete(epoch)
            self.stale.remove(epoch)
        meta = add_checksum({**meta, "checksums": _checksums(state)})
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_used(state)), meta=ocp.args.JsonSave(meta))
        self._manager.save(epoch, args=arguments, force=True)  # also before a later epoch

    def epochs(self) -> list[int]:
        """Returns the epochs whose states are stored."""
        return sorted(self._manager.all_steps())

    def restore(
        self, abstract_state: Any, most: int, say: Callable[[str], None] = lambda _: None
    ) -> tuple[Any, dict[str, Any]] | None:
        """Reads the newest intact state. Deletes damaged states, so that they can be written again.

        If the state was written on another number of devices, the copies that fill the batch are added or removed.

        Args:
            abstract_state: pytree of jax.ShapeDtypeStruct with the wanted number of members and sharding.
            most: the last epoch to look for.
            say: called with a message for each damaged state.

        Returns:
            The state and its metadata, or None without any state.

        Raises:
            RequestError: a state does not fit in memory, or another version of cnnjax wrote it.
        """
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            if epoch > most:
                continue
            folder = self._directory / str(epoch)
            try:
                return processes.raise_on_all(_read, self._readable / str(epoch), abstract_state)
            except Exception as error:  # a damaged state can make Orbax raise anything
                signals.raise_if_interrupted()
                if isinstance(error, RequestError | PermissionError | MemoryError) or is_out_of_memory(error):
                    raise
                say(f"{folder} is damaged ({first_line(error)[:80]}); going on from the state before it")
                processes.broadcast_from_process0(lambda folder=folder: shutil.rmtree(folder))  # type: ignore[misc]
                self._manager.reload()
        return None

    def keep_only(self, epochs: Sequence[int]) -> None:
        """Deletes all other states. Call it after the last epoch: no training resumes from them."""
        self.wait()
        for epoch in sorted({*self._manager.all_steps()} - {*epochs}):
            self._manager.delete(epoch)

    def wait(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk, and closes the directory."""
        with self._stack:
            self._manager.close()


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[Path]:
    """Yields an absolute path of a directory that Orbax can use: a temporary link if the name has special characters.

    Orbax searches the path as a glob pattern, so a name with brackets never matches. TensorStore reads a backslash as a
    slash, and a colon before a slash as the end of a URL scheme.
    """
    directory = directory.absolute()
    if not re.search(r"[][*?\\]|:/", str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="cnnjax-") as folder:
        link = Path(folder) / "checkpoints"
        link.symlink_to(directory)
        yield link


def saved_epochs(directory: Path) -> list[int]:
    """Returns the epochs whose states a directory holds, in order; none if it does not exist."""
    return sorted(ocp.utils.checkpoint_steps(directory.absolute())) if directory.is_dir() else []


def read_variables(directory: Path, epoch: int, best: bool, abstract_variables: Any) -> tuple[list[str], dict]:
    """Reads only the weights of a state, on whatever devices it was written.

    Args:
        directory: of the batch of members.
        epoch: one of `saved_epochs`.
        best: whether to read the weights of each member's best epoch, if it has one, instead of the newest.
        abstract_variables: nested dict of jax.ShapeDtypeStruct, the variables of one member.

    Returns:
        The members' ids, and their variables: a nested dict of numpy arrays with the members' axis first.

    Raises:
        Damaged: the state is damaged.
        RequestError: the state does not fit in memory.
    """
    folder = directory.absolute() / str(epoch)
    try:
        with _readable(directory) as readable:
            members, saved = _read_variables(readable / str(epoch), best, abstract_variables)
    except Exception as error:  # a damaged state can make Orbax raise anything
        if isinstance(error, RequestError | PermissionError | MemoryError):
            raise
        advice = "to train its trials again, delete it and their predictions, and run the study's command again"
        raise Damaged(folder, first_line(error)[:120], advice) from error
    if not best:
        return members, _variables(saved, abstract_variables)
    has_best = saved["best"]["epoch"] > 0

    def choose(best: np.ndarray, newest: np.ndarray) -> np.ndarray:
        return np.where(has_best.reshape(-1, *[1] * (best.ndim - 1)), best, newest)

    both = (_variables(tree, abstract_variables) for tree in (saved["best"], saved))
    return members, jax.tree.map(choose, *both)


def _variables(saved: dict, names: Iterable[str]) -> dict:
    saved = saved.get("variables", saved)
    return {name: saved[name] for name in names}


def _read(folder: Path, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a state with Orbax's handlers: Orbax's checkpointers would wait for processes that may have failed."""
    meta = _read_meta(folder)
    _check_names(folder, meta, abstract_state)
    wanted, stored = count_members(abstract_state), len(meta["members"])
    if wanted == stored:
        state = _read_state(folder, abstract_state)
        _check(state, meta)
        # Copies to buffers that XLA owns, as those of a new state: a program runs alike on both.
        return jax.tree.map(jax.numpy.array, state), meta
    on_host = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((stored, *leaf.shape[1:]), leaf.dtype), abstract_state)
    _check_memory(folder, on_host)
    # Read as NumPy arrays, because the stored number of members may not divide among the devices.
    state = _read_state(folder, jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), on_host))
    _check(state, meta)
    members = list(range(len(set(meta["members"]))))
    rows = members + [0] * (wanted - len(members))
    sharding = jax.tree.leaves(abstract_state)[0].sharding
    return put(jax.tree.map(lambda leaf: leaf[rows], state), sharding), meta


def _read_meta(folder: Path) -> dict[str, Any]:
    meta = verify_checksum(ocp.JsonCheckpointHandler().restore(folder / "meta"))
    schema.check("checkpoint", meta)
    if meta["epoch"] != int(folder.name):
        raise ValueError(f"its metadata names epoch {meta['epoch']}")
    return meta


def _read_state(folder: Path, abstract_state: Any) -> Any:
    used = _used(abstract_state)
    found = ocp.StandardCheckpointHandler().restore(folder / "state", args=ocp.args.StandardRestore(used))
    return found if used is abstract_state else type(abstract_state)(**found)


def _used(state: Any) -> Any:
    """Returns a state without the optional fields that are None: states of older versions do not have them."""
    defaults = getattr(state, "_field_defaults", {})
    unused = [name for name in defaults if getattr(state, name) is None]
    return {name: getattr(state, name) for name in state._fields if name not in unused} if unused else state


def _read_variables(folder: Path, best: bool, abstract_variables: Any) -> tuple[list[str], dict]:
    meta = _read_meta(folder)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.handler.metadata(folder / "state").tree
        # Older states hold params and batch_stats together, as `variables`.
        stored = {"variables": abstract_variables} if "variables" in tree else abstract_variables
        wanted = dict(stored)
        if best:
            wanted["best"] = {**stored, "epoch": jax.ShapeDtypeStruct((), np.int32)}
        members = len(meta["members"])
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), wanted)
        _check_memory(folder, wanted)
        saved = {name: tree[name] for name in wanted}
        if best:
            saved["best"] = {name: tree["best"][name] for name in wanted["best"]}
        _check_shapes(saved, wanted)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        arguments = ocp.args.PyTreeRestore(saved, restore_args=as_numpy, partial_restore=True)
        state = reader.restore(folder / "state", args=arguments)
    _check(state, meta)
    return meta["members"], state


def _check_names(folder: Path, meta: dict[str, Any], abstract_state: Any) -> None:
    """Raises RequestError if another version of cnnjax, with other arrays in its states, wrote a state."""
    wanted = _shapes(abstract_state).keys()
    if other := set(meta.get("checksums", wanted)) ^ wanted:
        problem = f"another version of cnnjax wrote it, whose states differ ({min(other)})"
        advice = f"go on with that version, or delete {folder.parent} to train its trials from the beginning"
        raise RequestError("workdir", str(folder), f"{problem}; {advice}")


def _check_memory(folder: Path, abstract: Any) -> None:
    """Raises RequestError if a state's arrays do not fit in the memory of this machine."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
    if size > (free := psutil.virtual_memory().available):
        problem = f"its arrays take {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; free some memory"
        raise RequestError("workdir", str(folder), problem)


def _check_shapes(saved: Any, abstract: Any) -> None:
    """Raises ValueError, before any array is read, if the arrays in Orbax's metadata have other shapes."""
    for name, (stored, wanted) in differences(_shapes(saved), _shapes(abstract)).items():
        raise ValueError(f"{name} has shape {stored}, expected {wanted}")


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in _by_path(tree).items()}


def _checksums(state: Any) -> dict[str, list[int]]:
    """Returns the CRC-32 of each member of each array by the array's path, gathered from all processes."""
    found = _checksums_here(state)
    is_spread = any(not leaf.is_fully_addressable for leaf in jax.tree.leaves(state))
    every = processes.gather([list(sums.items()) for sums in found.values()]) if is_spread else []
    for theirs in every:
        for sums, more in zip(found.values(), theirs, strict=True):
            sums.update(more)
    return {name: [sums[member] for member in sorted(sums)] for name, sums in found.items()}


def _checksums_here(state: Any) -> dict[str, dict[int, int]]:
    """Returns the CRC-32 of each member that this process holds, by the array's path and the member's index."""
    found = {}
    for path, leaf in _by_path(state).items():
        parts = [(0, leaf)]
        if isinstance(leaf, jax.Array):
            parts = [(shard.index[0].start or 0, shard.data) for shard in leaf.addressable_shards]
        found[path] = {
            first + i: zlib.crc32(np.ascontiguousarray(member).data)
            for first, part in parts
            for i, member in enumerate(np.asarray(part))
        }
    return found


def _check(state: Any, meta: dict[str, Any]) -> None:
    """Raises ValueError if the arrays that this process holds differ from those that were saved."""
    if "checksums" not in meta:
        return
    for name, sums in _checksums_here(state).items():
        expected = meta["checksums"].get(name, [])
        if any(member >= len(expected) or crc != expected[member] for member, crc in sums.items()):
            raise ValueError(f"the checksum of {name} is wrong")
