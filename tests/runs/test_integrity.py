"""Damage to any file of a run is repaired, or refused in one line that names the file. No number is ever wrong.

pytest tests/runs/test_integrity.py --damages=1000
"""

import functools
import io
import itertools
import random
import shutil
import types

import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import pytest
from rich.console import Console

import cnnjax
from cnnjax.analysis import compare as comparison
from cnnjax.analysis.read import read_run
from cnnjax.commands import run as runner
from cnnjax.runs.integrity import add_checksum, verify_checksum
from cnnjax.runs.program_records import ProgramRecords
from cnnjax.runs.run_dir import RunFolder
from cnnjax.training import checkpoints
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.runs import program_ids, trial_ids
from tests.support.studies import add_tiny, make_study

STUDY = make_study(seeds=(0, 1), train={"epochs": (2, 4)}, checkpoint={"keep": 1})
RECORDS = ("metrics.jsonl", "trials.jsonl")  # of the only program


class Crash(BaseException):
    """What a kill is to a test in one process."""


@pytest.fixture(autouse=True, scope="module")
def quick():
    """The tiny model, and programs compiled once for all runs."""
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        patch.setattr("cnnjax.training.compiler.Population", functools.cache(Population))
        yield


def run(workdir, study=STUDY):
    """Runs the study; returns what it said on the way."""
    console = Console(file=io.StringIO(), width=400)
    with Progress(console) as progress:
        runner.run(study, workdir, progress=progress)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run(workdir)
    return workdir


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was killed before its last epoch."""
    workdir = tmp_path_factory.mktemp("interrupted") / "run"
    append, calls = ProgramRecords.append_metrics, []

    def crash(self, lines):
        calls.append(lines)
        if len(calls) == 5:  # epochs 1 and 2, evaluations, epochs 3 and 4
            raise Crash
        append(self, lines)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgramRecords, "append_metrics", crash)
        with pytest.raises(Crash):
            run(workdir)
    return workdir


def numbers(workdir):
    """Every number that a run leaves, in a fixed order: a repaired record follows the others."""
    lines = sorted((workdir / "metrics.jsonl").read_bytes().splitlines())
    rows = [line.rsplit(",", 2)[0] for line in (workdir / "trials.csv").read_text().splitlines()]
    files = sorted((workdir / "predictions").glob("t*.npz"))
    return lines, rows, [(file.name, np.load(file)["logits"].tobytes()) for file in files]


def files_of(workdir):
    return sorted(p.relative_to(workdir) for p in workdir.rglob("*") if p.is_file() and p.name != ".lock")


def path_of(workdir, name):
    """The path of a file of a run. Those of the program are named without its directory."""
    (program,) = program_ids(workdir)
    return workdir / "programs" / program / name if name in RECORDS else workdir / name


def damage(path, kind, rng):
    data = bytearray(path.read_bytes())
    start = rng.randrange(max(len(data), 1))
    if kind == "flip" and data:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        data[start : start + rng.randrange(1, 512)] = bytes(len(data[start : start + rng.randrange(1, 512)]))
    elif kind == "cut":
        del data[start:]
    elif kind == "all zero":
        data = bytearray(len(data))
    path.write_bytes(data)


def damaged_copies(workdir, tmp_path, count):
    """Copies of a run, each with one damaged file; `count` of them, drawn at random."""
    rng = random.Random(0)
    for _ in range(count):
        kind, name = rng.choice(("flip", "flip", "zero", "cut", "all zero")), rng.choice(files_of(workdir))
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(workdir, copy)
        damage(copy / name, kind, rng)
        yield f"{kind} in {name}", copy


def assert_report_is_right_or_refused(whole, copy, what):
    try:
        found = read_run(copy)
        logits = [found.predictions(configuration) for configuration in found.configurations.index]
    except RequestError as error:
        assert str(copy) in str(error) and "\n" not in str(error)
        return
    for name in ("config", "data", "plan"):
        assert getattr(found, name) == getattr(whole, name), what
    # Whole rows and lines may be cut off the end of a file: then there is less, which the report says.
    trials = whole.trials[whole.trials.trial.isin(found.trials.trial)]
    pd.testing.assert_frame_equal(found.trials, trials, check_dtype=False)
    assert len(found.trials) == len(whole.trials) or len(found.trials) < found.planned
    pd.testing.assert_frame_equal(found.epochs, whole.epochs[: len(found.epochs)])
    for of_configuration, configuration in zip(logits, found.configurations.index, strict=True):
        for got, expected in zip(
            of_configuration[0] if of_configuration else (), whole.predictions(configuration)[0], strict=False
        ):
            np.testing.assert_array_equal(got, expected)


def assert_weights_are_right_or_refused(whole, copy, what):
    trials = trial_ids(whole)
    for trial in (trials[0], trials[3]):
        try:
            taken = cnnjax.load_trial(copy, trial)
        except RequestError as error:
            assert "\n" not in str(error)
            continue
        assert_same_weights(taken, cnnjax.load_trial(whole, trial), what)


def assert_same_weights(taken, expected, what):
    np.testing.assert_array_equal(taken.scale, expected.scale, str(what))
    for name, layer in expected.variables["params"].items():
        for key, array in layer.items():
            np.testing.assert_array_equal(taken.variables["params"][name][key], array, str(what))


@pytest.mark.slow
def test_damage_to_a_finished_run(finished, tmp_path, request):
    expected, whole = numbers(finished), read_run(finished)
    for what, copy in damaged_copies(finished, tmp_path, request.config.getoption("damages")):
        assert_report_is_right_or_refused(whole, copy, what)
        assert_weights_are_right_or_refused(finished, copy, what)
        assert_right_or_refused(copy, expected, what)


@pytest.mark.slow
def test_damage_to_an_interrupted_run(finished, interrupted, tmp_path, request):
    expected = numbers(finished)
    for what, copy in damaged_copies(interrupted, tmp_path, request.config.getoption("damages")):
        assert_right_or_refused(copy, expected, what)


def assert_right_or_refused(copy, expected, what):
    """The same command repairs every file but config.json."""
    try:
        run(copy)
    except RequestError as error:
        assert "config.json" in what and "config.json" in str(error), what
        return
    assert numbers(copy) == expected, what
    read_run(copy)


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 4
    path.write_bytes(data)


def arrays_of(state):
    """The files in which orbax keeps numbers; which numbers in which file differs from run to run."""
    return [path for path in state.glob("state/*/d/*") if path.stat().st_size > 1000]


def change_a_number(state):
    """Writes a state again, with one weight that differs: orbax reads it without complaint.

    A flipped bit of its files may as well lie in a part that orbax does not read, or make it raise.
    """
    with ocp.StandardCheckpointer() as writer:
        arrays = writer.restore(state / "state")
        kernel = np.array(arrays["params"]["dense0"]["kernel"])
        kernel[1, 0, 0] += 1e-6
        arrays["params"]["dense0"]["kernel"] = kernel
        writer.save(state / "state", arrays, force=True)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(finished, interrupted, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(interrupted, copy)
    (chunk,) = copy.glob("checkpoints/*/*/")
    assert checkpoints.saved_epochs(chunk) == [2, 3]
    change_a_number(chunk / "3")
    said = run(copy)
    assert f"{chunk / '3'} is damaged (the checksum of params/dense0/kernel is wrong)" in said
    assert numbers(copy) == numbers(finished)


@pytest.mark.slow
def test_a_state_of_another_version_is_refused_and_stays(interrupted, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(interrupted, copy)
    (chunk,) = copy.glob("checkpoints/*/*/")
    handler = ocp.JsonCheckpointHandler()
    meta = verify_checksum(handler.restore(chunk / "3" / "meta"))
    meta["checksums"]["momentum"] = meta["checksums"].pop("epochs_since_improvement")
    handler.save(chunk / "3" / "meta", args=ocp.args.JsonSave(add_checksum(meta)))
    before = files_of(copy)
    said = rf"{chunk / '3'}.*another version.*\(epochs_since_improvement\).*delete {chunk} to"
    with pytest.raises(RequestError, match=said):
        run(copy)
    assert set(before) <= set(files_of(copy))


@pytest.mark.parametrize("name", [*RECORDS, "plan.json", "config.json"])
def test_a_damaged_name_of_a_checksum_is_found(finished, tmp_path, name):
    """It is none of a record that was written by hand, without a checksum."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    path = path_of(copy, name)
    data = bytearray(path.read_bytes())
    data[data.index(b"crc32") + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RequestError, match=f"{name}.*damaged"):
        read_run(copy)
    assert_right_or_refused(copy, numbers(finished), f"flip in {name}")


