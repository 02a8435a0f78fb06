"""The report against the files it is built from, recomputed without it."""

import html.parser
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.stats

from cnnjax.analysis.read import read_run
from cnnjax.report import build_report
from cnnjax.report.sections import spread
from cnnjax.report.sections.measures import group_means
from cnnjax.study.metrics import TEST_MEASURES
from cnnjax.utils.errors import RequestError
from cnnjax.utils.text import significant
from tests.support.made_up_run import (
    GRID,
    SKILL,
    STOPPED,
    figure_names,
    make_config,
    make_run,
    read_answer,
    read_floats,
    read_rows,
)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "grid", GRID, diverge=("t0021", "t0022"))
    build_report(folder)
    return folder


def _of_configuration(rows: list[dict], configuration: dict) -> list[dict]:
    axes = ("model", "optimizer", "learning_rate", "batch_size", "epochs")
    return [row for row in rows if row["status"] == "ok" and all(row[a] == configuration[a] for a in axes)]


@pytest.mark.slow
def test_configurations_are_recomputable_from_trials(grid):
    trials, configurations = read_rows(grid / "trials.csv"), read_rows(grid / "report" / "configurations.csv")
    assert len(configurations) == 48
    for configuration in configurations:
        mine = _of_configuration(trials, configuration)
        assert int(configuration["n"]) == len(mine) == 5 - int(configuration["diverged"])
        for column in ("test_accuracy", "test_loss", "test_f1", "test_precision", "test_recall", "train_loss"):
            expected = statistics.mean(read_floats(mine, column))
            assert float(configuration[column]) == pytest.approx(expected)
        for column in ("test_accuracy", "test_f1"):
            values = read_floats(mine, column)
            half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
            assert float(configuration[f"{column}_std"]) == pytest.approx(statistics.stdev(values))
            assert float(configuration[f"{column}_half"]) == pytest.approx(half)
    means = read_floats(configurations, "test_accuracy")
    assert means == sorted(means, reverse=True)


@pytest.mark.slow
def test_model_and_optimizer_table_keeps_the_two_spreads_apart(grid):
    trials, configurations = read_rows(grid / "trials.csv"), read_rows(grid / "report" / "configurations.csv")
    table = read_rows(grid / "report" / "by_model_and_optimizer.csv")
    assert len(table) == 6
    assert read_floats(table, "test_f1") == sorted(read_floats(table, "test_f1"), reverse=True)
    for row in table:
        mine = [s for s in configurations if (s["model"], s["optimizer"]) == (row["model"], row["optimizer"])]
        means, freedoms = read_floats(mine, "test_f1"), [int(s["n"]) - 1 for s in mine]
        within = sum(float(s["test_f1_std"]) ** 2 * df for s, df in zip(mine, freedoms, strict=True))
        assert (row["configurations"], row["seeds"]) == ("8", "5")
        assert int(row["trials"]) == sum(len(_of_configuration(trials, s)) for s in mine)
        assert float(row["test_f1"]) == pytest.approx(statistics.mean(means))
        assert float(row["test_f1_configuration_std"]) == pytest.approx(statistics.stdev(means))
        assert float(row["test_f1_seed_std"]) == pytest.approx((within / sum(freedoms)) ** 0.5)


@pytest.mark.slow
def test_best_trials_and_top_configurations(grid):
    trials = [row for row in read_rows(grid / "trials.csv") if row["status"] == "ok"]
    by_accuracy, by_f1 = read_rows(grid / "report" / "best_trials.csv")
    assert float(by_accuracy["test_accuracy"]) == max(read_floats(trials, "test_accuracy"))
    assert float(by_f1["test_f1"]) == max(read_floats(trials, "test_f1"))
    top = read_floats(read_rows(grid / "report" / "top_5_by_f1.csv"), "test_f1")
    every = read_floats(read_rows(grid / "report" / "configurations.csv"), "test_f1")
    assert top == sorted(every, reverse=True)[:5]


