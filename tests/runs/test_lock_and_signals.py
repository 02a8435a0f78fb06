"""A run's folder: one process at a time, disks that are full or read-only, and signals."""

import functools
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cnnjax.commands import run as runner
from cnnjax.runs.lock import locked
from cnnjax.runs.run_dir import RunFolder
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.studies import make_study

ROOT = Path(__file__).parents[2]
compile_once = functools.cache(Population)


@pytest.fixture(autouse=True)
def quick(dense, monkeypatch):
    """The tiny model, and programs compiled once for all runs of a study."""
    monkeypatch.setattr("cnnjax.training.compiler.Population", compile_once)


def run(study, workdir, **options):
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        runner.run(study, workdir, progress=progress, **options)
    return console.file.getvalue()


# One process at a time

HOLDER = "import sys, time\nfrom pathlib import Path\nfrom cnnjax.runs.lock import locked\n"
HOLDER += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_a_second_process_is_refused_and_told_who_is_there(holder, tmp_path, options):
    study = make_study(train={"epochs": 1})
    with pytest.raises(RequestError, match=rf"process {holder.pid} on .*, since 20.* works in it"):
        run(study, tmp_path, **options)
    RunFolder(tmp_path).write_json("config.json", study.to_dict())
    with pytest.raises(RequestError, match=rf"process {holder.pid} on .*, since 20.* works in it"):
        run(study, tmp_path, **options)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".lock_holder", "config.json"}


@pytest.mark.slow
def test_the_lock_of_a_dead_process_is_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    run(make_study(train={"epochs": 1}), tmp_path)
    with locked(tmp_path):
        pass


# Disks


def mount(folder, options):
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A file system of its own; the test says of what size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not mount(folder, "size=64m"):
        pytest.skip("mounting takes root's rights")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def resize(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def numbers(workdir):
    """Every number of a run, none of the times."""
    rows = [line.rsplit(",", 2)[0] for line in (workdir / "trials.csv").read_text().splitlines()]
    predictions = [file.read_bytes() for file in sorted((workdir / "predictions").iterdir())]
    return rows, (workdir / "metrics.jsonl").read_bytes(), predictions


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(disk, tmp_path):
    """The disk grows little by little, so that it is full at one file after another."""
    study = make_study(train={"epochs": (1, 3)})
    run(study, tmp_path / "whole")
    refused = 0
    for kilobytes in [*range(4, 120, 8), *range(120, 4000, 60)]:
        resize(disk, f"size={kilobytes}k")
        try:
            run(study, disk / "run")
            break
        except RequestError as error:
            assert "No space left on device" in str(error) and "run the same command again" in str(error)
            assert str(disk) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 5
    assert numbers(disk / "run") == numbers(tmp_path / "whole")


@pytest.mark.slow
def test_a_read_only_folder_is_one_line(disk):
    study = make_study(train={"epochs": (1, 2)})
    run(study, disk / "run")
    before = numbers(disk / "run")
    resize(disk, "ro")
    for workdir in (disk / "run", disk / "new"):
        with pytest.raises(
            RequestError, match=r"Read-only file system.*run the same command again when it can be written"
        ) as refused:
            run(study, workdir)
        assert str(workdir) in str(refused.value)
    for module, *arguments in (["report", disk / "run"], ["predict", disk / "run", "--input=x.npy", "--output=y.csv"]):
        done = subprocess.run(
            [sys.executable, "-m", f"cnnjax.{module}", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done.stderr
    resize(disk, "rw")
    assert numbers(disk / "run") == before
    assert "is finished" in run(study, disk / "run")


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "how",
    [functools.partial(shutil.rmtree, ignore_errors=True), lambda folder: folder.rename(folder.with_name("moved"))],
)
def test_a_folder_that_goes_away_while_it_is_used_is_one_line(tmp_path, monkeypatch, how, again):
    """Whether or not it comes into being again, as where orbax writes into it while it is deleted."""
    advance, workdir = Population.advance, tmp_path / "run"

    def go_away(self, state, *arguments):
        if int(state.epoch[0]) == 1:
            how(workdir)
            if again:
                (workdir / "checkpoints").mkdir(parents=True)
        return advance(self, state, *arguments)

    monkeypatch.setattr(Population, "advance", go_away)
    study = make_study(train={"epochs": 3}, checkpoint={"every": 1})
    with pytest.raises(RequestError, match=r"run': it was removed or moved while the run was in it"):
        run(study, workdir)


# Streams and environments

PRINTS = "from cnnjax.utils import cli\ncli.run(lambda lines: print('line\\n' * lines), lambda argv: int(argv[1]))"

STUDY = """
def get_config(arg=""):
    data = {"name": "digits", "train_examples": 100, "validation": 50}
    train = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 50, "epochs": 2}
    return {"models": ("baseline",), "seeds": (0, 1), "data": data, "train": train}
"""
ODD = {
    **{"JAX_ENABLE_X64": "1", "JAX_DISABLE_JIT": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_RANDOM_SEED_OFFSET": "7"},
    **{"JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_DEBUG_NANS": "1"},
    **{"JAX_THREEFRY_PARTITIONABLE": "0", "JAX_TRANSFER_GUARD": "disallow"},
    **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
TAKEN = """
import cnnjax, numpy as np
trial = cnnjax.load_results("run")["trial"][1]
print(cnnjax.load_trial("run", trial).logits(np.zeros((1, 8, 8, 1), np.uint8)))
"""


@pytest.mark.slow
def test_no_environment_and_no_closed_stream_changes_what_a_run_writes(tmp_path):
    (tmp_path / "study.py").write_text(STUDY, encoding="utf-8")
    found = []
    for name, odd, closed in (("usual", {}, ""), ("odd", ODD, "<&- 2>&-")):
        command = f"exec {sys.executable} -m cnnjax.launch --config=../study.py --workdir=run {closed}"
        folder, environment = tmp_path / name, {**os.environ, "PYTHONPATH": str(ROOT), **odd}
        folder.mkdir()
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "run/report/index.html\n"), done.stderr
        taken = [sys.executable, "-c", TAKEN]
        taken = subprocess.run(taken, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
        found.append((numbers(folder / "run"), taken))
    assert found[0] == found[1]


def test_standard_output_may_be_closed_too():
    command = f'exec {sys.executable} -c "{PRINTS}" 1 >&- 2>&-'
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_a_terminal_has_no_letter_for_is_escaped():
    script = "from cnnjax.utils import cli\ncli.run(lambda _: print(chr(0xfc)), lambda argv: argv)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xfc\n", "")


# Signals

COMMAND = """
import sys, time
from cnnjax.utils import cli, signals
def main(_):
    try:
        print("working", flush=True)
        signals.interruptibly(time.sleep, 600)
    finally:
        print("closing", flush=True)
        time.sleep(float(sys.argv[1]))
        print("closed", flush=True)
cli.run(main, lambda argv: argv)
"""


def start(closing):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(closing)],
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
    )
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_long_call_in_order(number):
    process = start(closing=0)
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)  # of the call's 600 seconds
    assert (process.returncode, output) == (130, "closing\nclosed\n")
    assert errors == "interrupted: run the same command again to resume from the last state on disk\n"


