"""A core for each member, where nobody said otherwise."""

import json
import os
import subprocess
import sys

import pytest

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
SCRIPT = """
import json, os, sys
from cnnjax.devices import use_every_core
use_every_core(int(sys.argv[1]))
import jax
devices = jax.local_device_count()
use_every_core(devices + 1)  # too late to change anything
print(json.dumps([devices, jax.local_device_count(), os.environ.get("XLA_FLAGS", "")]))
"""


def devices_for(members, flags=""):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(members)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(CORES < 2, reason="one core")
def test_as_many_devices_as_cores_and_no_helping_threads():
    assert devices_for(100) == [CORES, CORES, "--xla_cpu_multi_thread_eigen=false"]


def test_one_member_keeps_all_threads():
    assert devices_for(1) == [1, 1, ""]


def test_what_the_user_said_stays():
    flag = "--xla_force_host_platform_device_count=3"
    assert devices_for(100, flag) == [3, 3, flag]
