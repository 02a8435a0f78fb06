"""Checkpoints of populations. The only file that imports orbax."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The newest states of one chunk of a program's members, in one Orbax directory.

    Each state holds every member's newest weights and, where there is a validation split, its best ones. Saving goes
    on in the background; a save that a kill interrupts is ignored when the directory is read again.
    """

    def __init__(self, directory: Path, keep: int):
        self._manager = ocp.CheckpointManager(
            directory.absolute(),  # orbax fails silently on a relative path
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
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
