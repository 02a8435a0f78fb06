"""What the tests of runs share: studies run, crashed or killed at any write, and their numbers read back."""

import functools
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import pytest
from rich.console import Console

import cnnjax
from cnnjax.commands import run as runner
from cnnjax.runs.integrity import read_lines
from cnnjax.runs.program_records import Folder, ProgramRecords
from cnnjax.runs.run_dir import RunFolder
from cnnjax.training import checkpoints
from cnnjax.utils.progress import Progress

ROOT = Path(__file__).parents[2]
GRID = {"learning_rate": (0.02, 0.05), "epochs": (2, 3)}  # of a member two trials: the shorter is read off
MEASURED = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "test_f1"]


def run(study, workdir, **options):
    """Runs a study; returns what it said on the way."""
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        runner.run(study, workdir, progress=progress, **options)
    return console.file.getvalue()


def read_plan(workdir):
    return json.loads((workdir / "plan.json").read_text())


def trial_ids(workdir):
    """The ids of a run's trials, in the order of the grid."""
    return read_plan(workdir)["trial_ids"]


def program_ids(workdir):
    """The ids of a run's programs, in the order in which they train."""
    return [program["id"] for program in read_plan(workdir)["programs"]]


def batch_sizes(workdir):
    """Of each batch of members of a run: the number of members, and how many train together."""
    folder = RunFolder(workdir)
    layouts = [folder.read_layout(program) for program in program_ids(workdir)]
    return [(len(members), size) for layout in layouts for members, size in layout]


def read_all(workdir):
    """Every number of a run, as it is on disk: none of the times."""
    rows = [line.rsplit(",", 2)[0] for line in (workdir / "trials.csv").read_text().splitlines()]
    predictions = {
        (file.name, key): array.tobytes()
        for file in sorted((workdir / "predictions").glob("*.npz"))
        for key, array in np.load(file).items()
    }
    return rows, (workdir / "metrics.jsonl").read_bytes(), predictions


def read_weights(workdir):
    """The arrays of the newest state of every chunk."""
    leaves = []
    for chunk in sorted((workdir / "checkpoints").glob("*/*/")):
        newest = max(int(step.name) for step in chunk.iterdir() if step.name.isdigit())
        with ocp.StandardCheckpointer() as reader:
            state = reader.restore(chunk / str(newest) / "state")
        leaves += [(chunk.name, newest, str(path), leaf.tobytes()) for path, leaf in flatten(state)]
    return leaves


def flatten(state):
    import jax

    return [(path, np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]


def assert_equal_numbers(one, other, **tolerance):
    """Two folders hold the same trials with the same numbers, to a tolerance."""
    a, b = cnnjax.load_results(one), cnnjax.load_results(other)
    timeless = [column for column in a if column not in ("seconds", "images_per_second")]
    pd.testing.assert_frame_equal(a[timeless], b[timeless], check_exact=False, **tolerance)
    for trial in a.trial[a.status != "diverged"]:
        file = f"predictions/{trial}.npz"
        np.testing.assert_allclose(
            np.load(one / file)["logits"].astype(float), np.load(other / file)["logits"].astype(float), atol=0.01
        )


CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def assert_no_line_twice(workdir):
    lines = read_lines(workdir / "metrics.jsonl").intact
    keys = [(line.get("member"), line.get("trial"), line["epoch"]) for line in lines]
    assert len(set(keys)) == len(keys)


class Crash(BaseException):
    """What a kill is to a test in one process."""


WRITES = {
    RunFolder: ("write_predictions", "write_layout", "write_views"),
    ProgramRecords: ("repair", "append_metrics", "keep_metrics", "append_trials"),
    Folder: ("write_json",),
    checkpoints.Checkpoints: ("save",),
}


def before_writes(monkeypatch, act):
    """Calls `act` with the number (from 0), the folder and the method's name before each write to disk."""
    count = itertools.count()

    def wrap(cls, name):
        write = getattr(cls, name)

        @functools.wraps(write)
        def wrapped(self, *arguments, **keywords):
            act(next(count), getattr(self, "path", None), name)
            return write(self, *arguments, **keywords)

        monkeypatch.setattr(cls, name, wrapped)

    for cls, names in WRITES.items():
        for name in names:
            wrap(cls, name)


def cut_line(folder, name):
    """Appends what a kill leaves of the line that a method of that name appends; other methods leave nothing."""
    if name.startswith("append_"):
        with (folder / f"{name.removeprefix('append_')}.jsonl").open("a") as file:
            file.write('{"member": "t00')


def crash_at(monkeypatch, number):
    """The write to disk of that number (from 0) does not happen, nor any later one; a line it appends is cut."""

    def crash(now, folder, name):
        if now == number:
            cut_line(folder, name)
        if now >= number:
            raise Crash(name)

    before_writes(monkeypatch, crash)


def crash_everywhere(study, tmp_path, start=lambda workdir: None):
    """For every write: its number, and the folder of a run that was killed before it and was then finished.

    The killed runs are copies of one run at its writes. Where a write changed nothing, the next copy is left out.
    `start` makes what is in the folder before.
    """
    running, save = tmp_path / "running", checkpoints.Checkpoints.save
    seen, numbers = [], []

    def copy(number, folder, name):
        workdir = tmp_path / str(number)
        shutil.copytree(running, workdir)
        if folder:
            cut_line(workdir / folder.relative_to(running), name)
        found = {file.relative_to(workdir): file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
        if found not in seen[-1:]:
            numbers.append(number)
        seen.append(found)

    def save_at_once(self, *arguments):
        save(self, *arguments)
        self.wait()

    start(running)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", save_at_once)
        before_writes(patch, copy)
        run(study, running)
    for number in numbers:
        run(study, tmp_path / str(number))
        yield number, tmp_path / str(number)


def launch(workdir, devices=1):
    """Starts a run of two programs in a process of its own."""
    arguments = ["--models=baseline", "--seeds=0,1,2", "--train.epochs=4,12", "--train.batch_size=50,100"]
    arguments += [
        "--train.optimizer=adam",
        "--train.learning_rate=0.001",
        "--data.train_examples=200",
        "--checkpoint.every=1",
    ]
    overrides = [argument.replace("--", "--config.", 1) for argument in arguments]
    command = [sys.executable, "-m", "cnnjax.launch", f"--config={ROOT}/configs/quickstart.py"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *overrides],
        **{"cwd": ROOT, "env": {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True},
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def signal_when(process, number, workdir, awaited):
    """Sends a signal as soon as a file of that name appears; returns what the process said."""
    while not list(workdir.glob(awaited)) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    return process.communicate(timeout=120)[0]
