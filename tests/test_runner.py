"""A run: its files, whatever interrupts it, however its members are cut into chunks, and what it refuses."""

import functools
import gzip
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import pytest
from conftest import make_study
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import cnnjax
from cnnjax import checkpoints, chunks, preparation, runner
from cnnjax.plan import make_plan
from cnnjax.population import Population
from cnnjax.progress import Progress
from cnnjax.records import RunFolder
from cnnjax.report import build_report
from cnnjax.study import from_config
from cnnjax.types import RequestError

ROOT = Path(__file__).parents[1]
GRID = {"learning_rate": (0.02, 0.05), "epochs": (2, 3)}  # of a member two trials: the shorter is read off
MEASURED = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "f1"]


compile_once = functools.cache(Population)


@pytest.fixture(autouse=True)
def quick(tiny, monkeypatch):
    """The tiny model, programs compiled once for all runs of a study, and no report."""
    monkeypatch.setattr(preparation, "Population", compile_once)
    monkeypatch.setattr(runner, "build_report", lambda workdir: workdir / "report/index.html")


def run(study, workdir, **options):
    """Runs a study; returns what it said on the way."""
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        runner.run(study, workdir, progress=progress, **options)
    return console.file.getvalue()


def read_all(workdir):
    """Every number of a run, as it is on disk: none of the times."""
    rows = [line.rsplit(",", 3)[0] for line in (workdir / "trials.csv").read_text().splitlines()]
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
    lines = RunFolder(workdir).read_metrics()
    keys = [(line.get("member"), line.get("trial"), line["epoch"]) for line in lines]
    assert len(set(keys)) == len(keys)


# What a run leaves


def test_a_run_writes_down_every_trial(tmp_path):
    study = make_study(seeds=(0, 1), select="val_accuracy", train=GRID)
    run(study, tmp_path)
    plan = make_plan(study)
    results = cnnjax.load_results(tmp_path)
    assert list(results.trial) == [trial.id for trial in plan.trials]
    assert set(results.status) == {"ok"} and list(results.epochs_run) == [t.epochs for t in plan.trials]
    metrics = pd.DataFrame(RunFolder(tmp_path).read_metrics())
    labels = np.load(tmp_path / "predictions/labels.npz")["labels"]
    for row in results.itertuples():
        ours = metrics[(metrics.member == row.member) & (metrics.epoch <= row.epochs)]
        assert list(ours.epoch) == list(range(1, row.epochs + 1))
        assert ours.val_loss.iloc[-1] == row.val_loss
        assert row.best_epoch == ours.epoch.iloc[ours.val_accuracy.argmax()]
        logits = np.load(tmp_path / f"predictions/{row.trial}.npz")["logits"]
        assert (logits.argmax(1) == labels).mean() == pytest.approx(row.test_accuracy, abs=1e-6)
    assert_no_line_twice(tmp_path)


def test_a_shorter_trial_read_off_is_the_one_trained_alone(tmp_path):
    run(make_study(train={"epochs": (2, 3)}), tmp_path / "both")
    run(make_study(train={"epochs": 2}), tmp_path / "short")
    both, short = (cnnjax.load_results(tmp_path / name) for name in ("both", "short"))
    pd.testing.assert_frame_equal(both.loc[both.epochs == 2, MEASURED], short[MEASURED], **CLOSE)
    assert json.loads((tmp_path / "both/plan.json").read_text())["trained"] == 1
    assert not np.isclose(both.train_loss[0], both.train_loss[1], rtol=1e-3)


def test_the_weights_of_every_trial_stay_and_of_other_states_the_newest(tmp_path):
    run(make_study(train={"epochs": (2, 5)}, checkpoint={"keep": 1}), tmp_path)
    (chunk,) = tmp_path.glob("checkpoints/*/*/")
    assert checkpoints.saved_epochs(chunk) == [2, 5]
    assert {path.name for path in chunk.iterdir()} == {"2", "5"}


def test_load_results_is_numeric_and_lazy(tmp_path):
    run(make_study(train={"learning_rate": (1e-3, 1e30)}), tmp_path)
    results = cnnjax.load_results(str(tmp_path))
    texts = {
        "trial",
        "member",
        "model",
        "initialisation",
        "optimizer",
        "arithmetic",
        "convolution",
        "decay",
        "schedule",
        "early_stopping",
        "stage_start",
        "status",
    }
    assert {c for c in results if not pd.api.types.is_numeric_dtype(results[c])} == texts
    assert list(results.trial) == ["t0000", "t0001"]
    with pytest.raises(RequestError, match=r"trials\.csv"):
        cnnjax.load_results(tmp_path / "nowhere")
    script = "import sys, cnnjax; print('pandas' in sys.modules, 'numpy' in sys.modules, callable(cnnjax.load_results))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False", "True"], done.stderr
    with pytest.raises(AttributeError):
        _ = cnnjax.nothing


