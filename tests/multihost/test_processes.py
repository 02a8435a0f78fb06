"""A study of several processes: the same files and numbers, also after a process is killed, and one-line errors."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cnnjax
from cnnjax.runs.integrity import read_lines
from tests.support.runs import batch_sizes, trial_ids
from tests.support.studies import ROUGH_FLAGS

pytestmark = [pytest.mark.engines, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
STUDY = {
    "models": "baseline",
    "seeds": "0,1,2",
    "train.epochs": "4,12",
    "train.batch_size": "50",
    "train.optimizer": "adam",
    "train.learning_rate": "0.001",
    "data.train_examples": "200",
    "checkpoint.every": "1",
}
LAUNCH = ("-m", "cnnjax.launch")
# The same, but a lost process and a folder that is not shared are noticed in seconds, not after JAX's 100 and our 10.
HASTY = """
import functools, runpy
import jax
from cnnjax.multihost import shared_dir
jax.distributed.initialize = functools.partial(jax.distributed.initialize, heartbeat_timeout_seconds=20)
shared_dir._PATIENCE = 1.0
runpy.run_module("cnnjax.launch", run_name="__main__", alter_sys=True)
"""
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def no_process_outlives_its_test(monkeypatch):
    """Kills the processes of a failing test, which would wait for each other."""
    started, start_one = [], subprocess.Popen

    def remembered(*arguments, **named):
        started.append(start_one(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    yield
    for process in started:
        process.kill()
        process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(workdir, *more, study=STUDY, program=LAUNCH):
    """Starts one process of a study."""
    overrides = [f"--config.{key}={value}" for key, value in study.items()]
    command = [sys.executable, *program, f"--config={ROOT}/configs/quickstart.py", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *overrides, *more],
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        env={**os.environ, "XLA_FLAGS": ROUGH_FLAGS, "PYTHONPATH": str(ROOT)},
    )


def start_all(number, workdir, *more):
    """Starts a study with a number of processes."""
    port = free_port()
    place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={number}", "--coordinator_timeout=100"]
    return [start(workdir, *place, f"--process_id={i}", *more, program=("-c", HASTY)) for i in range(number)]


def outcomes(started):
    """Returns exit code, output and errors of each process. Reads all at once, because a full pipe blocks a process."""
    said = {}

    def read(process):
        said[process.pid] = process.communicate(timeout=200)

    threads = [threading.Thread(target=read, args=(process,)) for process in started]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [(process.returncode, *said[process.pid]) for process in started]


def wait_for(workdir, pattern):
    deadline = time.monotonic() + 200
    while not list(workdir.glob(pattern)) and time.monotonic() < deadline:
        time.sleep(0.01)


def last_line(text):
    return text.rstrip("\n").rsplit("\n", 1)[-1]


def assert_equal_runs(one, other):
    a, b = cnnjax.load_results(one), cnnjax.load_results(other)
    timeless = [column for column in a if column not in ("seconds", "images_per_second")]
    pd.testing.assert_frame_equal(a[timeless], b[timeless], check_exact=False, **CLOSE)
    names = [{str(file.relative_to(folder)) for file in folder.rglob("*.*")} for folder in (one, other)]
    differing = {name for name in names[0] ^ names[1] if not name.startswith("checkpoints/")}
    assert not differing
    for file in sorted((one / "predictions").iterdir()):
        for name, array in np.load(file).items():
            same = np.load(other / "predictions" / file.name)[name]
            np.testing.assert_allclose(array.astype(float), same.astype(float), atol=0.01)
    lines = [(x.get("member"), x.get("trial"), x["epoch"]) for x in read_lines(other / "metrics.jsonl").intact]
    assert len(set(lines)) == len(lines)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of the study by one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    ((code, output, errors),) = outcomes([start(workdir)])
    assert code == 0, output + errors
    return workdir


# The same results


def test_two_processes_killed_and_resumed_by_two_by_one_and_by_four_end_with_the_numbers_of_one(alone, tmp_path):
    workdir = tmp_path / "run"
    moments = [(2, 1, "checkpoints/*/*/2"), (2, 0, "checkpoints/*/*/5"), (1, 0, "checkpoints/*/*/7")]
    for number, victim, awaited in moments:
        started = start_all(number, workdir) if number > 1 else [start(workdir)]
        wait_for(workdir, awaited)
        started[victim].kill()
        ends = outcomes(started)
        assert ends[victim][0] == -9, ends
        for code, _, errors in ends[:victim] + ends[victim + 1 :]:
            assert code not in (0, 2) and errors, errors  # JAX's own message
    saved = max(int(step.name) for step in workdir.glob("checkpoints/*/*/*") if step.name.isdigit())
    ends = outcomes(start_all(4, workdir))
    assert [code for code, *_ in ends] == [0] * 4, ends
    assert f"epoch {saved}/" not in ends[0][2] and f"epoch {saved + 1}/12" in ends[0][2]  # no epoch was lost
    assert str(workdir / "report/index.html") in ends[0][1] and workdir.name not in "".join(o for _, o, _ in ends[1:])
    assert not any("epoch" in errors for *_, errors in ends[1:])  # only process 0 prints
    assert batch_sizes(workdir) == [(3, 4)]
    assert_equal_runs(alone, workdir)
    seen = json.loads((workdir / "environment.json").read_text())
    assert len(seen["devices"]) == 4 and len(seen["earlier"][0]["devices"]) == 2
    # The checkpoints of the trials of four epochs were written by two processes, and not changed by four.
    images = np.load(alone / "predictions/images.npz")["images"]
    one, other = (cnnjax.load_trial(folder, trial_ids(alone)[0]).logits(images) for folder in (alone, workdir))
    np.testing.assert_allclose(one, other, atol=0.01)


def test_a_signal_to_all_ends_them_in_order(tmp_path):
    workdir = tmp_path / "run"
    started = start_all(2, workdir)
    wait_for(workdir, "checkpoints/*/*/1")
    for process in started:  # like a batch system
        process.send_signal(signal.SIGTERM)
    for code, _, errors in outcomes(started):
        assert code == 130 and last_line(errors).startswith("interrupted: run the same command again"), errors


def test_a_damaged_checkpoint_is_repaired_by_all_processes(alone, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(alone, workdir)
    (records,) = workdir.glob("programs/*/trials.jsonl")
    records.unlink()
    (chunk,) = workdir.glob("checkpoints/*/*/")
    file = max((chunk / "4/state").rglob("*"), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    ends = outcomes(start_all(2, workdir))
    assert [code for code, *_ in ends] == [0, 0], ends
    assert f"{chunk / '4'} is damaged" in ends[0][2]
    assert_equal_runs(alone, workdir)


# Errors


def test_processes_of_different_studies_data_or_folders_are_refused_by_all(tmp_path):
    port = free_port()
    place = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2", "--coordinator_timeout=20"]
    study = {**STUDY, "train.epochs": "4"}
    started = [
        start(tmp_path / "run", *place, "--process_id=0"),
        start(tmp_path / "run", *place, "--process_id=1", study=study),
    ]
    for code, _, errors in outcomes(started):
        assert code == 2 and errors.count("\n") == 1, errors
        assert errors.startswith("error: train.epochs=[4]: process 1 on ")
    assert not (tmp_path / "run").exists()
    started = [start(tmp_path / f"of{i}", *place, f"--process_id={i}", program=("-c", HASTY)) for i in range(2)]
    for code, _, errors in outcomes(started):
        assert code == 2
        assert "process 1 on" in last_line(errors) and "use a folder that all processes share" in last_line(errors)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num_processes=2"], "num_processes=2: needs --coordinator"),
        (["--coordinator=auto"], "coordinator='auto': coordinator_address should be defined"),
        (["--coordinator=nowhere", "--num_processes=2", "--process_id=0"], "HOST:PORT of process 0"),
        (
            ["--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=2"],
            "process_id must be .*0 to 1",
        ),
    ],
)
def test_contradictory_flags_give_a_one_line_error(flags, said, tmp_path):
    ((code, _, errors),) = outcomes([start(tmp_path, *flags)])
    assert code == 2 and errors.count("\n") == 1 and re.search(said, errors), errors


THREE = """
import json, sys
from cnnjax.multihost import processes
from cnnjax.utils.errors import RequestError

