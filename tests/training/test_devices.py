"""By default each member gets its own core."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
SCRIPT = """
import json, os, sys
from cnnjax.training.devices import use_every_core
assert use_every_core(int(sys.argv[1])) is None
import jax
devices = jax.local_device_count()
said = use_every_core(100), use_every_core(1)  # too late to change anything
print(json.dumps([devices, jax.local_device_count(), os.environ.get("XLA_FLAGS", ""), said]))
"""

EVERY_MODULE = """
import importlib, pkgutil
import cnnjax, jax
for module in pkgutil.walk_packages(cnnjax.__path__, "cnnjax."):
    if not module.name.endswith(("__main__", "_engine")):
        importlib.import_module(module.name)
jax.config.update("jax_num_cpu_devices", 2)  # refused from jax's first use on
"""

LOADED = """
import json
from cnnjax.study.overrides import read_study
from cnnjax.training.program import load_data, load_plan, prepare_jax
study = read_study({"models": ("baseline", "medium"), "seeds": range(100)})
plan = load_plan(study)
too_late = prepare_jax(plan)
load_data(study)
import jax
print(json.dumps([jax.local_device_count(), too_late]))
"""

# conftest's flag is for one device.
SPREAD = """
import json, os
from tests.support import studies
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, pytest
import numpy as np
from tests.training.test_population import Bench
studies.add_tiny(pytest.MonkeyPatch())
study = studies.make_study(seeds=tuple(range(8)), data={"augment": ("flip", "crop:1")})
found = {}
for devices, shards, backend in (1, 1, "cpu"), (8, 1, "cpu"), (4, 2, "cpu"), (4, 2, "gpu"):
    jax.default_backend = lambda: backend  # members side by side on a GPU
    bench = Bench(study, devices, shards)
    state, history = bench.train(bench.members, 2)
    used = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state.variables)}
    arrays = jax.tree.leaves((state.variables, history))
    found[f"{devices} {shards} {backend}"] = [*used], [np.asarray(leaf).ravel().tolist() for leaf in arrays]
print(json.dumps(found))
"""


def devices_for(members, flags=""):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(members)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(CORES < 2, reason="one core")
def test_as_many_devices_as_cores_and_no_helping_threads():
    assert devices_for(100) == [CORES, CORES, "--xla_cpu_multi_thread_eigen=false", [None, None]]


@pytest.mark.skipif(CORES < 2, reason="one core")
def test_a_study_that_is_read_and_planned_still_gets_every_core():
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, env=environment)
    assert json.loads(done.stdout) == [CORES, None], done.stderr


@pytest.mark.slow
def test_no_import_begins_to_use_jax():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(CORES < 2, reason="one core")
def test_one_member_keeps_all_threads_and_a_later_study_says_that_it_lacks_cores():
    *found, (late, one) = devices_for(1)
    assert found == [1, 1, ""] and one is None
    assert f"trains on 1 of {CORES} CPU cores" in late and "\n" not in late


def test_the_users_flag_is_kept():
    flag = "--xla_force_host_platform_device_count=3"
    assert devices_for(100, flag) == [3, 3, flag, [None, None]]


@pytest.mark.slow
def test_members_spread_over_several_devices_and_batches_in_shards_end_as_on_one():
    done = subprocess.run(
        [sys.executable, "-c", SPREAD],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for devices, (used, arrays) in found.items():
        assert used == [int(devices.split()[0])]
        for one, other in zip(found["1 1 cpu"][1], arrays, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