def test_a_diverged_trial_is_recorded(tmp_path):
    rates = {"learning_rate": (1e-3, 1e30), "batch_size": 200, "epochs": (1, 3)}
    run(make_study(train=rates), tmp_path)
    results = cnnjax.load_results(tmp_path).set_index(["learning_rate", "epochs"])
    assert (results.status[1e-3] == "ok").all()
    # One batch an epoch: its loss is computed before the update, so the first ends well, with weights that do not.
    assert (results.status[1e30] == "diverged").all()
    assert results.epochs_run[1e30].to_dict() == {1: 1, 3: 2}
    diverged = results.loc[1e30, 3]
    assert diverged[[*MEASURED, "best_epoch", "precision", "recall"]].isna().all()
    assert not (tmp_path / f"predictions/{diverged.trial}.npz").exists()
    lines = [line for line in RunFolder(tmp_path).read_metrics() if line.get("member") == diverged.member]
    assert [(line["epoch"], line.get("status")) for line in lines] == [(1, None), (2, "diverged")]
    assert lines[1]["train_loss"] is None


# Programs and chunks


def test_every_program_is_traced_once_whatever_its_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "Population", Population)
    study = make_study(seeds=(0, 1, 2), train={**GRID, "batch_size": (50, 100)})
    run(study, tmp_path / "cut", max_members=4)
    programs = json.loads((tmp_path / "cut/plan.json").read_text())["programs"]
    assert [program["compilations"] for program in programs] == [1, 1]
    assert [program["chunk_members"] for program in programs] == [[3], [3]]
    assert len(list((tmp_path / "cut/checkpoints").glob("*/*/"))) == 4

    run(make_study(seeds=(0, 1, 2), train=GRID), tmp_path / "whole")
    (program,) = json.loads((tmp_path / "whole/plan.json").read_text())["programs"]
    assert (program["compilations"], program["chunk_members"]) == (1, [6])
    whole, cut = (cnnjax.load_results(tmp_path / name) for name in ("whole", "cut"))
    columns = ["learning_rate", "epochs", "seed", "best_epoch", *MEASURED]
    both = [results[results.batch_size == 50][columns].reset_index(drop=True) for results in (whole, cut)]
    pd.testing.assert_frame_equal(*both, **CLOSE)


AXES = {
    "learning_rate": st.lists(st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]), min_size=1, unique=True),
    "epochs": st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True),
    "momentum": st.lists(st.sampled_from([0.0, 0.5, 0.9]), min_size=1, unique=True),
    "optimizer": st.lists(st.sampled_from(["adam", "sgd"]), min_size=1, unique=True),
    "batch_size": st.lists(st.integers(1, 64), min_size=1, max_size=2, unique=True),
}


@given(st.fixed_dictionaries(AXES), st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), st.booleans())
def test_a_plan_trains_every_trial_once_in_the_fewest_programs(axes, seeds, crossed):
    streams = {"order": (1, 2)} if crossed else {}
    plan = make_plan(from_config({"models": ("baseline", "medium"), "seeds": seeds, "train": axes, "streams": streams}))
    placed = [t for program in plan.programs for member in program.members for t in member.trials]
    assert sorted(t.id for t in placed) == sorted(t.id for t in plan.trials)
    settings = {tuple({**t.row(), "trial": 0}.values()) for t in plan.trials}
    assert len(settings) == len(plan.trials)
    momenta = sum(1 if name == "adam" else len(axes["momentum"]) for name in axes["optimizer"])
    others = len(seeds) * len(axes["learning_rate"]) * len(axes["batch_size"]) * 2 * (2 if crossed else 1)
    assert plan.trained == momenta * others
    assert len(plan.trials) == plan.trained * len(axes["epochs"])
    assert len(plan.programs) == 2 * len(axes["optimizer"]) * len(axes["batch_size"])
    for program in plan.programs:
        for member in program.members:
            assert member.epochs == max(axes["epochs"]) == member.trials[-1].epochs
            assert {t.static for t in member.trials} == {program.static}
            assert len({(t.stages[0].traced, t.streams, t.seed) for t in member.trials}) == 1