def test_a_second_signal_ends_at_once():
    process = start(closing=600)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "closing\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == -signal.SIGINT


LOSES = """
import os, signal, time, weakref
from cnnjax.utils import cli, signals
class Thing:
    def __del__(self):
        if WHERE == "del":
            os.kill(os.getpid(), NUMBER)
def main(_):
    thing = Thing()
    if WHERE == "weakref":
        reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), NUMBER))
    try:
        if WHERE == "except":
            os.kill(os.getpid(), NUMBER)
            time.sleep(1)
        del thing
        end = time.monotonic() + 5
        while time.monotonic() < end and WHERE != "except":
            time.sleep(0.01)
    except BaseException:
        if WHERE != "except":
            raise
    if WHERE != "except":
        print("went on")
    elif CALLS:
        signals.interruptibly(print, "went on")
cli.run(main, lambda argv: argv)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("where", "calls"), [("weakref", 0), ("del", 0), ("except", 0), ("except", 1)])
def test_no_signal_is_lost_where_python_or_a_library_drops_its_exception(number, where, calls):
    script = f"WHERE, NUMBER, CALLS = {where!r}, {int(number)}, {calls}\n{LOSES}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted: run the same command again to resume from the last state on disk\n"


# Output that nobody reads


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_is_no_error(lines):
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", PRINTS, str(lines)], cwd=ROOT, **pipe)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE  # what a shell says of a command that `head` ended


NOTES = """
from cnnjax.utils import cli
from cnnjax.utils.progress import Progress
cli.run(lambda lines: [Progress().note("line") for _ in range(lines)], lambda argv: int(argv[1]))
"""


def test_a_reader_of_the_progress_that_has_gone_is_no_error_either():
    command = [sys.executable, "-c", NOTES, "100"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # 2>&1 | head
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