def test_arrays_of_another_shape_are_refused_before_they_are_read(finished, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (state,) = copy.glob("checkpoints/*/*/4/")
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(state / "state")
        layer = next(name for name, arrays in tree["params"].items() if "kernel" in arrays)
        tree["params"][layer]["kernel"] = np.zeros((4, 7, 7), np.float32)
        shutil.rmtree(state / "state")
        checkpointer.save(state / "state", tree)
    monkeypatch.setattr(ocp.Checkpointer, "restore", None)
    said = rf"params/{layer}/kernel has shape \(4, 7, 7\), expected \(2, 3, 3, "
    with pytest.raises(RequestError, match=said):
        cnnjax.load_trial(copy, trial_ids(copy)[2])


def test_arrays_for_which_there_is_no_memory_are_refused(finished, monkeypatch):
    monkeypatch.setattr(checkpoints.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1000))
    with pytest.raises(RequestError, match=r"arrays take 0\.0 GB, but 0\.0 GB are free"):
        cnnjax.load_trial(finished, trial_ids(finished)[2])


def test_a_state_for_which_there_is_no_memory_is_refused_and_stays(interrupted, tmp_path, monkeypatch):
    """The state is intact, and may fit into the memory of a later resume with more devices."""
    copy = tmp_path / "run"
    shutil.copytree(interrupted, copy)
    before = files_of(copy)
    (chunk,) = copy.glob("checkpoints/*/*/")
    monkeypatch.setattr(checkpoints, "count_members", lambda state: 3)
    monkeypatch.setattr(checkpoints.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1000))
    with pytest.raises(RequestError, match=rf"{chunk / '3'}.*arrays take 0\.0 GB"):
        run(copy)
    assert set(before) <= set(files_of(copy))