# Interruptions


class Crash(BaseException):
    """What a kill is to a test in one process."""


WRITES = ("write_json", "append_metrics", "keep_metrics", "write_predictions", "write_trials", "write_layout")


def crash_at(monkeypatch, number):
    """The write to disk of that number (from 0) does not happen, nor what follows it; a line it appends is cut."""
    count = itertools.count()

    def crash_before(cls, name):
        write = getattr(cls, name)

        @functools.wraps(write)
        def wrapped(self, *arguments, **keywords):
            if next(count) == number:
                if name == "append_metrics":
                    with (self.path / "metrics.jsonl").open("a") as file:
                        file.write('{"member": "t00')
                raise Crash(name)
            return write(self, *arguments, **keywords)

        monkeypatch.setattr(cls, name, wrapped)

    for name in WRITES:
        crash_before(RunFolder, name)
    crash_before(checkpoints.Checkpoints, "save")


def crash_everywhere(study, tmp_path):
    """For every write: its number, and the folder of a run that crashed before it and was then finished."""
    for number in itertools.count():
        workdir = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, number)
            try:
                run(study, workdir)
                return
            except Crash:
                pass
        run(study, workdir)
        yield number, workdir


def test_a_crash_before_any_write_changes_nothing(tmp_path):
    study = make_study(train={"epochs": (1, 2)})
    run(study, tmp_path / "whole")
    expected, weights = read_all(tmp_path / "whole"), read_weights(tmp_path / "whole")
    plan = (tmp_path / "whole/plan.json").read_bytes()
    for number, workdir in crash_everywhere(study, tmp_path):
        assert read_all(workdir) == expected, number
        assert read_weights(workdir) == weights, number
        assert (workdir / "plan.json").read_bytes() == plan
        assert_no_line_twice(workdir)
    assert number > 15


def test_what_is_on_disk_is_not_trained_again(tmp_path, monkeypatch):
    advance, starts = Population.advance, []

    def crash_in_epoch_3(self, state, *arguments):
        starts.append(int(np.asarray(state.epoch)[0]))
        if starts == [0, 1, 2]:
            raise Crash
        return advance(self, state, *arguments)

    monkeypatch.setattr(Population, "advance", crash_in_epoch_3)
    with pytest.raises(Crash):
        run(make_study(train=GRID), tmp_path)
    run(make_study(train=GRID), tmp_path)
    assert starts == [0, 1, 2, 2]


def test_lost_rows_are_written_again(tmp_path):
    study = make_study(train=GRID)
    run(study, tmp_path)
    expected = read_all(tmp_path)
    (tmp_path / "trials.csv").unlink()
    run(study, tmp_path)
    assert read_all(tmp_path) == expected


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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(launch(workdir))
    return workdir


def test_killed_and_interrupted_again_and_again(uninterrupted, tmp_path):
    """Each launch goes on from what the one before left, until a signal comes: when a file that it names appears."""
    workdir = tmp_path / "run"
    moments = [
        (signal.SIGKILL, "metrics.jsonl"),  # before the first checkpoint is whole
        (signal.SIGTERM, "checkpoints/p000/*/[6-9]"),
        (signal.SIGKILL, "checkpoints/p001"),
        (signal.SIGINT, "checkpoints/p001/*/[3-9]"),
        (signal.SIGKILL, "report"),
    ]
    for number, awaited in moments:
        process = launch(workdir)
        output = signal_when(process, number, workdir, awaited)
        if number == signal.SIGKILL:
            assert process.returncode == -9, output
        else:
            assert process.returncode == 130, output
            assert "the same command goes on" in output.splitlines()[-1]
    finish(launch(workdir))
    assert read_all(workdir) == read_all(uninterrupted)
    assert read_weights(workdir) == read_weights(uninterrupted)
    assert_no_line_twice(workdir)
    assert (workdir / "report/index.html").exists()
    assert not list(workdir.glob("**/.*.tmp"))


def assert_ran_on(devices, workdir, expected):
    assert len(json.loads((workdir / "environment.json").read_text())["devices"]) == devices
    sizes = [program["chunk_members"] for program in json.loads((workdir / "plan.json").read_text())["programs"]]
    assert all(size % devices == 0 for (size,) in sizes)
    assert_equal_numbers(workdir, expected, **CLOSE)
    assert_no_line_twice(workdir)