number = int(sys.argv[2])

def fail(process, error):
    if number == process:
        raise error
    return number

def described(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return [type(error).__name__, isinstance(error, RequestError), getattr(error, "errno", None), str(error)]

with processes.initialized(sys.argv[1], 3, number, facts={}, timeout=60):
    called = []
    print(json.dumps([
        [processes.count(), processes.is_first(), processes.on_this_host()],
        processes.gather({"i": number, "long": "x" * 10 ** number}),
        [processes.broadcast_from_process0(lambda: called.append(number) or [1, None, "ü"]), called],
        described(processes.broadcast_from_process0, lambda: fail(number, RequestError("workdir", "x", "no"))),
        described(processes.raise_on_all, fail, 1, OSError(28, "No space left on device")),
        described(processes.raise_on_all, fail, 2, MemoryError("1 GB")),
        described(processes.raise_on_all, fail, 3, ValueError()),
    ]))
"""


def test_values_and_errors_reach_all_processes():
    place = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", THREE, place, str(i)],
            **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        )
        for i in range(3)
    ]
    ends = outcomes(started)
    assert [code for code, *_ in ends] == [0] * 3, ends
    values = [{"i": i, "long": "x" * 10**i} for i in range(3)]
    host = socket.gethostname()
    for number, (_, output, _) in enumerate(ends):
        place, gathered, broadcast, refused, full, out_of_memory, fine = json.loads(last_line(output))
        assert place == [3, number == 0, 3] and gathered == values and fine == number
        assert broadcast == [[1, None, "ü"], [0] if number == 0 else []]
        assert refused[1] and refused[3] == "workdir='x': no"
        assert full[0] == "OSError" and full[2] == 28 and (f"process 1 on {host}" in full[3]) == (number != 1)
        assert out_of_memory[3] == ("1 GB" if number == 2 else f"process 2 on {host}: out of memory: 1 GB")
