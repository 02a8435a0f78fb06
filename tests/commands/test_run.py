"""A run: its files, however its members are cut into chunks, and what is left of it to do."""

import gzip
import itertools
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnjax
from cnnjax.runs.integrity import read_lines
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.training import checkpoints, loop
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from tests.support.runs import (
    CLOSE,
    GRID,
    MEASURED,
    ROOT,
    Crash,
    assert_equal_numbers,
    assert_no_line_twice,
    batch_sizes,
    read_all,
    read_weights,
    run,
    trial_ids,
)
from tests.support.studies import make_study

pytestmark = pytest.mark.usefixtures("quick")


# What a run leaves


@pytest.mark.slow
def test_a_run_writes_down_every_trial(tmp_path):
    study = make_study(seeds=(0, 1), select="val_accuracy", train=GRID)
    run(study, tmp_path)
    plan = make_plan(study)
    results = cnnjax.load_results(tmp_path)
    assert list(results.trial) == [trial.id for trial in plan.trials]
    assert set(results.status) == {"ok"} and list(results.epochs_run) == [t.epochs for t in plan.trials]
    metrics = pd.DataFrame(read_lines(tmp_path / "metrics.jsonl").intact)
    labels = np.load(tmp_path / "predictions/labels.npz")["labels"]
    for row in results.itertuples():
        ours = metrics[(metrics.member == row.member) & (metrics.epoch <= row.epochs)]
        assert list(ours.epoch) == list(range(1, row.epochs + 1))
        assert ours.val_loss.iloc[-1] == row.val_loss
        assert row.best_epoch == ours.epoch.iloc[ours.val_accuracy.argmax()]
        logits = np.load(tmp_path / f"predictions/{row.trial}.npz")["logits"]
        assert (logits.argmax(1) == labels).mean() == pytest.approx(row.test_accuracy, abs=1e-6)
    assert_no_line_twice(tmp_path)


@pytest.mark.slow
def test_a_shorter_trial_read_off_is_the_one_trained_alone(tmp_path):
    run(make_study(train={"epochs": (2, 3)}), tmp_path / "both")
    run(make_study(train={"epochs": 2}), tmp_path / "short")
    both, short = (cnnjax.load_results(tmp_path / name) for name in ("both", "short"))
    pd.testing.assert_frame_equal(both.loc[both.epochs == 2, MEASURED], short[MEASURED], **CLOSE)
    assert json.loads((tmp_path / "both/plan.json").read_text())["trained"] == 1
    assert not np.isclose(both.train_loss[0], both.train_loss[1], rtol=1e-3)


@pytest.mark.slow
def test_the_weights_of_every_trial_stay_and_of_other_states_the_newest_until_all_have_ended(tmp_path, monkeypatch):
    study = make_study(train={"epochs": (2, 6)})  # by default the two newest stay
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "keep_only", lambda self, epochs: self.wait())
        run(study, tmp_path / "before")
    run(study, tmp_path / "run")
    for name, kept in (("before", [2, 5, 6]), ("run", [2, 6])):
        (chunk,) = (tmp_path / name).glob("checkpoints/*/*/")
        assert checkpoints.saved_epochs(chunk) == kept
        assert {path.name for path in chunk.iterdir()} == {str(epoch) for epoch in kept}
    assert read_all(tmp_path / "before") == read_all(tmp_path / "run")
    assert read_weights(tmp_path / "before") == read_weights(tmp_path / "run")


@pytest.mark.slow
def test_load_results_is_numeric_and_lazy(tmp_path):
    run(make_study(train={"learning_rate": (1e-3, 1e30)}), tmp_path)
    results = cnnjax.load_results(str(tmp_path))
    texts = {
        "trial",
        "member",
        "model",
        "initialization",
        "optimizer",
        "arithmetic",
        "augment",
        "convolution",
        "loss",
        "class_weights",
        "groups",
        "lookahead",
        "normalization",
        "schedule",
        "early_stopping",
        "stage_start",
        "later_stages",
        "status",
    }
    assert {c for c in results if not pd.api.types.is_numeric_dtype(results[c])} == texts
    assert list(results.trial) == trial_ids(tmp_path)
    with pytest.raises(RequestError, match=r"trials\.csv"):
        cnnjax.load_results(tmp_path / "nowhere")
    script = "import sys, cnnjax; print('pandas' in sys.modules, 'numpy' in sys.modules, callable(cnnjax.load_results))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False", "True"], done.stderr
    with pytest.raises(AttributeError):
        _ = cnnjax.nothing