def test_models_table_says_what_each_costs_and_reaches(grid):
    trials, configurations = read_rows(grid / "trials.csv"), read_rows(grid / "report" / "configurations.csv")
    table = read_rows(grid / "report" / "models.csv")
    plan = json.loads((grid / "plan.json").read_text())["programs"]
    assert [row["model"] for row in table] == list(SKILL)
    for row in table:
        best = max(
            (s for s in configurations if s["model"] == row["model"] and s["diverged"] == "0"),
            key=lambda s: float(s["test_accuracy"]),
        )
        mine = _of_configuration(trials, best)
        assert [row[axis] for axis in ("optimizer", "learning_rate", "batch_size", "epochs", "n")] == [
            best[axis] for axis in ("optimizer", "learning_rate", "batch_size", "epochs", "n")
        ]
        for column in ("test_accuracy", "seconds", "images_per_second", "epochs_run", "best_epoch"):
            assert float(row[column]) == pytest.approx(statistics.mean(read_floats(mine, column)))
        assert float(row["test_accuracy_std"]) == pytest.approx(statistics.stdev(read_floats(mine, "test_accuracy")))
        (program,) = [p for p in plan if mine[0]["member"] in p["member_ids"]]
        assert (int(row["parameters"]), int(row["forward_flops"])) == (program["parameters"], program["forward_flops"])
    assert "val_accuracy" not in table[0]


def test_headline_names_the_best_mean_and_its_interval(grid):
    configurations, trials = read_rows(grid / "report" / "configurations.csv"), read_rows(grid / "trials.csv")
    best = max(configurations, key=lambda row: float(row["test_accuracy"]))
    values = [100 * value for value in read_floats(_of_configuration(trials, best), "test_accuracy")]
    alone = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    said = read_answer(grid)
    assert f"{best['model']}, {best['optimizer']}, learning rate {best['learning_rate']}" in said
    shown = re.search(rf"{statistics.mean(values):.2f} % [(]([0-9.]+) to ([0-9.]+)[)]", said)
    low, high = map(float, shown.groups())  # by the spreads of all configurations, which are alike
    assert low < statistics.mean(values) < high and high - low < alone.high - alone.low
    assert "Best of 48 configurations" in said and "5 seeds" in said


def test_intervals_end_where_the_scale_does(tmp_path):
    run = read_run(make_run(tmp_path / "run", make_config([0, 1, 2], select="test_accuracy")))
    frame = run.trials.assign(test_accuracy=[0.999, 0.97, 1.0], test_loss=[0.001, 0.05, 0.002])
    frame.to_csv(run.workdir / "trials.csv", index=False)
    run = read_run(run.workdir)
    assert re.search(r"98\.97 % \(94\.\d\d to 100\.0\)", read_answer(run.workdir))
    (table,) = [t.frame.set_index("measure") for t in spread.tables(run)]
    assert (table.loc["test_accuracy", ["high", "new_high"]] == 1).all()
    assert (table.loc["test_loss", ["low", "new_low"]] == 0).all()


def test_a_configuration_that_lost_seeds_is_not_named_best(tmp_path):
    config = make_config([0, 1, 2], select="test_accuracy", train={"learning_rate": [0.01, 0.03]})
    run = read_run(make_run(tmp_path / "run", config, diverge=("t0000", "t0001")))
    frame = run.trials.copy()
    frame.loc[frame["trial"] == "t0002", "test_accuracy"] = 0.999  # the lucky seed that is left
    frame.to_csv(run.workdir / "trials.csv", index=False)
    assert "learning rate 0.03" in read_answer(run.workdir)


def test_losses_are_selected_downwards(tmp_path):
    config = make_config([0, 1], select="train_loss", train={"learning_rate": [0.01, 0.03]})
    run = read_run(make_run(tmp_path / "run", config))
    assert run.configurations.loc[run.best, "train_loss"] == run.configurations["train_loss"].min()


def test_epochs_figure_averages_configurations_within_seeds(grid):
    trials = [row for row in read_rows(grid / "trials.csv") if row["status"] == "ok"]
    means = group_means(read_run(grid), ["model", "epochs"], "test_accuracy")
    mine = [t for t in trials if (t["model"], t["epochs"]) == ("complex", "10")]
    assert means.loc[("complex", 10), "mean"] == pytest.approx(statistics.mean(read_floats(mine, "test_accuracy")))


