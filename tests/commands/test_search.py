"""Searches in a run's folder: they train what they ask for, resume bit for bit, grow, and are reported."""

import io
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import cnnjax
from cnnjax.analysis.read import read_run
from cnnjax.analysis.search import compare_searches, searched_columns
from cnnjax.commands import confirm, search
from cnnjax.commands.growth import check_folder
from cnnjax.commands.plan_table import plan_lines
from cnnjax.report.sections import search as section
from cnnjax.report.sections.hyperparameters import explain
from cnnjax.runs.integrity import read_lines
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.halving import rung_epochs
from cnnjax.training.population import Population
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.made_up_run import make_run
from tests.support.runs import Crash, assert_no_line_twice, crash_at, read_all, run
from tests.support.studies import add_tiny, make_study

pytestmark = pytest.mark.usefixtures("quick")


def make_search(method="halving", trials=9, **changes):
    train = {"learning_rate": "log_uniform(1e-3, 1)", "momentum": "uniform(0, 0.9)", "epochs": 4}
    train |= changes.pop("train", {})
    options = {"factor": 2} if method == "halving" else {"batch": 4} if method == "optuna" else {}
    return make_study(train=train, search={"method": method, "trials": trials, **options}, **changes)


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """The folder of a search by halving, its study, and how often a program was traced."""
    workdir, traces, inner = tmp_path_factory.mktemp("halved"), [], Population._advance_member
    study = make_search(seeds=(0, 1, 2))
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch, convolutions=False)
        patch.setattr(Population, "_advance_member", lambda *args: traces.append(1) or inner(*args))
        run(study, workdir)
    return workdir, study, len(traces)


def decisions(workdir):
    return read_lines(workdir / "search.jsonl").intact


def asked(workdir):
    return json.loads((workdir / "config.json").read_text())["asked"]


def member_epochs(workdir):
    """The epochs that each member has trained, by its id."""
    lines = [line for file in workdir.glob("programs/*/metrics.jsonl") for line in read_lines(file).intact]
    return pd.DataFrame([line for line in lines if "member" in line]).groupby("member")["epoch"].max()


def test_the_plan_of_halving_is_its_start(tmp_path):
    said = list(itertools.islice(plan_lines(make_search(), tmp_path / "new"), 3))
    assert said[0].startswith("trials    9: 9 trained") and said[2].startswith("search    halving")


@pytest.mark.slow
def test_halving_trains_the_best_of_each_rung_further_and_no_other(halved):
    workdir, study, traces = halved
    assert traces <= 3  # one program, for few numbers of members
    rungs = rung_epochs(study)
    assert rungs == (1, 2, 4)
    first, second, *seeds = decisions(workdir)
    scores = {int(n): value for n, value in first["scores"].items()}
    assert first["kept"] == sorted(sorted(scores, key=lambda n: -scores[n])[:4]) and len(second["kept"]) == 2
    assert [line["rule"] for line in seeds] == ["seeds"] * len(seeds) and len(seeds) >= 1
    assert all(0 <= line["power"] <= 1 for line in seeds)
    results = cnnjax.load_results(workdir)
    rows = results[results["seed"] == 0].set_index("learning_rate")
    for number, one in enumerate(asked(workdir)):
        rung = sum(number in line["kept"] for line in (first, second))
        assert one["train.epochs"] == rungs[rung]
        assert rows.loc[one["train.learning_rate"], "epochs_run"] == rungs[rung]
    epochs = member_epochs(workdir)
    assert sorted(epochs)[:9] == [1] * 5 + [2] * 2 + [4] * 2  # nothing is trained that was dropped
    # Scores are those that the members had after the epochs of the rung.
    history = read_run(workdir).epochs
    best = max(scores, key=scores.__getitem__)
    member = rows.loc[asked(workdir)[best]["train.learning_rate"], "member"]
    of_member = history[(history["member"] == member) & (history["epoch"] == 1)]
    assert scores[best] == -of_member["val_loss"].item()
    assert_no_line_twice(workdir)
    assert "nothing left to train" in run(study, workdir)


