"""A run that crashes or is killed, on any number of devices, ends with the numbers of one that was not."""

import json
import math
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

import cnnjax
from cnnjax.report import build_report
from cnnjax.runs.run_dir import RunFolder
from cnnjax.training.population import Population
from tests.support.runs import (
    CLOSE,
    GRID,
    Crash,
    assert_equal_numbers,
    assert_no_line_twice,
    batch_sizes,
    crash_everywhere,
    finish,
    launch,
    program_ids,
    read_all,
    read_weights,
    run,
    signal_when,
)
from tests.support.studies import make_study

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.jsonl", "trials.jsonl"])
def test_lost_records_are_written_again(name, tmp_path):
    """With the same numbers. The lines of evaluations may come later than they came before."""
    study = make_study(train=GRID)
    run(study, tmp_path)
    expected = read_all(tmp_path)
    (tmp_path / "programs" / program_ids(tmp_path)[0] / name).unlink()
    run(study, tmp_path)
    (rows, lines, predictions), found = expected, read_all(tmp_path)
    assert (found[0], found[2]) == (rows, predictions)
    assert sorted(found[1].splitlines()) == sorted(lines.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("again", [run, lambda _, workdir: build_report(workdir)])
def test_views_that_a_user_changed_or_deleted_are_written_again_from_the_records(again, tmp_path):
    study = make_study(train=GRID)
    run(study, tmp_path)
    expected, files = read_all(tmp_path), cnnjax.load_results(tmp_path)
    pd.read_csv(tmp_path / "trials.csv").iloc[::-1, 3:].to_csv(tmp_path / "trials.csv")
    (tmp_path / "metrics.jsonl").unlink()
    pd.testing.assert_frame_equal(cnnjax.load_results(tmp_path), files)
    again(study, tmp_path)
    assert read_all(tmp_path) == expected


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(launch(workdir))
    return workdir


@pytest.mark.slow
def test_killed_and_interrupted_again_and_again(uninterrupted, tmp_path):
    """Each launch goes on from what the one before left, until a signal comes: when a file that it names appears."""
    workdir, (first, second) = tmp_path / "run", program_ids(uninterrupted)
    moments = [
        (signal.SIGKILL, f"programs/{first}/metrics.jsonl"),  # before the first checkpoint is whole
        (signal.SIGTERM, f"checkpoints/{first}/*/[6-9]"),
        (signal.SIGKILL, f"checkpoints/{second}"),
        (signal.SIGINT, f"checkpoints/{second}/*/[3-9]"),
        (signal.SIGKILL, "report"),
    ]
    for number, awaited in moments:
        process = launch(workdir)
        output = signal_when(process, number, workdir, awaited)
        if number == signal.SIGKILL:
            assert process.returncode == -9, output
        else:
            assert process.returncode == 130, output
            assert "run the same command again" in output.splitlines()[-1]
    finish(launch(workdir))
    assert read_all(workdir) == read_all(uninterrupted)
    assert read_weights(workdir) == read_weights(uninterrupted)
    assert_no_line_twice(workdir)
    assert (workdir / "report/index.html").exists()
    assert not list(workdir.glob("**/.*.tmp"))


def assert_ran_on(mesh, workdir, expected):
    """The mesh is (groups of devices that members are spread over, devices of a group that share each batch)."""
    assert len(json.loads((workdir / "environment.json").read_text())["devices"]) == math.prod(mesh)
    assert {RunFolder(workdir).read_mesh(program) for program in program_ids(workdir)} == {mesh}
    sizes = [program["chunk_members"] for program in json.loads((workdir / "plan.json").read_text())["programs"]]
    assert all(size % mesh[0] == 0 for (size,) in sizes)
    assert_equal_numbers(workdir, expected, **CLOSE)
    assert_no_line_twice(workdir)


@pytest.mark.slow
def test_two_devices_change_nothing_nor_does_a_kill_there(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    signal_when(launch(workdir, devices=2), signal.SIGKILL, workdir, "checkpoints/*/*/[6-9]")
    assert not (workdir / "report").exists()
    finish(launch(workdir, devices=2))
    assert_ran_on((2, 1), workdir, uninterrupted)


@pytest.mark.slow
def test_a_run_of_one_device_goes_on_with_four(uninterrupted, tmp_path):
    """The three members of a program do not divide among four devices: it is cut anew."""
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    for file in workdir.glob("programs/*/trials.jsonl"):
        file.unlink()
    assert batch_sizes(workdir) == [(3, 3)] * 2
    finish(launch(workdir, devices=4))
    assert batch_sizes(workdir) == [(3, 4)] * 2
    assert_ran_on((4, 1), workdir, uninterrupted)