@pytest.mark.slow
def test_a_diverged_trial_is_recorded(tiny, tmp_path):
    rates = {"learning_rate": (1e-3, 1e30), "batch_size": 200, "epochs": (1, 3)}
    run(make_study(train=rates), tmp_path)
    results = cnnjax.load_results(tmp_path).set_index(["learning_rate", "epochs"])
    assert (results.status[1e-3] == "ok").all()
    # One batch an epoch: its loss is computed before the update, so the first ends well, with weights that do not.
    assert (results.status[1e30] == "diverged").all()
    assert results.epochs_run[1e30].to_dict() == {1: 1, 3: 2}
    diverged = results.loc[1e30, 3]
    assert diverged[[*MEASURED, "best_epoch", "test_precision", "test_recall"]].isna().all()
    assert not (tmp_path / f"predictions/{diverged.trial}.npz").exists()
    lines = [line for line in read_lines(tmp_path / "metrics.jsonl").intact if line.get("member") == diverged.member]
    assert [(line["epoch"], line.get("status")) for line in lines] == [(1, None), (2, "diverged")]
    assert lines[1]["train_loss"] is None


# Programs and chunks


@pytest.mark.slow
def test_every_program_is_traced_once_whatever_its_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnjax.training.compiler.Population", Population)
    study = make_study(seeds=(0, 1, 2), train={**GRID, "batch_size": (50, 100)})
    run(study, tmp_path / "cut", max_members=4)
    planned = json.loads((tmp_path / "cut/plan.json").read_text())["programs"]
    assert [program["compilations"] for program in planned] == [1, 1]
    assert [program["chunk_members"] for program in planned] == [[3], [3]]
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
    configurations = {tuple({**t.row(), "trial": 0}.values()) for t in plan.trials}
    assert len(configurations) == len(plan.trials)
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


@pytest.mark.slow
def test_a_population_shrinks_to_the_members_that_still_train(tmp_path, monkeypatch):
    """Five of six members diverge in their first epochs: the last one goes on in a program of its own, as it would."""
    rates = {"learning_rate": (0.05, 1e28, 1e29, 1e30, 1e31, 1e32), "epochs": 6}
    study = make_study(train=rates)
    run(study, tmp_path / "whole")
    monkeypatch.setattr(loop, "_OPERATIONS_TO_COMPILE", 0)
    monkeypatch.setattr(Population, "skips_ended", False)  # as on a GPU
    sizes = []
    monkeypatch.setattr(Population, "advance", recorded(Population.advance, sizes))
    run(study, tmp_path / "shrunk")
    assert sizes[0] == 6 and sizes[-1] == 1  # after six, three and two
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


@pytest.mark.slow
def test_a_profile_is_a_trace_of_the_devices(tmp_path):
    run(make_study(checkpoint={"every": 2}), tmp_path, profile=True)  # else both epochs are one call
    (trace,) = (tmp_path / "profile").glob("p*/**/perfetto_trace.json.gz")
    names = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert any("dot" in str(name) for name in names)  # a matrix product of the compiled program


@pytest.mark.slow
def test_a_finished_run_trains_nothing_and_says_so(tmp_path, monkeypatch):
    study = make_study()
    run(study, tmp_path)
    before = read_all(tmp_path), read_weights(tmp_path)
    monkeypatch.setattr("cnnjax.training.compiler.Population", None)
    assert "is finished: 1 trials" in run(study, tmp_path)
    assert (read_all(tmp_path), read_weights(tmp_path)) == before


def test_a_finished_run_is_trained_again_when_asked(tmp_path, monkeypatch):
    study = make_study()
    run(study, tmp_path)
    before, calls, advance = read_weights(tmp_path), [], Population.advance
    monkeypatch.setattr(Population, "advance", lambda *arguments: calls.append(1) or advance(*arguments))
    run(study, tmp_path, overwrite=True)
    assert len(calls) == 2 and read_weights(tmp_path) == before


# Memory


@pytest.mark.slow
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
    layout = [(2, 2), (1, 2), (2, 2)]
    assert batch_sizes(tmp_path / "halved") == layout
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
    assert batch_sizes(tmp_path / "resumed") == layout
    assert sorted(read_all(tmp_path / "resumed")[0]) == sorted(read_all(tmp_path / "halved")[0])
    assert_equal_numbers(tmp_path / "halved", tmp_path / "resumed", rtol=0, atol=0)
    assert_no_line_twice(tmp_path / "resumed")


@pytest.mark.slow
def test_what_is_not_out_of_memory_is_raised(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Population, "advance", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run(make_study(seeds=(0, 1)), tmp_path)
