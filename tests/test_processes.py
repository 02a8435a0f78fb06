"""A study that several processes run: the same files and numbers, whoever dies, and one line for what cannot be."""

import contextlib
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
from cnnjax import meeting, processes
from cnnjax.devices import is_out_of_memory
from cnnjax.meeting import Place, meet
from cnnjax.records import RunFolder
from cnnjax.types import RequestError

ROOT = Path(__file__).parents[1]
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
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
LOST = "was lost; the same command on all processes goes on from the last state on disk"


@pytest.fixture(autouse=True)
def no_process_outlives_its_test(monkeypatch):
    """What a failing test has started would wait for the others."""
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


LAUNCH = ("-m", "cnnjax.launch")
LATE = """
import runpy, time
from cnnjax import processes
end = processes._Together.end
processes._Together.end = lambda *arguments: (time.sleep(0.5), end(*arguments))
runpy.run_module("cnnjax.launch", run_name="__main__")
"""


def start(workdir, *more, study=STUDY, how=LAUNCH):
    """Starts one process of a study."""
    settings = [f"--config.{key}={value}" for key, value in study.items()]
    command = [sys.executable, *how, f"--config={ROOT}/configs/quickstart.py", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *settings, *more],
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1", "PYTHONPATH": str(ROOT)},
    )


def start_all(number, workdir, *more, how=LAUNCH):
    """Starts a study on so many processes."""
    port = free_port()
    place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={number}", "--coordinator_timeout=100"]
    return [start(workdir, *place, f"--process_id={i}", *more, how=how) for i in range(number)]


def outcomes(started):
    """The exit code, output and errors of each process, all read at once: a full pipe would hold a process up."""
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
    lines = [(x.get("member"), x.get("trial"), x["epoch"]) for x in RunFolder(other).read_metrics()]
    assert len(set(lines)) == len(lines)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The study as one process runs it."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    ((code, output, errors),) = outcomes([start(workdir)])
    assert code == 0, output + errors
    return workdir


# The same study


def test_two_processes_killed_and_resumed_by_two_by_one_and_by_four_end_with_the_numbers_of_one(alone, tmp_path):
    workdir = tmp_path / "run"
    moments = [(2, 1, "checkpoints/p000/*/2"), (2, 0, "checkpoints/p000/*/5"), (1, 0, "checkpoints/p000/*/7")]
    for number, victim, awaited in moments:
        started = start_all(number, workdir) if number > 1 else [start(workdir)]
        wait_for(workdir, awaited)
        started[victim].kill()
        ends = outcomes(started)
        assert ends[victim][0] == -9, ends
        for code, _, errors in ends[:victim] + ends[victim + 1 :]:
            assert code == 1 and f"process {victim} on {socket.gethostname()} {LOST}" in errors, errors
    saved = max(int(step.name) for step in workdir.glob("checkpoints/p000/*/*") if step.name.isdigit())
    ends = outcomes(start_all(4, workdir))
    assert [code for code, *_ in ends] == [0] * 4, ends
    assert f"epoch {saved}/" not in ends[0][2] and f"epoch {saved + 1}/12" in ends[0][2]  # nothing was lost
    assert str(workdir / "report/index.html") in ends[0][1] and workdir.name not in "".join(o for _, o, _ in ends[1:])
    assert not any("epoch" in errors for *_, errors in ends[1:])  # only process 0 speaks
    assert RunFolder(workdir).read_layout("p000") == [[0, 3, 4]]
    assert_equal_runs(alone, workdir)
    seen = json.loads((workdir / "environment.json").read_text())
    assert len(seen["devices"]) == 4 and len(seen["earlier"][0]["devices"]) == 2
    # Of the trials of four epochs, whose state two processes wrote, and which four left as it was.
    images = np.load(alone / "predictions/images.npz")["images"]
    one, other = (cnnjax.load_trial(folder, "t0000").logits(images) for folder in (alone, workdir))
    np.testing.assert_allclose(one, other, atol=0.01)


def test_who_sees_late_that_the_first_was_lost_says_so_before_jax_aborts(tmp_path):
    started = start_all(2, tmp_path / "run", how=("-c", LATE))
    wait_for(tmp_path / "run", "checkpoints/p000/*/2")
    started[0].kill()
    _, (code, _, errors) = outcomes(started)
    assert code == 1 and f"process 0 on {socket.gethostname()} {LOST}" in last_line(errors), errors


def test_a_signal_to_one_ends_all_in_order(tmp_path):
    workdir = tmp_path / "run"
    started = start_all(2, workdir)
    wait_for(workdir, "checkpoints/p000/*/1")
    started[1].send_signal(signal.SIGTERM)
    for code, _, errors in outcomes(started):
        assert code == 130 and last_line(errors).startswith("interrupted: the same command on all processes goes on")


def test_a_damaged_state_is_mended_by_all(alone, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(alone, workdir)
    (workdir / "trials.csv").unlink()
    (chunk,) = workdir.glob("checkpoints/p000/*/")
    file = max((chunk / "4/state").rglob("*"), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    ends = outcomes(start_all(2, workdir))
    assert [code for code, *_ in ends] == [0, 0], ends
    assert f"{chunk / '4'} is damaged" in ends[0][2]
    assert_equal_runs(alone, workdir)


# What is refused


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
        assert errors.startswith("error: train.epochs: [4] is not allowed; process 1 on ")
    assert not (tmp_path / "run").exists()
    place[2] = "--coordinator_timeout=10"
    started = [start(tmp_path / f"of{i}", *place, f"--process_id={i}") for i in range(2)]
    for code, _, errors in outcomes(started):
        assert code == 2
        assert "process 1 on" in last_line(errors) and "allowed: a folder that all processes share" in last_line(errors)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num_processes=2"], "num_processes: 2 is not allowed; allowed: together with --coordinator"),
        (["--coordinator=auto"], "coordinator: 'auto' is not allowed; nothing says that this is SLURM"),
        (["--coordinator=nowhere", "--num_processes=2", "--process_id=0"], "allowed: HOST:PORT of process 0"),
        (
            ["--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=2"],
            "process_id: 2 is not allowed; .*0 to 1",
        ),
    ],
)
def test_flags_that_make_no_sense_are_one_line(flags, said, tmp_path):
    ((code, _, errors),) = outcomes([start(tmp_path, *flags)])
    assert code == 2 and errors.count("\n") == 1 and re.search(said, errors), errors