@pytest.mark.parametrize("of", ["trial", "labels"])
def test_damaged_predictions_are_not_compared(finished, tmp_path, of):
    copy, name = tmp_path / "run", f"{trial_ids(finished)[0] if of == 'trial' else of}.npz"
    shutil.copytree(finished, copy)
    flip(copy / "predictions" / name)
    sides = comparison.read_side(f"{copy}:epochs=2"), comparison.read_side(str(finished))
    with pytest.raises(RequestError, match=rf"{name}.*damaged"):
        comparison.compare_configurations(*sides, "test_accuracy", None)


@pytest.mark.slow
def test_lost_predictions_and_lines_are_written_again(finished, tmp_path):
    trials = trial_ids(finished)
    for name in (f"predictions/{trials[0]}.npz", f"predictions/{trials[3]}.npz", *RECORDS):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(finished, copy)
        flip(path_of(copy, name))
        run(copy)
        assert numbers(copy) == numbers(finished), name
        assert "is finished" in run(copy)


@pytest.mark.slow
def test_a_damaged_finished_state_is_not_predicted_with(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (state,) = copy.glob("checkpoints/*/*/4/")
    of_state = trial_ids(finished)[2:]
    expected, said = cnnjax.load_trial(finished, of_state[0]), []
    for path, at in itertools.product(arrays_of(state), np.linspace(0.05, 0.95, 8)):
        flip(path, at)
        try:  # a bit of the optimizer's state is no matter
            assert_same_weights(cnnjax.load_trial(copy, of_state[0]), expected, at)
        except RequestError as error:
            said.append(str(error))
        flip(path, at)
    change_a_number(state)
    with pytest.raises(RequestError, match="checksum of params/dense0/kernel"):
        cnnjax.load_trial(copy, of_state[0])
    assert all(str(state) in line and "delete it" in line and "\n" not in line for line in said)
    # As it says:
    shutil.rmtree(state)
    for trial in of_state:
        (copy / f"predictions/{trial}.npz").unlink()
    run(copy)
    assert numbers(copy) == numbers(finished)
    assert cnnjax.load_trial(copy, of_state[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source_sha256": "0" * 64}, r"\(source_sha256 000000000000 there"),
        ({"classes": ["0", "1", "10"]}, r"\(classes \['0', '1', '10'\] there, "),
    ],
)
def test_other_data_of_the_same_name_is_refused(finished, tmp_path, change, words):
    """A run does not go on with data that changed under it, though its config is the same."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    folder = RunFolder(copy)
    folder.write_json("data.json", folder.read_if_intact("data.json") | change)
    path_of(copy, "trials.jsonl").unlink()
    with pytest.raises(RequestError, match=rf"its trials trained on other data {words}"):
        run(copy)


def test_another_environment_is_kept_and_said(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    folder = RunFolder(copy)
    there = folder.read_if_intact("environment.json")
    older = there | {"versions": there["versions"] | {"jax": "0.0.1"}}
    folder.write_json("environment.json", older)
    said = run(copy)
    assert f"versions.jax was '0.0.1', is {there['versions']['jax']!r}" in said
    kept = [{key: value for key, value in older.items() if key != "command"}]
    assert folder.read_if_intact("environment.json")["earlier"] == kept
    assert "environment has changed" not in run(copy)
    assert folder.read_if_intact("environment.json")["earlier"] == kept