@pytest.mark.slow
def test_figures_fit_the_axes_of_the_study(grid, tmp_path):
    bars = {f"bars_{measure}" for measure in TEST_MEASURES if measure != "test_loss"}
    curves = {"curves_loss", "curves_accuracy"}
    over_seeds = {"ensembles", "examples_by_seeds"}
    classes = ("confusion", "roc", "class_accuracy")
    models = {f"{figure}_{model}" for figure in classes for model in SKILL}
    assert figure_names(grid, "svg") == figure_names(grid, "png")
    history = {"history", "models_train_loss", "models_best_accuracy"}
    galleries = {f"examples_{kind}" for kind in ("always_right", "always_wrong", "coin_flips")}
    assert figure_names(grid, "svg") - galleries == bars | curves | models | history | {
        *("f1_by_learning_rate", "accuracy_by_epochs", "time_and_accuracy"),
        *("ranking", "search", "parallel_coordinates", "effects", "marginal_means", "interactions"),
        *("reliability", *over_seeds),
    }
    one = make_run(tmp_path / "one", make_config([0]))
    seeds = make_run(tmp_path / "seeds", make_config([5, 6, 7]))
    build_report(one), build_report(seeds)
    both = curves | {f"{figure}_baseline" for figure in classes} | {"reliability"}
    assert figure_names(one, "svg") - galleries == both
    assert figure_names(seeds, "svg") - galleries == both | over_seeds | {"by_seed"}
    assert "the effect of another seed is unknown" in read_answer(one)


@pytest.mark.slow
@pytest.mark.filterwarnings("error:constrained_layout")  # matplotlib's, of names that leave no room for the rest
def test_axes_of_words_and_switches_are_told_apart(tmp_path):
    axes = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "initialization": ["pytorch", "he"],
        "precision": ["float32", "bfloat16"],
        "schedule": ["constant", "warmup:1+piecewise:2=0.1/3=0.01"],
        "nesterov": [False, True],
        "clip_norm": [None, 1.0],
        "shuffle": [True, False],
    }
    folder = make_run(tmp_path / "run", make_config([0, 1], train=axes))
    build_report(folder)
    rows = read_rows(folder / "report" / "configurations.csv")
    assert len(rows) == 64 and {row["arithmetic"] for row in rows} == {"float32", "bfloat16"}
    page = (folder / "report" / "index.html").read_text()
    for cell in (
        '<td class="text">bfloat16</td>',
        '<td class="text">he</td>',
        '<td class="axis" data-value="1.0">True</td>',
    ):
        assert cell in page
    assert "initialization he" in page or "he initialization" in page
    assert "clip norm off" in page and "as in model" not in page


def test_an_axis_that_only_follows_the_optimizer_names_no_configuration(tmp_path):
    axes = {"optimizer": ["adam", "sgd"], "momentum": 0.9, "nesterov": True}
    run = read_run(make_run(tmp_path / "run", make_config([0], train=axes)))
    assert [run.tell_apart(configuration) for configuration in run.configurations.index] == ["adam", "sgd"]


def test_seeds_table_holds_the_prediction_interval(tmp_path):
    data = {"validation": 0.5, "validation_from": "test"}
    folder = make_run(tmp_path / "run", make_config([5, 6, 7, 8, 9], select="val_accuracy", data=data))
    run = read_run(folder)
    (table,) = spread.tables(run)
    row = table.frame.set_index("measure").loc["test_accuracy"]
    values = read_floats(read_rows(folder / "trials.csv"), "test_accuracy")
    low, high = scipy.stats.t.interval(0.95, 4, statistics.mean(values), statistics.stdev(values) * (1 + 1 / 5) ** 0.5)
    assert (row["new_low"], row["new_high"]) == pytest.approx((low, high))


@pytest.mark.slow
def test_early_stopped_trials_are_finished(tmp_path):
    folder = make_run(tmp_path / "run", STOPPED, stop={"t0000": 5, "t0001": 7}, diverge=("t0003",))
    run = read_run(folder)
    assert sorted(run.trials["status"].unique()) == ["diverged", "early_stopped", "ok"]
    assert (len(run.ok), run.diverged) == (5, 1)
    assert run.configurations["n"].tolist() == [3, 2]
    page = build_report(folder).read_text()
    assert "<b>2</b>stopped early" in page and "<b>1</b>diverged" in page
    assert "The best configuration" not in page and "1 of 6 finished trials diverged" in page


