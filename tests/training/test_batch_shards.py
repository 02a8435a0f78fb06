"""A batch in shards trains as a whole one. `jax.vmap` stands in for the devices; `test_devices` has several."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models.modules import dropout
from cnnjax.models.network import build_network, initial_variables
from cnnjax.models.shards import AXIS
from cnnjax.study.plan import make_plan
from cnnjax.training import evaluate
from cnnjax.training.evaluate import DeviceSplit
from cnnjax.training.layout import shards_of, useful_devices
from cnnjax.training.train import train_epoch
from tests.support.studies import make_study
from tests.training.test_population import Bench, member_of

RESUMED = """
import os, pathlib, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import pytest
from cnnjax.runs.run_dir import RunFolder
from cnnjax.training.population import Population
from tests.support import runs, studies
patch = pytest.MonkeyPatch()
studies.add_tiny(patch)
studies.make_quick(patch)
patch.setattr("cnnjax.training.layout._LEAST_OPERATIONS", 1)
patch.setattr("cnnjax.training.layout._LEAST_EXAMPLES", {"cpu": 16})
whole, resumed = (pathlib.Path(sys.argv[1]) / name for name in ("whole", "resumed"))
study = studies.make_study(train={"epochs": 3}, checkpoint={"every": 1})
runs.run(study, whole)
advance, calls = Population.advance, []
def crash_in_epoch_2(*arguments):
    calls.append(arguments)
    if len(calls) == 2:
        raise runs.Crash
    return advance(*arguments)
patch.setattr(Population, "advance", crash_in_epoch_2)
with pytest.raises(runs.Crash):
    runs.run(study, resumed)
runs.run(study, resumed)
assert len(calls) == 4
assert RunFolder(resumed).read_mesh(*runs.program_ids(resumed)) == (1, 2)
assert runs.read_all(resumed) == runs.read_all(whole)
assert runs.read_weights(resumed) == runs.read_weights(whole)
"""


def over_shards(function, shards, *in_axes):
    return jax.vmap(function, in_axes or None, axis_name=AXIS, axis_size=shards)


def static_of(**changes):
    return make_plan(make_study(**changes)).programs[0].static


@pytest.mark.parametrize(
    ("members", "devices", "shards"),
    [(1, 1, 1), (1, 2, 2), (2, 2, 1), (3, 2, 2), (4, 2, 1), (2, 4, 2), (1, 4, 4), (3, 4, 1), (1, 16, 4), (5, 1, 1)],
)
def test_devices_that_members_leave_idle_share_batches(members, devices, shards, tiny):
    static = static_of(train={"batch_size": 128})
    assert shards_of(static, 1e6, members, devices, "cpu") == shards
    assert shards_of(static, 1e6, members, devices, "gpu") == 1  # so small a batch


def test_what_may_not_be_split_and_what_a_run_has_recorded(tiny, tmp_path):
    (tmp_path / "own.py").write_text("def loss(logits, targets):\n    return -(logits * targets).sum(-1)\n")
    for changes in ({"models": ("resnet20",)}, {"train": {"batch_size": 32}}, {"train": {"batch_size": 75}}):
        assert shards_of(static_of(**changes), 1e6, 1, 2, "cpu") == 1
    assert shards_of(static_of(train={"loss": f"{tmp_path}/own.py:loss"}), 1e6, 1, 2, "cpu") == 1
    static = static_of(train={"batch_size": 128})
    assert shards_of(static, 1e5, 1, 2, "cpu") == 1  # the devices would wait for each other
    assert shards_of(static, 1e6, 4, 4, "cpu", (2, 2)) == 2
    for refused in (1, 2), (4,), (2, 2, 1), (0, 4), (0, 0):  # another number of devices, or damage
        assert shards_of(static, 1e6, 4, 4, "cpu", refused) == 1


def test_a_study_gets_the_devices_that_it_can_use(tiny, monkeypatch):
    monkeypatch.setattr("cnnjax.multihost.processes.usable_cores", lambda: 16)

    def useful(batch_size, seeds):
        study = make_study(seeds=tuple(range(seeds)), train={"batch_size": batch_size})
        return useful_devices(make_plan(study).programs)

    assert [useful(128, seeds) for seeds in (1, 3, 5, 20)] == [4, 12, 10, 20]
    assert [useful(32, seeds) for seeds in (1, 3)] == [1, 3]
    assert [useful((64, 128), seeds) for seeds in (1, 20)] == [2, 20]
    assert useful((32, 128), 1) == 1  # one of two programs cannot use more


@pytest.mark.slow
def test_dropout_of_channels_has_the_mask_of_the_whole_batch():
    x, key, rate = jnp.ones((8, 3, 3, 4)), jax.random.key(0), jnp.float32(0.4)
    whole = dropout(x, rate, key, (8, 1, 1, 4))
    parts = over_shards(lambda part: dropout(part, rate, key, (2, 1, 1, 4), 4), 4, 0)(x.reshape(4, 2, 3, 3, 4))
    np.testing.assert_array_equal(parts.reshape(x.shape), whole)
    assert 0 < (whole == 0).mean() < 1


@pytest.mark.slow
def test_an_evaluation_counts_every_example_once(monkeypatch):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 4)
    rng, count = np.random.default_rng(0), 22
    images, labels = rng.integers(0, 256, (count, 4, 4, 1), np.uint8), rng.integers(0, 3, count).astype(np.int32)
    split = DeviceSplit(jnp.array(images), jnp.array(labels), jnp.array([1 / 255]), jnp.array([0.5]))
    network = build_network("baseline", 3)
    variables = initial_variables(network, (4, 4, 1), "he", jax.random.key(0))
    sharded = over_shards(lambda: evaluate.evaluate(network, variables, split, shards=3), 3)()
    for values, expected in zip(sharded, evaluate.evaluate(network, variables, split), strict=True):
        np.testing.assert_allclose(values, [expected] * 3, rtol=1e-5)
    predicted = over_shards(lambda: evaluate.predict(network, variables, split, shards=3), 3)()
    expected = np.asarray(evaluate.predict(network, variables, split), np.float32)
    np.testing.assert_allclose(predicted, [expected] * 3, atol=2e-3)


@pytest.mark.slow
def test_an_epoch_has_the_same_order_augmentation_and_dropout(tiny):
    """If one draw differed, results would. The last batch of 59 images does not divide among two devices."""
    data = {"augment": ("flip", "mixup:1"), "train_examples": 187}
    bench = Bench(make_study(data=data, train={"batch_size": 64, "class_weights": "balanced"}))
    population, (hparams, streams) = bench.population, bench.population.stack(bench.members)
    hparams, streams, start = (
        jax.tree.map(jnp.asarray, member_of(tree, 0)) for tree in (hparams, streams, bench.init(bench.members))
    )
    splits = bench.splits

    def epoch(shards):
        config = population.config._replace(shards=shards)
        return train_epoch(start, hparams, streams, splits.train, splits.validation, config)

    whole = jax.jit(lambda: epoch(1))()
    sharded = jax.jit(over_shards(lambda: epoch(2), 2))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, [a, a], rtol=1e-4, atol=1e-5), whole, sharded)


@pytest.mark.slow
def test_a_killed_run_of_shards_resumes_with_the_same_bits(tmp_path):
    command = [sys.executable, "-c", RESUMED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