def test_two_devices_change_nothing_nor_does_a_kill_there(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    signal_when(launch(workdir, devices=2), signal.SIGKILL, workdir, "checkpoints/p000/*/[6-9]")
    assert not (workdir / "report").exists()
    finish(launch(workdir, devices=2))
    assert_ran_on(2, workdir, uninterrupted)


def test_a_run_of_one_device_goes_on_with_four(uninterrupted, tmp_path):
    """The three members of a program do not divide among four devices: it is cut anew."""
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    (workdir / "trials.csv").unlink()
    assert RunFolder(workdir).read_layout("p000") == [[0, 3, 3]]
    finish(launch(workdir, devices=4))
    assert RunFolder(workdir).read_layout("p000") == [[0, 3, 4]]
    assert_ran_on(4, workdir, uninterrupted)


def test_a_population_shrinks_to_the_members_that_still_train(tmp_path, monkeypatch):
    """Five of six members diverge in their first epochs: the last one goes on in a program of its own, as it would."""
    rates = {"learning_rate": (0.05, 1e28, 1e29, 1e30, 1e31, 1e32), "epochs": 6}
    study = make_study(train=rates)
    run(study, tmp_path / "whole")
    monkeypatch.setattr(chunks, "_OPERATIONS_TO_COMPILE", 0)
    sizes = []
    monkeypatch.setattr(Population, "advance", recorded(Population.advance, sizes))
    run(study, tmp_path / "shrunk")
    assert sizes[0] == 6 and sizes[-1] == 3  # half of six; three is odd
    assert_equal_numbers(tmp_path / "shrunk", tmp_path / "whole", **CLOSE)
    statuses = cnnjax.load_results(tmp_path / "shrunk").status.value_counts()
    assert statuses.to_dict() == {"diverged": 5, "ok": 1}


def recorded(advance, sizes):
    """Wraps a population's `advance`: notes of how many members each compiled call is."""

    def wrapped(self, state, settings, streams, data, epochs, some=None):
        if some is None:
            sizes.append(len(state.epoch))
        return advance(self, state, settings, streams, data, epochs, some)

    return wrapped


def test_a_profile_is_a_trace_of_the_devices(tmp_path):
    run(make_study(), tmp_path, profile=True)
    (trace,) = (tmp_path / "profile" / "p000").glob("**/perfetto_trace.json.gz")
    names = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert any("dot" in str(name) for name in names)  # a matrix product of the compiled program


def test_a_finished_run_trains_nothing_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "build_report", build_report)
    study = make_study()
    run(study, tmp_path)
    (tmp_path / "report/index.html").unlink()
    before = read_all(tmp_path), read_weights(tmp_path)
    monkeypatch.setattr(preparation, "Population", None)
    assert "is finished: 1 trials" in run(study, tmp_path)
    assert (read_all(tmp_path), read_weights(tmp_path)) == before
    assert (tmp_path / "report/index.html").exists()


def test_a_finished_run_is_trained_again_when_asked(tmp_path, monkeypatch):
    study = make_study()
    run(study, tmp_path)
    before, calls, advance = read_weights(tmp_path), [], Population.advance
    monkeypatch.setattr(Population, "advance", lambda *arguments: calls.append(1) or advance(*arguments))
    run(study, tmp_path, overwrite=True)
    assert len(calls) == 2 and read_weights(tmp_path) == before


# Memory


def test_out_of_memory_goes_on_with_half(tmp_path, monkeypatch):
    study = make_study(seeds=(0, 1, 2, 3, 4), train={"epochs": (1, 3)})
    run(study, tmp_path / "whole")
    advance = Population.advance

    def out_of_memory(self, state, settings, streams, data, epochs, some):
        if len(streams.init) > 2 and np.asarray(state.epoch)[0] > 0:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return advance(self, state, settings, streams, data, epochs, some)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Population, "advance", out_of_memory)
        said = run(study, tmp_path / "halved")
    assert "out of memory with 5 members at a time; going on with 3" in said
    assert "out of memory with 3 members at a time; going on with 2" in said
    layout = [[0, 2, 2], [2, 3, 2], [3, 5, 2]]
    assert RunFolder(tmp_path / "halved").read_layout("p000") == layout
    assert_equal_numbers(tmp_path / "whole", tmp_path / "halved", **CLOSE)
    assert_no_line_twice(tmp_path / "halved")

    # Interrupted in the second of the new chunks, and resumed: the layout of the disk is used.
    calls = itertools.count()

    def interrupted(self, state, settings, streams, data, epochs, some):
        if len(streams.init) == 2 and next(calls) == 4:
            raise Crash
        return out_of_memory(self, state, settings, streams, data, epochs, some)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Population, "advance", interrupted)
        with pytest.raises(Crash):
            run(study, tmp_path / "resumed")
    assert "out of memory" not in run(study, tmp_path / "resumed")
    assert RunFolder(tmp_path / "resumed").read_layout("p000") == layout
    assert sorted(read_all(tmp_path / "resumed")[0]) == sorted(read_all(tmp_path / "halved")[0])
    assert_equal_numbers(tmp_path / "halved", tmp_path / "resumed", rtol=0, atol=0)
    assert_no_line_twice(tmp_path / "resumed")


