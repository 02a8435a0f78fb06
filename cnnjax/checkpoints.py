"""Checkpoints of populations. The only file that imports orbax."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN


class Checkpoints:
    """States of one chunk of a program's members, in one Orbax directory.

    Each state holds every member's newest weights and, where there is a validation split, its best ones. Saving goes
    on in the background; a save that a kill interrupts is ignored when the directory is read again.

    Args:
        directory: of the chunk.
        keep: how many of the newest states stay.
        stops: epochs whose states stay, however old: there a trial ends, and its weights are those.
    """

    def __init__(self, directory: Path, keep: int, stops: Sequence[int] = ()):
        policy = AnyPreservationPolicy([LatestN(keep), CustomSteps(stops)])
        self._manager = ocp.CheckpointManager(
            directory.absolute(),  # orbax fails silently on a relative path
            options=ocp.CheckpointManagerOptions(preservation_policy=policy),
        )

    def save(self, epoch: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts to write a state (a pytree of arrays) and its meta data (JSON values), named by its epoch."""
        if epoch in self._manager.all_steps():
            return  # a resumed chunk that is as far as it was: orbax would refuse silently
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(epoch, args=arguments)

    def restore(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """Reads the newest state.

        Args:
            abstract_state: pytree of jax.ShapeDtypeStruct with the wanted sharding.

        Returns:
            The state and its meta data, or None where nothing was saved yet.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(epoch, args=arguments)
        # Buffers that XLA owns, not numpy's: a program runs alike on restored and on fresh arrays.
        return jax.tree.map(jax.numpy.array, restored.state), restored.meta

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
    """
    folder = directory.absolute() / str(epoch)
    meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "meta")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.handler.metadata(folder / "state").tree
        saved = {"variables": tree["variables"]}
        if best:
            saved["best"] = {name: tree["best"][name] for name in ("variables", "epoch")}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        arguments = ocp.args.PyTreeRestore(saved, restore_args=as_numpy, partial_restore=True)
        state = reader.restore(folder / "state", args=arguments)
    if not best:
        return meta["members"], state["variables"]
    has_best = state["best"]["epoch"] > 0

    def choose(kept: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.where(has_best.reshape(-1, *[1] * (kept.ndim - 1)), kept, last)

    return meta["members"], jax.tree.map(choose, state["best"]["variables"], state["variables"])
