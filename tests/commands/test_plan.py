"""What --plan says: what would run, what is kept, and about how long, without compiling anything."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from cnnjax.commands import plan_table
from cnnjax.commands.plan_table import plan_lines
from cnnjax.data import cache
from cnnjax.data.load import load_dataset
from cnnjax.runs.run_dir import RunFolder, finished_trials
from cnnjax.runs.speeds import read_speeds
from cnnjax.study.plan import make_plan
from cnnjax.training.machine import Machine
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from tests.support.runs import run
from tests.support.studies import make_study

AXES = {"epochs": (1, 2), "learning_rate": (0.02, 0.05)}


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def uncompiled(tiny, monkeypatch):
    """Nothing is compiled, and no speed is timed."""

    def refuse(*arguments, **options):
        raise AssertionError("compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    monkeypatch.setattr(jax, "jit", refuse)
    monkeypatch.setattr(plan_table, "calibrate", lambda machine: 1e11)


def test_the_first_line_comes_before_the_data_is_read(uncompiled, monkeypatch):
    def read(study):
        raise RequestError("data.name", "x", "read")

    monkeypatch.setattr(plan_table, "load_checked", read)
    lines = plan_lines(make_study(seeds=(0, 1, 2), train=AXES))
    assert next(lines) == "trials    12: 6 trained, 6 read off longer ones"
    assert next(lines) == "programs  1"
    with pytest.raises(RequestError, match="read"):
        next(lines)


def test_a_program_has_its_members_memory_operations_and_minutes(uncompiled):
    *_, head, row, _, total, time = plan_lines(make_study(seeds=(0, 1, 2), train=AXES))
    words = head.replace("at a time", "together").replace("memory MB", "memory").split()
    named = dict(zip(words, row.split(), strict=False))
    assert (named["model"], named["members"], named["together"], named["batch"]) == ("tiny", "6", "6", "50")
    assert named["devices"] == "1x1"
    assert float(named["memory"]) > 0 and total.startswith("in all ")
    assert time.startswith("about ") and time.endswith("on this machine, by a matrix product")


@pytest.mark.parametrize(("seeds", "devices"), [(1, "1x2"), (2, "2x1"), (3, "1x2")])
def test_devices_that_members_leave_idle_share_batches(uncompiled, monkeypatch, seeds, devices):
    monkeypatch.setattr(plan_table, "this_machine", lambda useful: Machine("cpu", "two cores", 2, 8_000_000_000))
    monkeypatch.setattr("cnnjax.training.layout._LEAST_OPERATIONS", 1)
    monkeypatch.setattr("cnnjax.training.layout._LEAST_EXAMPLES", {"cpu": 16})
    *_, row, _, _, _ = plan_lines(make_study(seeds=tuple(range(seeds))))
    assert f"  {devices}  " in row


def test_longer_trials_that_train_anew_are_said(uncompiled):
    cosine = make_study(seeds=(0, 1), train={**AXES, "schedule": "cosine"})
    lines = list(plan_lines(cosine))
    assert lines[0] == "trials    8: 8 trained, 0 read off longer ones"
    assert lines[1] == "          4 longer ones train anew: their schedules depend on the number of epochs"
    assert not any("anew" in line for line in plan_lines(make_study(seeds=(0, 1), train=AXES)))


@pytest.mark.parametrize(("key", "value"), [("precision", "tf32"), ("convolution", "pallas")])
def test_what_this_machine_lacks_is_refused(key, value, uncompiled):
    with pytest.raises(RequestError, match=rf"train\.{key}='{value}'"):
        list(plan_lines(make_study(train={key: value})))


@pytest.mark.slow
def test_finished_trials_are_kept_and_their_speed_is_known(quick, rough, tmp_path):
    study = make_study(seeds=(0, 1), train={"epochs": (1, 2)})
    run(study, tmp_path / "run")
    plan = make_plan(study)
    assert finished_trials(RunFolder(tmp_path / "run"), plan.programs) == {trial.id for trial in plan.trials}
    assert finished_trials(RunFolder(tmp_path / "nowhere"), plan.programs) == set()
    said = list(plan_lines(study, tmp_path / "run"))
    assert said[0] == f"trials    4: 4 kept from {tmp_path / 'run'}, 0 new: 0 trained, 0 read off longer ones"
    assert said[-1] == "nothing left to train"
    assert next(plan_lines(make_study(seeds=(0, 1, 2), train={"epochs": (1, 4)}), tmp_path / "run")) == (
        f"trials    6: 2 kept from {tmp_path / 'run'}, 4 new: 3 trained, 1 read off longer ones"
    )
    with pytest.raises(RequestError, match="it holds another study"):
        list(plan_lines(make_study(data={"validation": 60}), tmp_path / "run"))
    (speed,) = read_speeds()
    assert (speed.model, speed.batch_size, speed.members) == ("tiny", 50, 2)
    assert list(plan_lines(study))[-1].endswith("by the speeds of earlier runs")


@pytest.mark.slow
def test_a_measured_plan_trains_a_few_steps_and_writes_no_run(quick, rough, tmp_path, monkeypatch):
    seen = []
    advance = Population.advance

    def watched(self, state, hparams, streams, data, epochs, some=None):
        seen.append((len(data.labels["train"]), epochs))
        return advance(self, state, hparams, streams, data, epochs, some)

    monkeypatch.setattr(Population, "advance", watched)
    study = make_study(seeds=(0, 1), train={"batch_size": (10, 20), "epochs": 50})
    lines = list(plan_lines(study, tmp_path / "run", measure=True))
    assert seen == [(100, 1)] * 2 + [(200, 1)] * 2
    assert lines[-1].endswith("by the speeds of earlier runs") and len(read_speeds()) == 2
    assert not (tmp_path / "run").exists()


def test_mapped_images_are_the_cached_ones(tmp_path):
    """A plan maps them: their sum is not checked, but a file that is too short is decoded again."""
    for index in range(6):
        (tmp_path / "photos" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / str(index % 2) / f"{index}.png")
    data = dataclasses.replace(make_study().data, path=str(tmp_path / "photos"), train_examples=(None,), validation=1)
    decoded = load_dataset(data)
    with cache.mapped():
        mapped = load_dataset(data)
    assert mapped.notes == decoded.notes and mapped.classes == decoded.classes
    for name, split in decoded.splits.items():
        np.testing.assert_array_equal(mapped.splits[name].images, split.images)
    (file,) = (tmp_path / "cache").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-100])
    with cache.mapped():
        again = load_dataset(data)
    np.testing.assert_array_equal(again.train.images, decoded.train.images)
