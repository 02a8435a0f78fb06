"""States on disk: saved states are read back, whatever the name of the parent folder."""

import jax
import numpy as np
import pytest

from cnnjax.training.checkpoints import Checkpoints, read_variables, saved_epochs

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
    state = jax.device_put({"params": np.arange(6.0, dtype=np.float32).reshape(2, 3)})
    saving = Checkpoints(directory, keep=1, stops=[1])
    for epoch in (1, 2):
        saving.save(epoch, state, {"epoch": epoch, "members": ["t0000", "t0001"]})
    saving.close()
    assert saved_epochs(directory) == [1, 2]
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    reading, said = Checkpoints(directory, keep=1), []
    restored, meta = reading.restore(abstract, 9, said.append)
    reading.close()
    np.testing.assert_array_equal(restored["params"], state["params"])
    assert (meta["epoch"], said) == (2, [])
    members, variables = read_variables(directory, 1, False, {"params": jax.ShapeDtypeStruct((3,), np.float32)})
    assert members == ["t0000", "t0001"]
    np.testing.assert_array_equal(variables["params"], state["params"])


@pytest.mark.parametrize("best", [False, True])
def test_the_weights_of_an_older_run_are_read(tmp_path, best):
    """Older states hold all variables in one field, and their other fields have other names."""
    newest, kept = (
        {"params": {"w": np.full((2, 3), v, np.float32)}, "batch_stats": {"m": np.full((2, 1), v)}} for v in (1, 2)
    )
    state = {
        "variables": newest,
        "waited": np.zeros(2),
        "best": {"variables": kept, "epoch": np.array([0, 3], np.int32)},
    }
    saving = Checkpoints(tmp_path / "t0000-t0001", keep=1)
    saving.save(4, jax.device_put(state), {"epoch": 4, "members": ["t0000", "t0001"]})
    saving.close()
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], np.float32), newest)
    _, variables = read_variables(tmp_path / "t0000-t0001", 4, best, shapes)
    expected = [1, 2] if best else [1, 1]
    np.testing.assert_array_equal(variables["params"]["w"][:, 0], expected)
    np.testing.assert_array_equal(variables["batch_stats"]["m"][:, 0], expected)