def meet_all(places, facts=None, timeout=10.0):
    """What each of several callers finds, or is told."""
    found = {}
    threads = []
    for i, place in enumerate(places):
        call = (place, {} if facts is None else facts[i], timeout)

        def one(i=i, call=call):
            try:
                found[i] = meet(*call)
            except RequestError as error:
                found[i] = str(error)

        threads.append(threading.Thread(target=one))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(len(places))]


def places(number, count=None):
    port = free_port()
    return [Place("127.0.0.1", port, count or number, i) for i in range(number)]


def test_all_meet_whoever_comes_first():
    found = meet_all(places(3)[::-1])
    assert [len(m.peers) for m in found] == [1, 1, 2] and len({m.address for m in found}) == 1
    assert all(m.hosts == [socket.gethostname()] * 3 for m in found)


def test_one_that_does_not_come_is_named_to_all():
    found = meet_all(places(2, count=4), timeout=0.5)
    assert found[0] == found[1]
    assert found[0].startswith("num_processes: 4 is not allowed; process 2, 3 did not come to 127.0.0.1:")


def test_no_coordinator_and_a_stranger_in_its_place():
    _, second = places(2)
    (said,) = meet_all([second], timeout=0.3)
    assert "process 0 does not answer there within 0.3 s (Connection refused)" in said
    with socket.create_server(("127.0.0.1", second.port)) as server:

        def answer():
            connection, _ = server.accept()
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=answer, daemon=True).start()
        (said,) = meet_all([second], timeout=1.0)
    assert "did not answer as process 0 of a study does" in said


def test_a_stranger_among_the_callers_is_sent_away(monkeypatch):
    monkeypatch.setattr(meeting, "_LOST_CALL", 0.2)
    two = places(2)
    found = {}
    first = threading.Thread(target=lambda: found.setdefault(0, meet(two[0], {}, 10.0)))
    first.start()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", two[0].port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n")
            break
    (second,) = meet_all(two[1:])
    first.join()
    assert found[0].hosts == second.hosts


def test_a_port_that_is_taken():
    first, *_ = places(2)
    with socket.create_server(("127.0.0.1", first.port)):
        (said,) = meet_all([first])
    assert "cannot listen there (Address already in use)" in said


def test_two_with_one_number_or_with_different_numbers_of_processes():
    one, two = places(2, count=3)
    found = meet_all([one, two, two])
    assert len(set(found)) == 1 and found[0].startswith("process_id: 1 is not allowed; a process on ")
    one, two = places(2)
    found = meet_all([one, two._replace(processes=3)])
    assert len(set(found)) == 1 and found[0].startswith("num_processes: 3 is not allowed; process 1 on ")


def test_another_version_is_refused():
    found = meet_all(
        places(2), [{"version of jax": "1.0", "a": {"b": (1,)}}, {"version of jax": "2.0", "a": {"b": [1]}}]
    )
    assert len(set(found)) == 1 and found[0].startswith("version of jax: '2.0' is not allowed; process 1 on ")


# Agreeing


def in_three(function):
    """What a function of (one's _Together) returns or raises in three processes, which here are threads."""
    found = meet_all(places(3))
    ours = [processes._Together(i, m, 1.0) for i, m in enumerate(found)]
    results = {}

    def one(i):
        local.us = ours[i]
        try:
            results[i] = function(i)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for us in ours:
        us.leave()
    return [results[i] for i in range(3)]


local = threading.local()


class PerThread:
    """Stands for the module's `_together`, of which every process has its own."""

    def __getattr__(self, name):
        return getattr(local.us, name)


@pytest.fixture
def threads_are_processes(monkeypatch):
    monkeypatch.setattr(processes, "_together", PerThread())


def test_values_are_gathered_and_agreed(threads_are_processes):
    assert in_three(lambda i: processes.gather({"i": i})) == [[{"i": 0}, {"i": 1}, {"i": 2}]] * 3
    called = []
    assert in_three(lambda i: processes.agreed(lambda: called.append(i) or [1, None, "ü\n"])) == [[1, None, "ü\n"]] * 3
    assert called == [0]


def test_what_fails_in_one_fails_in_all(threads_are_processes):
    def refuse():
        raise RequestError("workdir", "x", "no")

    found = in_three(lambda i: processes.agreed(refuse))
    assert [str(e) for e in found] == ["workdir: 'x' is not allowed; no"] * 3
    assert all(isinstance(e, RequestError) for e in found)

    def full(i):
        if i == 1:
            raise OSError(28, "No space left on device")
        return i

    found = in_three(lambda i: processes.together(full, i))
    assert all(isinstance(e, OSError) and e.errno == 28 for e in found)
    assert "process 1 on" in str(found[0]) and "process 1" not in str(found[1])
    assert in_three(lambda i: processes.together(abs, -i)) == [0, 1, 2]

    def out_of_memory(i):
        if i == 2:
            raise MemoryError

    assert all(is_out_of_memory(e) for e in in_three(lambda i: processes.together(out_of_memory, i)))
