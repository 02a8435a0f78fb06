"""The winner and runners-up on fresh seeds: which configurations, which seeds, and what is said of them."""

import dataclasses
import html
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from absl import flags
from absl.testing import flagsaver
from rich.console import Console

from cnnjax import launch, stats
from cnnjax.analysis.compare import fresh
from cnnjax.analysis.read import read_run
from cnnjax.commands import confirm as confirmation
from cnnjax.commands import launch as launching
from cnnjax.commands import run
from cnnjax.commands.growth import check_repeatable
from cnnjax.report import build_report, summarize_run
from cnnjax.report.sections.confirmation import contender_table, text, verdict
from cnnjax.runs.run_dir import RunFolder
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.study.trials import list_trials, single_out
from cnnjax.training import program
from cnnjax.utils.errors import RequestError
from cnnjax.utils.progress import Progress
from tests.support.made_up_run import make_config, make_run
from tests.support.runs import trial_ids
from tests.support.studies import make_study

ROOT = Path(__file__).parents[2]
GRID = make_config([0, 1, 4], train={"learning_rate": [0.01, 0.03]}) | {
    "models": ["baseline", "medium"],
    "data": {"validation": 0.1},
    "select": "val_accuracy",
}
EVERYTHING = {
    "models": ["baseline", "medium"],
    "seeds": [3, 4],
    "train": {"optimizer": ["adam", "sgd"], "momentum": [0.0, 0.9], "epochs": [1, 2], "dropout_rate": [None, 0.5]},
    "streams": {"init": 9},
}
STAGED = {
    "seeds": [3],
    "train": {
        "learning_rate": [0.1, 0.2],
        "momentum": [0.5, 0.9],
        "stages": [{"optimizer": "adam", "learning_rate": 0.3}, {"optimizer": "sgd", "epochs": 2}],
    },
}


@pytest.mark.parametrize("config", [EVERYTHING, STAGED, GRID])
def test_any_configuration_of_a_grid_is_a_study_of_its_own(config):
    study = from_config(config)
    for trial in list_trials(study):
        (alone,) = list_trials(single_out(study, trial, (7,)))
        assert (alone.static, alone.stages, alone.seed) == (trial.static, trial.stages, 7)
        assert (alone.streams.init, alone.streams.order) == (9 if study.streams.init[0] == 9 else 7, 7)
        assert single_out(study, trial, (7,)).data == study.data
    with pytest.raises(ValueError, match="not a trial of the study"):
        single_out(from_config(make_config([0])), list_trials(study)[0], (7,))


def test_fresh_seeds_are_those_that_had_no_say():
    assert fresh.fresh_seeds((0, 1, 4), 4) == (2, 3, 5, 6)
    assert fresh.fresh_seeds((5, 6, 7), 2) == (0, 1)


@pytest.mark.parametrize("select", ["val_accuracy", "val_loss", "test_f1"])
def test_the_contenders_are_the_best_by_what_selects(tmp_path, select):
    workdir = make_run(tmp_path / "run", GRID | {"select": select}, diverge=["t0009"])
    trials = pd.read_csv(workdir / "trials.csv")
    complete = trials.groupby(["model", "learning_rate"]).filter(lambda group: (group["status"] == "ok").all())
    means = complete.groupby(["model", "learning_rate"])[select].mean()
    expected = means.sort_values(ascending=select == "val_loss").index
    found = fresh.contenders(read_run(workdir))
    assert len(found) == 3  # the fourth lost a seed
    configurations = trials.set_index("trial").loc[found, ["model", "learning_rate"]]
    assert list(configurations.itertuples(index=False, name=None)) == list(expected)


def confirmed_run(folder, number=5, validation=None):
    """A run, with these validation accuracies, and its contenders on fresh seeds, all with made-up results."""
    workdir = make_run(folder / "run", GRID)
    if validation:
        rows = pd.read_csv(workdir / "trials.csv").assign(val_accuracy=validation)
        rows.to_csv(workdir / "trials.csv", index=False)
    study = from_config(GRID)
    trials = {trial.id: trial for trial in make_plan(study, numbered=True).trials}
    for place, trial in enumerate(fresh.contenders(read_run(workdir))):
        alone = single_out(study, trials[trial], fresh.fresh_seeds(study.seeds, number))
        folder = make_run(fresh.fresh_folder(workdir, number, trial), alone.to_dict())
        rows = pd.read_csv(folder / "trials.csv")
        rows["test_accuracy"] += 0.002 * place * (rows["seed"] - 4)  # the made-up results are alike else
        rows.to_csv(folder / "trials.csv", index=False)
    return workdir


