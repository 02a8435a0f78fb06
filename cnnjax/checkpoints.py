"""Checkpoints of populations. The only file that imports orbax."""

import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from cnnjax.devices import is_out_of_memory
from cnnjax.sealed import Damaged, seal, unseal


class Checkpoints:
    """States of one chunk of a program's members, in one Orbax directory.

    Each state holds every member's newest weights and, where there is a validation split, its best ones. Saving goes
    on in the background; a save that a kill interrupts is ignored when the directory is read again. Orbax notices most
    damage to its files, but not to the numbers themselves: their checksums stand in the meta data.

    Args:
        directory: of the chunk.
        keep: how many of the newest states stay.
        stops: epochs whose states stay, however old: there a trial ends, and its weights are those.
    """

    def __init__(self, directory: Path, keep: int, stops: Sequence[int] = ()):
        policy = AnyPreservationPolicy([LatestN(keep), CustomSteps(stops)])
        self._directory = directory.absolute()  # orbax fails silently on a relative path
        self._manager = ocp.CheckpointManager(
            self._directory, options=ocp.CheckpointManagerOptions(preservation_policy=policy)
        )

    def save(self, epoch: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts to write a state (a pytree of arrays) and its meta data (JSON values), named by its epoch."""
        if epoch in self._manager.all_steps():
            return  # a resumed chunk that is as far as it was: orbax would refuse silently
        sealed = seal({**meta, "arrays": _checksums(state)})
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(sealed))
        self._manager.save(epoch, args=arguments)

    def restore(
        self, abstract_state: Any, most: int, say: Callable[[str], None] = lambda _: None
    ) -> tuple[Any, dict[str, Any]] | None:
        """Reads the newest state that is whole; deletes damaged ones, so that they can be written again.

        Args:
            abstract_state: pytree of jax.ShapeDtypeStruct with the wanted sharding.
            most: the last epoch that is wanted.
            say: told of each damaged state.

        Returns:
            The state and its meta data, or None where there is none.
        """
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            if epoch > most:
                continue
            try:
                return self._read(epoch, abstract_state)
            except Exception as error:  # a damaged state can make orbax raise anything
                if isinstance(error, PermissionError | MemoryError) or is_out_of_memory(error):
                    raise
                what = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
                say(f"{self._directory / str(epoch)} is damaged ({what}); going on from the state before it")
                shutil.rmtree(self._directory / str(epoch))
                self._manager.reload()
        return None

    def _read(self, epoch: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(epoch, args=arguments)
        meta = unseal(restored.meta)
        _check(restored.state, meta)
        # Buffers that XLA owns, not numpy's: a program runs alike on restored and on fresh arrays.
        return jax.tree.map(jax.numpy.array, restored.state), meta

    def wait(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk, and ends."""
        self._manager.close()


def saved_epochs(directory: Path) -> list[int]:
    """Returns the epochs whose states a chunk's directory holds, in order; none where there is no directory."""
    return sorted(ocp.utils.checkpoint_steps(directory.absolute())) if directory.is_dir() else []


def read_variables(directory: Path, epoch: int, best: bool) -> tuple[list[str], dict]:
    """Reads the weights of a chunk, and nothing else of its state, on whatever devices it was written.

    Args:
        directory: of the chunk.
        epoch: one of `saved_epochs`.
        best: the weights of each member's best epoch, where it has one, instead of the last.

    Returns:
        The members' ids, and their variables: a nested dict of numpy arrays with the members' axis first.

    Raises:
        Damaged: the state is not what was written.
    """
    folder = directory.absolute() / str(epoch)
    try:
        members, saved = _read_variables(folder, best)
    except Exception as error:  # a damaged state can make orbax raise anything
        if isinstance(error, PermissionError | MemoryError):
            raise
        cure = "to train its trials again, delete it and their predictions, and start the study again"
        raise Damaged(folder, str(error).splitlines()[0][:120] if str(error) else type(error).__name__, cure) from error
    if not best:
        return members, saved["variables"]
    has_best = saved["best"]["epoch"] > 0

    def choose(kept: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.where(has_best.reshape(-1, *[1] * (kept.ndim - 1)), kept, last)

    return members, jax.tree.map(choose, saved["best"]["variables"], saved["variables"])


def _read_variables(folder: Path, best: bool) -> tuple[list[str], dict]:
    meta = unseal(ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "meta"))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.handler.metadata(folder / "state").tree
        saved = {"variables": tree["variables"]}
        if best:
            saved["best"] = {name: tree["best"][name] for name in ("variables", "epoch")}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        arguments = ocp.args.PyTreeRestore(saved, restore_args=as_numpy, partial_restore=True)
        state = reader.restore(folder / "state", args=arguments)
    _check(state, meta)
    return meta["members"], state


def _checksums(state: Any) -> dict[str, str]:
    """The CRC-32 of each array of a pytree by its path, which is the same in what orbax reads back."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{zlib.crc32(np.ascontiguousarray(leaf).data):08x}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _check(state: Any, meta: dict[str, Any]) -> None:
    expected = meta.get("arrays", {})
    for name, found in _checksums(state).items():
        if expected and found != expected.get(name):
            raise ValueError(f"the checksum of {name} is another")
