"""Ray and submitit themselves, on this machine: workers that are killed, put back into the queue and interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cnnjax.runs.integrity import read_lines
from cnnjax.runs.run_dir import RunFolder
from cnnjax.utils.errors import RequestError
from tests.executors.test_driver import read_all
from tests.support.runs import program_ids, trial_ids
from tests.support.studies import ROUGH_FLAGS

pytestmark = [pytest.mark.engines, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CONFIG = """
def get_config():
    return {
        "models": ("nets.py:Plain",),
        "select": "val_loss",
        "data": {"name": "digits", "train_examples": 200, "validation": 50},
        "train": {"batch_size": (50, 40), "epochs": (2, 40), "optimizer": "sgd", "learning_rate": 0.05},
    }
"""
NETS = """
import flax.linen as nn

class Plain(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(32, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))
"""
# As Ray's constants say on macOS and Windows: nothing listens but on 127.0.0.1.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
ENVIRONMENT = {**LOOPBACK, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ROUGH_FLAGS}


def start(tmp_path, workdir, *flags, **variables):
    """The launch command on two programs of one member, 40 epochs each, of a network in the user's own file."""
    config = tmp_path / "config.py"
    (tmp_path / "nets.py").write_text(NETS)
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "tests.support.bare_launch", f"--config={config}", f"--workdir={workdir}", *flags]
    environment = {**os.environ, **ENVIRONMENT, **variables}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process, seconds=240):
    """Waits for a launch; returns its exit code and what it said."""
    try:
        _, said = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, said


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """What one process writes."""
    tmp_path = tmp_path_factory.mktemp("serial")
    code, said = finish(start(tmp_path, tmp_path / "run"))
    assert code == 0, said
    return tmp_path / "run"


def wait_for_epoch(workdir, program, launch):
    """Waits until a program's worker has trained an epoch; returns the worker's process id."""
    records = workdir / "programs" / program
    end = time.monotonic() + 240
    while time.monotonic() < end and launch.poll() is None:
        said = read_lines(records / "progress.jsonl").intact
        notes = [line["values"][0] for line in said if line["call"] == "note"]
        if notes and any("train_loss" in line for line in read_lines(records / "metrics.jsonl").intact):
            return int(notes[-1].split()[1])
        time.sleep(0.02)
    raise AssertionError(f"{program} was not trained: {launch.stderr.read() if launch.poll() is not None else ''}")


def processes_of(name):
    return [p.pid for p in psutil.process_iter(["name", "cmdline"]) if name in " ".join(p.info["cmdline"] or ())]