def test_the_reported_mean_is_that_of_the_fresh_seeds(tmp_path):
    workdir = confirmed_run(tmp_path)
    found = fresh.compute_confirmation(read_run(workdir), 5)
    trials = pd.read_csv(workdir / "trials.csv")
    samples = []
    for contender in found.contenders:
        own = pd.read_csv(workdir / f"confirm/5/{contender.trial}/trials.csv")
        assert own["seed"].tolist() == [2, 3, 5, 6, 7]
        samples.append(own["test_accuracy"])
        assert contender.fresh.mean == pytest.approx(own["test_accuracy"].mean())
        row = trials.set_index("trial").loc[contender.trial]
        same = trials[(trials["model"] == row["model"]) & (trials["learning_rate"] == row["learning_rate"])]
        assert contender.selected.mean == pytest.approx(same["test_accuracy"].mean())
        assert contender.score == pytest.approx(same["val_accuracy"].mean())
    for row, other in zip(found.against, samples[1:], strict=True):
        assert row.difference == pytest.approx(samples[0].mean() - other.mean())
        assert (row.verdict == "undecided") == (row.low < 0 < row.high) == (row.p >= 0.05)


@pytest.mark.parametrize(("select", "measure"), [("val_accuracy", "test_accuracy"), ("test_f1", "test_f1")])
def test_fresh_seeds_are_compared_by_the_metric_of_the_study(tmp_path, select, measure):
    run = dataclasses.replace(of := read_run(confirmed_run(tmp_path)), config=of.config | {"select": select})
    found = fresh.compute_confirmation(run, 5)
    own = pd.read_csv(run.workdir / f"confirm/5/{found.contenders[0].trial}/trials.csv")
    assert found.measure == measure and found.contenders[0].fresh.mean == pytest.approx(own[measure].mean())


@pytest.mark.parametrize("number", [1, 2])
def test_few_fresh_seeds_are_said_to_be_few(tmp_path, number):
    workdir = confirmed_run(tmp_path, number)
    found = fresh.compute_confirmation(read_run(workdir), number)
    said = text(found) + contender_table(found).text()
    assert said.startswith(f"On {number} fresh seed{'s' * (number > 1)}, which") and "nan" not in said
    RunFolder(workdir / "confirm" / str(number)).write_json("confirmation.json", fresh.to_dict(found))
    said = summarize_run(workdir)
    assert f"On {number} fresh seed{'s' * (number > 1)}, which" in said and "nan" not in said
    assert ("interval –" in said, "(– to" in said) == (False, False)


def written(workdir, number=5):
    """Writes down the confirmation of a run, as the command does; returns it."""
    found = fresh.compute_confirmation(read_run(workdir), number)
    RunFolder(workdir / "confirm" / str(number)).write_json("confirmation.json", fresh.to_dict(found))
    assert repr(fresh.read_confirmation(workdir)) == repr(found)
    return found


@pytest.mark.slow
def test_the_report_says_the_mean_of_fresh_seeds_in_its_first_paragraph(tmp_path):
    workdir = confirmed_run(tmp_path)
    assert "fresh seeds" not in re.search('class="answer">(.*?)</p>', build_report(workdir).read_text())[1]
    found = written(workdir)
    winner, second, _ = found.contenders
    page = html.unescape(build_report(workdir).read_text())
    answer = re.search('class="answer">(.*?)</p>', page)[1]
    assert (
        f"On 5 fresh seeds, which did not take part in the selection, it reaches {100 * winner.fresh.mean:.2f} %"
        in answer
    )
    assert f"{100 * winner.fresh.low:.2f} % to {100 * winner.fresh.high:.2f} %" in answer
    (against, *_) = found.against
    assert f"{against.verdict} " in answer and f"number 2, {second.configuration} by " in answer
    assert (
        f"On 5 fresh seeds, which did not take part in the selection, it reaches {100 * winner.fresh.mean:.2f} %"
        in (summarize_run(workdir).replace("\\", ""))
    )
    table = pd.read_csv(workdir / "report/confirmation.csv")
    assert table["fresh"].tolist() == pytest.approx([row.fresh.mean for row in found.contenders])
    assert table["difference"].tolist()[1:] == pytest.approx([a.difference for a in found.against])
    assert table["certainty"].tolist()[1:] == pytest.approx([1 - a.p for a in found.against])


def against(verdict, more=None):
    return fresh.Against("t0001", verdict, 0.2, 0.01, -0.02, 0.04, more and (more, more))


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["better", "better"], "Decided: on the fresh seeds it is better than number 2, b by +1.00 points (-2.00 to"),
        (["undecided", "better"], "Undecided: on the fresh seeds it is undecided against number 2, b by"),
        (["better", "worse"], "Not confirmed: on the fresh seeds it is worse than number 3, c by"),
        (["equal", "equal"], "Equal: on the fresh seeds it is equal to number 2, b; and number 3, c."),
    ],
)
def test_the_verdict_of_fresh_seeds_names_what_is_open(verdicts, said):
    summary = stats.summarize([0.6, 0.7, 0.8])
    contenders = [fresh.Contender("t0000", name, 0.7, summary, summary) for name in "abc"]
    more = [7 if verdict == "undecided" else None for verdict in verdicts]
    found = fresh.Confirmation(5, "test_accuracy", "test_accuracy", contenders, [*map(against, verdicts, more)])
    sentence = verdict(found)
    assert sentence.startswith(said)
    assert ("+4.00 points), 7 more seeds of each would decide it; better than number 3" in sentence) == (7 in more)
    assert verdict(found._replace(contenders=contenders[:1], against=[])) == ""