def test_what_is_not_out_of_memory_is_raised(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Population, "advance", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run(make_study(seeds=(0, 1)), tmp_path)


# What is refused


def snapshot(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_another_study_in_the_folder_is_refused_or_overwritten(tmp_path):
    run(make_study(), tmp_path)
    before = snapshot(tmp_path)
    other = make_study(seeds=(3,), train={"learning_rate": 0.5})
    with pytest.raises(RequestError) as refused:
        run(other, tmp_path)
    for words in ("seeds ([0] there, [3] here)", "train.learning_rate ([0.05] there, [0.5] here)", "--overwrite"):
        assert words in str(refused.value)
    assert "epochs" not in str(refused.value)
    assert snapshot(tmp_path) == before
    run(other, tmp_path, overwrite=True)
    assert list(cnnjax.load_results(tmp_path).seed) == [3]
    assert json.loads((tmp_path / "config.json").read_text())["seeds"] == [3]


def test_a_wrong_study_does_not_overwrite(tmp_path):
    run(make_study(), tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(RequestError, match=r"train\.batch_size: 201.*200"):
        run(make_study(train={"batch_size": 201}), tmp_path, overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"seeds": [0', "cannot be read"), ("[1]", "no"), ('{"sedes": [0]}', "sedes"), ("\x00", "cannot be read")],
)
def test_a_damaged_config_is_refused_until_overwritten(text, words, tmp_path):
    run(make_study(), tmp_path)
    (tmp_path / "config.json").write_text(text)
    before = snapshot(tmp_path)
    with pytest.raises(RequestError, match=words):
        run(make_study(), tmp_path)
    assert snapshot(tmp_path) == before
    run(make_study(), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text())["seeds"] == [0]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_touched(overwrite, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for workdir, words in ((file, "is a file"), (tmp_path, r"holds no config\.json"), (file / "x", "is a file")):
        with pytest.raises(RequestError, match=words):
            run(make_study(), workdir, overwrite=overwrite)
    assert snapshot(tmp_path) == {file: b"mine"}


def test_a_kill_while_the_config_is_written_leaves_a_new_folder(tmp_path):
    (tmp_path / ".config.json.123.tmp").write_text('{"mod')
    run(make_study(), tmp_path)
    assert len(cnnjax.load_results(tmp_path)) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("basline",)}, ["models", "'basline'", "did you mean 'baseline'?"]),
        ({"models": ("tiny", "base")}, ["models", "'base'", "8x8", "too small"]),
        ({"train": {"batch_size": (50, 201)}}, ["train.batch_size", "201", "200"]),
        ({"data": {"name": "cifr10", "train_examples": None}}, ["data.name", "'cifr10'", "'cifar10'"]),
        ({"data": {"path": "/nowhere/at/all"}}, ["data.path", "/nowhere/at/all"]),
    ],
)
def test_a_wrong_study_is_refused_and_leaves_nothing(changes, words, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(RequestError) as refused:
        run(make_study(**changes), tmp_path / "run")
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_is_said_at_once(tmp_path):
    """It takes no longer than to refuse a model, which needs the same imports and no data."""

    def refused(override):
        command = [sys.executable, "-m", "cnnjax.launch", f"--config={ROOT}/configs/quickstart.py", override]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, f"--workdir={tmp_path / 'run'}"],
            **{"cwd": ROOT, "env": {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}},
            **{"capture_output": True, "text": True, "timeout": 60},
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        return time.perf_counter() - start, done.stderr

    model_seconds, _ = refused("--config.models=basline")
    seconds, message = refused("--config.data.name=cifar10")
    assert seconds < model_seconds + 2
    assert all(word in message for word in ("cifar10", str(tmp_path), "TFDS_DATA_DIR", "data.path"))
    assert list(tmp_path.iterdir()) == []