@pytest.mark.slow
def test_a_search_killed_ten_times_gives_the_same_trials_bit_for_bit(tmp_path):
    study = make_search(trials=4, seeds=(0, 1), train={"epochs": 3})
    run(study, tmp_path / "whole")
    kills = 0
    for number in range(4, 200, 2):
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, number)
            if kills in (7, 9):
                patch.setattr(search, "_record", crash)
            try:
                run(study, tmp_path / "killed")
                break
            except Crash:
                kills += 1
    assert kills >= 10
    assert read_all(tmp_path / "killed") == read_all(tmp_path / "whole")
    assert decisions(tmp_path / "killed") == decisions(tmp_path / "whole")
    assert asked(tmp_path / "killed") == asked(tmp_path / "whole")


def crash(*_):
    raise Crash


@pytest.mark.slow
def test_a_search_grows_by_configurations_at_the_first_rung(halved):
    workdir, _, _ = halved
    grown = make_search(trials=12, seeds=(0, 1, 2))
    assert check_folder(RunFolder(workdir), grown, overwrite=False) is False
    more = search.resume(grown, RunFolder(workdir), is_new=False)
    assert more.to_dict()["asked"][:9] == asked(workdir)
    assert [(one["train.epochs"], one["seeds"]) for one in more.asked[9:]] == 3 * [(1, (0,))]
    for other, key in (
        (make_search("sobol", 12), "search.factor"),
        (make_search(trials=12, train={"momentum": "uniform(0, 0.5)"}), "train.momentum"),
    ):
        with pytest.raises(RequestError, match=rf"it holds another study, which differs in .*{key}"):
            check_folder(RunFolder(workdir), other, overwrite=False)


@pytest.mark.slow
def test_the_report_shows_the_search_beside_simple_ones(halved):
    read = read_run(halved[0])
    this, random, twice, one_epoch = compare_searches(read)
    assert this.epochs == len(read.epochs) and this.score == read.configurations.loc[read.best, "val_loss"]
    count = round(this.epochs / 4)
    values = read.configurations["val_loss"].to_numpy()
    draws = [min(values[np.random.default_rng(i).permutation(len(values))[:count]]) for i in range(4000)]
    assert random.score == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 60)
    assert random.epochs == 4 * count and not twice.score > random.score
    first = read.history[read.history["epoch"] == 1]
    chosen = first.groupby("configuration")["val_loss"].mean().idxmin()
    assert one_epoch.score == read.configurations.loc[chosen, "val_loss"] and one_epoch.epochs == 8 + 4
    assert [table.name for table in section.tables(read)] == ["searches", "searched_best"]
    assert [plot.name for plot in section.figures(read)] == ["searched"]
    assert explain(read) is None


@pytest.mark.slow
def test_fresh_seeds_compare_the_winner_with_the_default_configuration(halved, tmp_path, monkeypatch):
    workdir, study, _ = halved
    trained = {}

    def copy(alone, folder, **_):
        """A run of another configuration stands for that on fresh seeds, which would take a minute."""
        trained[folder.name] = alone
        shutil.copytree(workdir, folder)

    shutil.copytree(workdir, tmp_path / "run")
    monkeypatch.setattr(confirm.run, "run", copy)
    monkeypatch.setattr(confirm, "build_report", lambda folder: folder)
    with Progress(Console(file=io.StringIO())) as progress:
        said = confirm.confirm(study, tmp_path / "run", 3, progress=progress)
    *_, default = trained.values()
    assert (default.train.learning_rate, default.train.momentum, default.train.epochs) == ((0.001,), (0.0,), (4,))
    assert default.seeds == (3, 4, 5) and default.search.method == "grid"
    found = json.loads((tmp_path / "run" / "confirm" / "3" / "confirmation.json").read_text())
    assert [row["trial"] for row in found["contenders"]] == [*trained]
    assert found["contenders"][-1]["configuration"].startswith("the default configuration, tiny")
    assert "the default configuration" in said


def test_arguments_of_optimizers_are_among_what_a_search_has_set(tmp_path):
    train = {"optimizer": "lion", "optimizer_args": {"b1": [0.5, 0.8]}, "learning_rate": "log_uniform(1e-4, 1e-2)"}
    search = {"method": "sobol", "trials": 8}
    config = {"models": ["baseline"], "seeds": [0], "select": "val_accuracy", "train": train, "search": search}
    run = read_run(make_run(tmp_path / "run", config | {"data": {"validation": 0.1}}))
    assert searched_columns(run) == {"b1": False, "learning_rate": True}
    assert next(plot.name for plot in section.figures(run)) == "searched"