class _Checker(html.parser.HTMLParser):
    """Collects what a page would load, its ids, and tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.loaded, self.ids, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        sources = ("src", "srcset", "data", "xlink:href") + (("href",) if tag != "a" else ())
        self.loaded += [value for name, value in attrs if name in sources]
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing(grid):
    page = (grid / "report" / "index.html").read_text()
    checker = _Checker()
    checker.feed(page)
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids)) > 20
    inside = [source[1:] for source in checker.loaded if source.startswith("#")]
    others = [source for source in checker.loaded if not source.startswith("#")]
    assert inside and set(inside) <= set(checker.ids)
    assert all(source.startswith("data:image/png;base64,") for source in others)  # the pixels of the galleries
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert "prefers-color-scheme: dark" in page and "#0072b2" not in page.split("</style>")[1]


@pytest.mark.slow
def test_names_are_escaped(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1]))
    for name in ("trials.csv", "config.json", "data.json"):
        text = (folder / name).read_text()
        text = text.replace("baseline", "<b>x&y").replace('"plane"', '"<i>$a_{"')
        (folder / name).write_text(text.replace("cifar10", "<script>cifar"))
    page = build_report(folder).read_text()
    assert "&lt;b&gt;x&amp;y" in page and "&lt;i&gt;" in page and "&lt;script&gt;cifar" in page
    assert not re.search("<b>x|<i>|<script>cifar", page)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0, 1, 37])
def test_a_study_that_still_runs(tmp_path, keep):
    folder = make_run(tmp_path / "run", GRID, keep=keep, examples=100)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"member": "t00')  # killed while writing
    assert f"{keep} of 240 trials finished" in build_report(folder).read_text()
    (folder / "trials.csv").unlink()
    assert "0 of 240 trials finished" in build_report(folder).read_text()


def test_everything_diverged(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1]), diverge=("t0000", "t0001"))
    page = build_report(folder).read_text()
    assert "No trial has finished" in page and "2 of 2 finished trials diverged" in page


def test_missing_predictions_cost_only_what_is_said_of_classes(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1]))
    (folder / "predictions" / "t0001.npz").unlink()
    build_report(folder)
    assert "confusion_baseline" not in figure_names(folder, "svg")
    assert "curves_loss" in figure_names(folder, "svg")


@pytest.mark.slow
def test_a_rebuilt_report_has_the_same_bytes(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1]))
    page = build_report(folder)
    first = page.read_bytes()
    assert build_report(folder).read_bytes() == first
    assert not list(page.parent.glob("*.tmp"))


@pytest.mark.parametrize("name", ["absent", "foreign", "broken"])
def test_a_folder_that_is_no_run_is_one_line(tmp_path, name):
    if name != "absent":
        (tmp_path / name).mkdir()
    if name == "broken":
        (tmp_path / name / "config.json").write_text("{")
    with pytest.raises(RequestError):
        build_report(tmp_path / name)
    command = [sys.executable, "-m", "cnnjax.report", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "workdir" in done.stderr


@pytest.mark.slow
def test_the_command_imports_no_jax_and_several_processes_write_what_one_does(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", make_config([0, 1]))
    code = (
        "import sys; from cnnjax.report.__main__ import main, parse; main(parse(sys.argv));"
        "heavy = {'jax', 'flax', 'matplotlib.pyplot', 'torch'} & set(sys.modules);"
        "print(heavy or 'light', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "light", done.stderr
    assert done.stdout.strip().endswith("index.html")
    by_several = {path.name: path.read_bytes() for path in (folder / "report").iterdir()}
    monkeypatch.setattr("sys.platform", "other")  # where nothing is forked
    build_report(folder)
    assert {path.name: path.read_bytes() for path in (folder / "report").iterdir()} == by_several


@pytest.mark.parametrize(
    ("value", "shown"),
    [(76.16, "76.16"), (0.75728, "0.7573"), (0.009167, "0.009167"), (12345.6, "12346"), (0, "0")]
    + [(99.999, "100.0"), (-0.5, "-0.5000"), (1.5e-7, "1.500e-07"), (3e8, "3.000e+08")],
)
def test_four_significant_digits(value, shown):
    assert significant(value) == shown