# Ray


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes with a CPU each, in a process of its own; its address."""
    script = (
        "import sys; from ray.cluster_utils import Cluster\n"
        "node = {'num_cpus': 1, 'object_store_memory': 100 * 2**20, 'include_dashboard': False}\n"
        "cluster = Cluster(initialize_head=True, head_node_args=node)\n"
        "cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)\n"
        "print(cluster.address, flush=True); sys.stdin.read(); cluster.shutdown()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | ENVIRONMENT
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, **pipes)
    address = process.stdout.readline().strip()
    assert address.startswith("127.0.0.1:")
    yield address
    process.communicate(timeout=60)


def test_a_killed_worker_is_started_again_on_a_cluster_and_goes_on(cluster, serial, tmp_path):
    first, second = program_ids(serial)
    launch = start(tmp_path, tmp_path / "run", "--executor=ray", f"--ray_address={cluster}")
    killed = wait_for_epoch(tmp_path / "run", first, launch)
    os.kill(killed, signal.SIGKILL)
    code, said = finish(launch)
    assert code == 0, said
    assert "Ray, 2 nodes: 1 CPU for each of 2 programs" in said
    assert said.count(f"{first}: process ") == 2 and said.count(f"{second}: process ") == 1
    assert read_all(tmp_path / "run") == read_all(serial)


def test_more_cpus_than_a_node_has_are_refused(cluster, tmp_path):
    flags = ("--executor=ray", f"--ray_address={cluster}", "--task_cpus=9")
    code, said = finish(start(tmp_path, tmp_path / "run", *flags))
    assert code == 2 and "error: --task_cpus must be at most 1" in said


def test_an_interrupt_ends_the_cluster_of_this_machine_in_order(serial, tmp_path):
    before = set(processes_of("raylet"))
    launch = start(tmp_path, tmp_path / "run", "--executor=ray")
    wait_for_epoch(tmp_path / "run", program_ids(serial)[0], launch)
    launch.send_signal(signal.SIGINT)
    code, said = finish(launch)
    assert code == 130
    assert said.endswith("interrupted: run the same command again to resume from the last state on disk\n")
    assert set(processes_of("raylet")) <= before
    assert (tmp_path / "run/metrics.jsonl").read_bytes()  # the view, of what the worker wrote
    code, said = finish(start(tmp_path, tmp_path / "run"))
    assert code == 0, said
    assert read_all(tmp_path / "run") == read_all(serial)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", r"='127\.0\.0\.1:1': .*ray start --head"),
        ("nonsense", r" must be HOST:PORT .*ray start --head.* got 'nonsense'"),
        ("127.0.0.1:port", r" must be HOST:PORT .*ray start --head.* got '127\.0\.0\.1:port'"),
    ],
)
def test_an_address_where_no_cluster_answers_is_refused(address, said):
    from cnnjax.executors.ray import RayEngine

    with pytest.raises(RequestError, match=f"^--ray_address{said}"):
        RayEngine(address, None).__enter__()


# submitit


def test_a_job_that_is_put_back_goes_on_and_one_that_dies_is_said(serial, tmp_path):
    first, second = program_ids(serial)
    launch = start(tmp_path, tmp_path / "run", "--executor=submitit", "--cluster=local")
    os.kill(wait_for_epoch(tmp_path / "run", second, launch), signal.SIGKILL)
    os.kill(wait_for_epoch(tmp_path / "run", first, launch), signal.SIGUSR2)  # as when its time is over
    code, said = finish(launch)
    assert code == 1 and said.count(f"{first}: process ") == 2, said
    assert f"RuntimeError: program {second} on a worker: job " in said and "resume from its last checkpoint" in said
    rows = RunFolder(tmp_path / "run").read_trials().keys()
    assert rows in ({*trial_ids(serial)[:2]}, {*trial_ids(serial)[:3]})
    code, said = finish(start(tmp_path, tmp_path / "run", "--executor=submitit", "--cluster=local"))
    assert code == 0, said
    assert read_all(tmp_path / "run") == read_all(serial)


def test_a_job_that_is_put_back_waits_for_no_thread():
    """As those of orbax, which at the interpreter's end wait five minutes for a state that was begun."""
    lines = (
        "import sys, threading, time",
        "from cnnjax.executors import slurm",
        "def work(task):",
        "    threading.Thread(target=time.sleep, args=(600,)).start()",
        "    print('put back')",
        "    sys.exit(task)",
        "slurm.work = work",
        "slurm.Resumable()(144)",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (144, "put back\n"), done.stderr


# What of SLURM submitit calls, in short: jobs start at once.
SLURM = {
    "sbatch": """
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
count = int(re.search("--array=0-([0-9]+)", text).group(1)) + 1
for index in range(count):
    job = {"SLURM_JOB_ID": str(70 + index), "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(["bash", sys.argv[1]], env={**os.environ, **job}, **silent)
print("Submitted batch job 7")
""",
    "srun": """
import os, sys
place = {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
place |= {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
command = sys.argv[sys.argv.index("-u") - 1 :]
os.execve(command[0], command, {**os.environ, **place})
""",
    "sacct": "print('JobID|State|NodeList')",
}


def test_an_array_of_jobs_is_submitted_to_slurm_and_followed(serial, tmp_path):
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!{sys.executable}{script if script[0] == chr(10) else chr(10) + script}")
        (tmp_path / name).chmod(0o700)
    flags = ("--executor=submitit", "--task_cpus=1", "--slurm=partition=gpu,gres=gpu:1,time=60")
    path = f"{tmp_path}:{os.environ['PATH']}"
    code, said = finish(start(tmp_path, tmp_path / "run", *flags, PATH=path))
    assert code == 0, said
    assert "submitit, slurm: 2 jobs, 7_0, 7_1; " in said
    (submitted,) = (file.read_text() for file in (tmp_path / "run/jobs").glob("*_submission.sh"))
    for line in ("--partition=gpu", "--gres=gpu:1", "--time=60", "--cpus-per-task=1", "--array=0-1%2"):
        assert f"#SBATCH {line}\n" in submitted
    assert read_all(tmp_path / "run") == read_all(serial)


def test_what_slurm_does_not_know_is_refused(tmp_path):
    flags = ("--executor=submitit", "--cluster=local", "--slurm=partitoin=gpu")
    code, said = finish(start(tmp_path, tmp_path / "run", *flags))
    assert code == 2 and "error: --slurm='partitoin=gpu': Unknown argument 'partitoin'" in said