@pytest.mark.slow
def test_after_a_confirmation_the_study_s_own_seeds_have_no_other_verdict(tmp_path):
    """Also of configurations that were not trained again: they are named as what is open, and the number of seeds."""
    validation = [0.70, 0.60, 0.65, 0.71, 0.62, 0.64, 0.66, 0.70, 0.69, 0.68, 0.69, 0.73]
    workdir = confirmed_run(tmp_path, validation=validation)
    before = html.unescape(build_report(workdir).read_text())
    assert "Undecided: it leads the runner-up" in re.search('class="answer">(.*?)</p>', before)[1]
    written(workdir)
    page = html.unescape(build_report(workdir).read_text())
    answer = re.search('class="answer">(.*?)</p>', page)[1]
    opening = page[: page.index("<nav")]
    assert "on the fresh seeds it is" in answer and "leads the runner-up" not in opening
    assert "confirm it on fresh seeds" not in opening and opening.count("ndecided: ") <= 1
    assert re.search(
        r"undecided against 1 other configuration with a lower mean \(\w+, learning rate 0.0[13]\): [\d,]+ more seed",
        answer,
    )


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"contenders": []}, {"measure": "luck"}, {"against": [{"p": 1}, {}]}])
def test_a_confirmation_that_is_none_is_refused_in_one_line(tmp_path, change):
    workdir = confirmed_run(tmp_path)
    written(workdir)
    folder = RunFolder(workdir / "confirm/5")
    folder.write_json("confirmation.json", folder.read_if_intact("confirmation.json") | change)
    with pytest.raises(RequestError, match=r"confirmation\.json.*is damaged"):
        build_report(workdir)


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ({"init": (0, 1)}, "streams.init"),
        (dict.fromkeys(("init", "order", "augment", "dropout"), 3), "a stream that follows the seed"),
    ],
)
def test_where_other_seeds_would_mean_nothing_it_is_refused(streams, words):
    with pytest.raises(RequestError, match=words):
        check_repeatable(make_study(streams=streams), "--confirm")


def confirm(study, workdir, number):
    with Progress(Console(file=io.StringIO(), width=200)) as progress:
        run.run(study, workdir, progress=progress)
        return confirmation.confirm(study, workdir, number, progress=progress)


@pytest.mark.slow
def test_contenders_are_trained_on_fresh_seeds_and_a_second_call_finds_them(quick, rough, tmp_path, monkeypatch):
    reports = []
    monkeypatch.setattr(confirmation, "build_report", reports.append)
    study = make_study(train={"learning_rate": (0.05, 0.02), "epochs": 1})
    said = confirm(study, tmp_path / "run", 2)
    names = trial_ids(tmp_path / "run")
    folders = [tmp_path / "run/confirm/2" / name for name in names]
    assert {*(tmp_path / "run/confirm/2").glob("t*")} == {*folders}
    for folder, rate in zip(folders, (0.05, 0.02), strict=True):
        trials = pd.read_csv(folder / "trials.csv")
        assert trials["seed"].tolist() == [1, 2] and set(trials["learning_rate"]) == {rate}
    numbers = json.loads((tmp_path / "run/confirm/2/confirmation.json").read_text())
    assert {row["trial"] for row in numbers["contenders"]} == {*names}
    written = (folders[0] / "metrics.jsonl").read_bytes()
    assert sorted(reports) == sorted([*folders, tmp_path / "run"])
    assert confirm(study, tmp_path / "run", 2) == said
    assert (folders[0] / "metrics.jsonl").read_bytes() == written


def test_the_flag_confirms_after_the_run(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(run, "run", lambda study, workdir, **options: calls.append("run"))
    monkeypatch.setattr(launching, "_report", lambda workdir, build: str(workdir / "index.html"))
    monkeypatch.setattr(program, "enable_compilation_cache", lambda folder: None)
    monkeypatch.setattr(
        confirmation, "confirm", lambda *given, progress, engine: calls.append(given[1:]) or "confirmed"
    )
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(config=str(ROOT / "configs/quickstart.py"), workdir="there", confirm=5):
        launch.main([])
    assert calls == ["run", (Path("there"), 5)]
    assert capsys.readouterr().out == "there/index.html\nconfirmed\n"
