"""States on disk: whatever the folder above them is called, what was saved is read back."""

import jax
import numpy as np
import pytest

from cnnjax.checkpoints import Checkpoints, read_variables, saved_epochs

NAMES = (
    "plain",
    "a [1]",
    "[!a]",
    "a*b",
    "a?b",
    "back\\slash",
    "gs:",
    "s3:",
    "per%20cent",
    "#1",
    "{x}",
    "~x",
    "$x",
    "ü日",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_read_back_from_a_folder_of_any_name(tmp_path, name):
    directory = tmp_path / name / "p000" / "t0000-t0001"
    state = jax.device_put({"variables": {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3)}})
    saving = Checkpoints(directory, keep=1, stops=[1])
    for epoch in (1, 2):
        saving.save(epoch, state, {"epoch": epoch, "members": ["t0000", "t0001"]})
    saving.close()
    assert saved_epochs(directory) == [1, 2]
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    reading, said = Checkpoints(directory, keep=1), []
    restored, meta = reading.restore(abstract, 9, said.append)
    reading.close()
    np.testing.assert_array_equal(restored["variables"]["w"], state["variables"]["w"])
    assert (meta["epoch"], said) == (2, [])
    members, variables = read_variables(directory, 1, False, {"w": jax.ShapeDtypeStruct((3,), np.float32)})
    assert members == ["t0000", "t0001"]
    np.testing.assert_array_equal(variables["w"], state["variables"]["w"])
