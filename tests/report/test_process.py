"""The process that builds reports while its parent trains."""

import subprocess
import sys
import time

import psutil
import pytest

from cnnjax.report import build_report
from cnnjax.report.process import report_process
from cnnjax.utils.errors import RequestError
from tests.support.made_up_run import STOPPED, make_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
_CORES = "cnnjax.multihost.processes.usable_cores"
_PARENT = f"""
import time
from unittest import mock
from cnnjax.report.process import report_process
with mock.patch("{_CORES}", lambda: 2), report_process():
    print("started", flush=True)
    time.sleep(60)
"""


def test_a_process_builds_the_same_report_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(_CORES, lambda: 2)
    run = make_run(tmp_path / "run", STOPPED, examples=50)
    expected = build_report(run).read_bytes()
    (run / "report" / "index.html").unlink()
    with report_process() as build:
        (child,) = psutil.Process().children()
        monkeypatch.setattr("cnnjax.report.process.build_here", None)
        assert build(run).read_bytes() == expected
    assert not child.is_running()


def test_errors_are_those_of_a_report_that_is_built_here(tmp_path, monkeypatch):
    monkeypatch.setattr(_CORES, lambda: 2)
    with report_process() as build, pytest.raises(RequestError, match=r"with config\.json"):
        build(tmp_path)


def test_the_process_ends_when_its_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "started\n"
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
    until = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
