"""The report against the files it is built from, recomputed without it."""

import csv
import html.parser
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
from PIL import Image

from cnnjax import metrics
from cnnjax.ladder import LADDER
from cnnjax.plan import make_plan
from cnnjax.report import build_report
from cnnjax.report.curves import draw_mean
from cnnjax.report.figures import make_figures
from cnnjax.report.page import headline, warnings
from cnnjax.report.read import MEASURES, read_run
from cnnjax.report.style import canvas
from cnnjax.report.tables import group_means, make_tables, significant
from cnnjax.study import from_config
from cnnjax.types import RequestError, Trial

CLASSES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SKILL = {"baseline": 0.58, "medium": 0.66, "complex": 0.74}
GRID = {
    "models": ["baseline", "medium", "complex"],
    "seeds": [0, 1, 2, 3, 4],
    "select": "test_accuracy",
    "train": {
        "optimizer": ["adam", "sgd"],
        "learning_rate": [0.001, 0.01],
        "momentum": 0.9,
        "batch_size": [32, 64],
        "epochs": [5, 10],
    },
}


def make_run(folder: Path, config: dict, *, diverge=(), stop=None, keep=None, examples=400) -> Path:
    """Writes a run with made-up results: `diverge` trials by id, only the first `keep` finished.

    `stop` holds the epoch after which a member stops early; where it is given, macro measures are in the history.
    """
    study = from_config(config)
    plan, rng = make_plan(study), np.random.default_rng(0)
    has_validation = study.data.has_validation
    (folder / "predictions").mkdir(parents=True)
    labels = rng.integers(0, len(CLASSES), examples).astype(np.int32)
    np.savez(folder / "predictions" / "labels.npz", labels=labels)
    write = {"config": study.to_dict(), "environment": {"jax": "0.10.2", "devices": ["cpu"]}}
    counts = {"train": 50000, "validation": 0, "test": examples}
    write["data"] = {"name": "cifar10", "classes": CLASSES, "counts": counts}
    programs = [{"id": program.id} for program in plan.programs]
    write["plan"] = {"trials": len(plan.trials), "trained": plan.trained, "programs": programs}
    for name, content in write.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    rows, lines = [], []
    for member in (member for program in plan.programs for member in program.members):
        skill = _skill(member.trials[-1], rng)
        last = (stop or {}).get(member.id, member.epochs)
        for epoch in range(1, last + 1):
            lines.append({"member": member.id, "epoch": epoch} | _epoch(skill, epoch, has_validation))
            if stop is not None:
                lines[-1] |= {f"val_{name}": lines[-1]["val_accuracy"] - 0.01 for name in ("precision", "recall", "f1")}
        for trial in member.trials:
            epochs = min(last, trial.epochs)
            row = trial.row() | {"member": member.id, "status": "ok", "epochs_run": epochs}
            row |= {"best_epoch": max(1, epochs - 2), "seconds": 10.0 + epochs, "images_per_second": 1e4}
            if epochs < trial.epochs:
                row["status"] = "early_stopped"
            if trial.id in diverge:
                rows.append(row | {"status": "diverged", "best_epoch": ""})
                continue
            logits = _logits(skill * (1 - 0.25 / trial.epochs), labels, rng)
            np.savez(folder / "predictions" / f"{trial.id}.npz", logits=logits)
            test = metrics.classification(logits, labels)
            row |= {"test_loss": test.pop("loss"), "test_accuracy": test.pop("accuracy")} | test
            rows.append(row | _epoch(skill, epochs, has_validation))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows.sort(key=lambda row: row["trial"])
    columns = dict.fromkeys([*rows[0], *MEASURES])
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows[:keep])
    return folder


def _skill(trial: Trial, rng: np.random.Generator) -> float:
    too_fast = 0.2 if trial.static.optimizer == "adam" and trial.stages[0].traced.learning_rate > 0.005 else 0
    smaller = 0.01 * (trial.static.batch_size > 32)
    return SKILL.get(trial.static.model, 0.6) - too_fast - smaller + rng.normal(0, 0.012)


def _epoch(skill: float, epoch: int, has_validation: bool) -> dict[str, float]:
    accuracy = skill * (1 - 0.35 * 0.7**epoch)
    row = {"train_loss": 2.3 * (1 - accuracy), "train_accuracy": accuracy}
    if has_validation:
        row |= {"val_loss": 2.4 * (1 - accuracy) + 0.01 * epoch, "val_accuracy": 0.96 * accuracy}
    return row


def _logits(skill: float, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    logits = rng.normal(0, 1, (len(labels), len(CLASSES)))
    logits[np.arange(len(labels)), labels] += 4.2 * skill
    logits[np.arange(len(labels)), (labels + 2) % 10] += 0.8
    return (logits - logits.max(axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "grid", GRID, diverge=("t0021", "t0022"))
    build_report(folder)
    return folder


def _study(seeds, **more) -> dict:
    train = {"optimizer": "sgd", "learning_rate": 0.03, "epochs": 4} | more.pop("train", {})
    return {"models": ["baseline"], "seeds": seeds, "train": train} | more


def _rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _of_setting(rows: list[dict], setting: dict) -> list[dict]:
    axes = ("model", "optimizer", "learning_rate", "batch_size", "epochs")
    return [row for row in rows if row["status"] == "ok" and all(row[a] == setting[a] for a in axes)]


def _floats(rows: list[dict], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def test_settings_are_recomputable_from_trials(grid):
    trials, settings = _rows(grid / "trials.csv"), _rows(grid / "report" / "settings.csv")
    assert len(settings) == 48
    for setting in settings:
        mine = _of_setting(trials, setting)
        assert int(setting["n"]) == len(mine) == 5 - int(setting["diverged"])
        for column in ("test_accuracy", "test_loss", "f1", "precision", "recall", "train_loss"):
            expected = statistics.mean(_floats(mine, column))
            assert float(setting[column]) == pytest.approx(expected)
        for column in ("test_accuracy", "f1"):
            values = _floats(mine, column)
            half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
            assert float(setting[f"{column}_std"]) == pytest.approx(statistics.stdev(values))
            assert float(setting[f"{column}_half"]) == pytest.approx(half)
    means = _floats(settings, "test_accuracy")
    assert means == sorted(means, reverse=True)


def test_model_and_optimizer_table_keeps_the_two_spreads_apart(grid):
    trials, settings = _rows(grid / "trials.csv"), _rows(grid / "report" / "settings.csv")
    table = _rows(grid / "report" / "by_model_and_optimizer.csv")
    assert len(table) == 6
    assert _floats(table, "f1") == sorted(_floats(table, "f1"), reverse=True)
    for row in table:
        mine = [s for s in settings if (s["model"], s["optimizer"]) == (row["model"], row["optimizer"])]
        means, freedoms = _floats(mine, "f1"), [int(s["n"]) - 1 for s in mine]
        within = sum(float(s["f1_std"]) ** 2 * df for s, df in zip(mine, freedoms, strict=True))
        assert (row["settings"], row["seeds"]) == ("8", "5")
        assert int(row["trials"]) == sum(len(_of_setting(trials, s)) for s in mine)
        assert float(row["f1"]) == pytest.approx(statistics.mean(means))
        assert float(row["f1_setting_std"]) == pytest.approx(statistics.stdev(means))
        assert float(row["f1_seed_std"]) == pytest.approx((within / sum(freedoms)) ** 0.5)


def test_best_trials_and_top_settings(grid):
    trials = [row for row in _rows(grid / "trials.csv") if row["status"] == "ok"]
    by_accuracy, by_f1 = _rows(grid / "report" / "best_trials.csv")
    assert float(by_accuracy["test_accuracy"]) == max(_floats(trials, "test_accuracy"))
    assert float(by_f1["f1"]) == max(_floats(trials, "f1"))
    top = _floats(_rows(grid / "report" / "top_5_by_f1.csv"), "f1")
    every = _floats(_rows(grid / "report" / "settings.csv"), "f1")
    assert top == sorted(every, reverse=True)[:5]


def test_headline_names_the_best_mean_and_its_interval(grid):
    run = read_run(grid)
    settings, trials = _rows(grid / "report" / "settings.csv"), _rows(grid / "trials.csv")
    best = max(settings, key=lambda row: float(row["test_accuracy"]))
    values = [100 * value for value in _floats(_of_setting(trials, best), "test_accuracy")]
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    said = headline(run)
    assert f"{best['model']}, {best['optimizer']}, learning rate {best['learning_rate']}" in said
    assert f"{statistics.mean(values):.2f} % ({interval.low:.2f} to {interval.high:.2f})" in said
    assert "Best of 48 settings" in said and "5 seeds" in said
    assert any("test split chose it" in line for line in warnings(run))
    assert any(line.startswith("2 of 240 finished trials diverged") for line in warnings(run))


def test_intervals_end_where_the_scale_does(tmp_path):
    run = read_run(make_run(tmp_path / "run", _study([0, 1, 2], select="test_accuracy")))
    frame = run.trials.assign(test_accuracy=[0.999, 0.97, 1.0], test_loss=[0.001, 0.05, 0.002])
    frame.to_csv(run.workdir / "trials.csv", index=False)
    run = read_run(run.workdir)
    assert re.search(r"98\.97 % \(94\.\d\d to 100\.0\)", headline(run))
    (table,) = [t.frame.set_index("measure") for t in make_tables(run) if t.name == "over_seeds"]
    assert (table.loc["test_accuracy", ["high", "new_high"]] == 1).all()
    assert (table.loc["test_loss", ["low", "new_low"]] == 0).all()


def test_a_setting_that_lost_seeds_is_not_named_best(tmp_path):
    config = _study([0, 1, 2], select="test_accuracy", train={"learning_rate": [0.01, 0.03]})
    run = read_run(make_run(tmp_path / "run", config, diverge=("t0000", "t0001")))
    frame = run.trials.copy()
    frame.loc[frame["trial"] == "t0002", "test_accuracy"] = 0.999  # the lucky seed that is left
    frame.to_csv(run.workdir / "trials.csv", index=False)
    assert "learning rate 0.03" in headline(read_run(run.workdir))


def test_losses_are_selected_downwards(tmp_path):
    config = _study([0, 1], select="train_loss", train={"learning_rate": [0.01, 0.03]})
    run = read_run(make_run(tmp_path / "run", config))
    best = run.best(run.settings, run.select)
    assert run.settings.loc[best, "train_loss"] == run.settings["train_loss"].min()
    assert any("does not measure generalisation" in line for line in warnings(run))


def test_confusion_is_the_sum_over_seeds(grid):
    run = read_run(grid)
    labels = np.load(grid / "predictions" / "labels.npz")["labels"]
    trials = run.ok.loc[run.ok["setting"] == 7, "trial"]
    expected = np.zeros((10, 10), int)
    for trial in trials:
        predicted = np.load(grid / "predictions" / f"{trial}.npz")["logits"].argmax(axis=1)
        expected += sklearn.metrics.confusion_matrix(labels, predicted, labels=range(10))
    np.testing.assert_array_equal(run.confusion(7), expected)


def test_epochs_figure_averages_settings_within_seeds(grid):
    trials = [row for row in _rows(grid / "trials.csv") if row["status"] == "ok"]
    means = group_means(read_run(grid), ["model", "epochs"], "test_accuracy")
    mine = [t for t in trials if (t["model"], t["epochs"]) == ("complex", "10")]
    assert means.loc[("complex", 10), "mean"] == pytest.approx(statistics.mean(_floats(mine, "test_accuracy")))


def _names(folder: Path, kind: str) -> set[str]:
    return {path.stem for path in (folder / "report").glob(f"*.{kind}")}


def test_figures_fit_the_axes_of_the_study(grid, tmp_path):
    bars = {f"bars_{measure}" for measure in ("test_accuracy", "precision", "recall", "f1")}
    curves = {"curves_loss", "curves_accuracy"}
    models = {f"confusion_{model}" for model in SKILL}
    assert _names(grid, "svg") == _names(grid, "png")
    history = {"history", "models_train_loss"}
    assert _names(grid, "svg") == bars | curves | models | history | {
        "f1_by_learning_rate",
        "accuracy_by_epochs",
    }
    one = make_run(tmp_path / "one", _study([0]))
    seeds = make_run(tmp_path / "seeds", _study([5, 6, 7]))
    build_report(one), build_report(seeds)
    assert _names(one, "svg") == curves | {"confusion_baseline"}
    assert _names(seeds, "svg") == curves | {"confusion_baseline", "by_seed"}
    assert "nothing can be said" in headline(read_run(one))


def test_seeds_table_holds_the_prediction_interval(tmp_path):
    data = {"validation": 0.5, "validation_from": "test"}
    folder = make_run(tmp_path / "run", _study([5, 6, 7, 8, 9], select="val_accuracy", data=data))
    (row,) = [t for t in make_tables(read_run(folder)) if t.name == "over_seeds"]
    row = row.frame.set_index("measure").loc["test_accuracy"]
    values = _floats(_rows(folder / "trials.csv"), "test_accuracy")
    low, high = scipy.stats.t.interval(0.95, 4, statistics.mean(values), statistics.stdev(values) * (1 + 1 / 5) ** 0.5)
    assert (row["new_low"], row["new_high"]) == pytest.approx((low, high))
    assert any("part of the data's test set" in line for line in warnings(read_run(folder)))


def test_a_test_split_that_validates_is_said(tmp_path):
    data = {"validation_from": "same_as_test"}
    folder = make_run(tmp_path / "run", _study([0, 1], select="val_loss", data=data))
    assert any("is the test split" in line for line in warnings(read_run(folder)))


@pytest.mark.parametrize(("stored", "validation"), [("flip_zoom", 4), ("flip_zoom", 0), ("none", 4)])
def test_validation_images_in_several_versions_are_said(stored, validation, tmp_path):
    folder = make_run(tmp_path / "run", _study([0], data={"stored_augment": stored}))
    data = json.loads((folder / "data.json").read_text()) | {"counts": {"validation": validation}}
    (folder / "data.json").write_text(json.dumps(data))
    said = any("several versions" in line for line in warnings(read_run(folder)))
    assert said == (stored == "flip_zoom" and validation > 0)


@pytest.mark.parametrize(("test_from", "warned"), [("pooled", True), ("source", False), ("train", False)])
def test_a_pooled_test_set_is_said(test_from, warned, tmp_path):
    folder = make_run(tmp_path / "run", _study([0], data={"fractions": (0.6, 0.2, 0.2)}))
    data = json.loads((folder / "data.json").read_text()) | {"test_from": test_from}
    (folder / "data.json").write_text(json.dumps(data))
    assert any("not comparable with published" in line for line in warnings(read_run(folder))) == warned


STOPPED = {
    "models": ["baseline"],
    "seeds": [0, 1, 2],
    "select": "val_accuracy",
    "data": {"validation": 0.1},
    "train": {"optimizer": "sgd", "learning_rate": [0.01, 0.03], "epochs": 9},
}


def _by_epoch(folder: Path, member: str, column: str) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[column] for line in lines if line["member"] == member]


def test_early_stopped_trials_are_finished(tmp_path):
    folder = make_run(tmp_path / "run", STOPPED, stop={"t0000": 5, "t0001": 7}, diverge=("t0003",))
    run = read_run(folder)
    assert sorted(run.trials["status"].unique()) == ["diverged", "early_stopped", "ok"]
    assert (len(run.ok), run.diverged) == (5, 1)
    assert run.settings["n"].tolist() == [3, 2]
    page = build_report(folder).read_text()
    assert "<b>2</b>stopped early" in page and "<b>1</b>diverged" in page
    assert "The best setting" not in page and "1 of 6 finished trials diverged" in page


def test_a_mean_over_seeds_ends_with_the_first_that_stops(tmp_path):
    folder = make_run(tmp_path / "run", STOPPED, stop={"t0000": 5, "t0001": 7})
    run = read_run(folder)
    [[axes]] = canvas(4, 4)[1]
    draw_mean(axes, run.history_of([run.trials["setting"][0]]), "val_accuracy", color="red")
    curves = [_by_epoch(folder, member, "val_accuracy") for member in ("t0000", "t0001", "t0002")]
    assert [len(curve) for curve in curves] == [5, 7, 9]
    mean, *others = axes.lines
    np.testing.assert_array_equal(mean.get_xdata(), range(1, 6))
    np.testing.assert_allclose(mean.get_ydata(), 100 * np.mean([curve[:5] for curve in curves], axis=0))
    for line, curve in zip(others, curves[1:], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), range(5, len(curve) + 1))
        np.testing.assert_allclose(line.get_ydata(), 100 * np.array(curve[4:]))
    assert "first seed that stops early" in next(p.caption for p in make_figures(run) if p.name == "curves_loss")


def test_a_band_ends_where_the_measure_does():
    frame = pd.DataFrame({"member": ["a", "a", "b", "b"], "epoch": [1, 2, 1, 2], "val_accuracy": [0.9, 1, 1, 1]})
    [[axes]] = canvas(4, 4)[1]
    draw_mean(axes, frame, "val_accuracy", color="red")
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == 100
    assert heights.min() == pytest.approx(95 - 100 * statistics.stdev([0.9, 1]))


def test_the_history_reads_macro_measures_where_they_are(tmp_path):
    with_them = make_run(tmp_path / "with", STOPPED, stop={"t0000": 5})
    run = read_run(with_them)
    ours = run.history.loc[run.history["member"] == "t0000", "val_f1"]
    assert ours.tolist() == pytest.approx(_by_epoch(with_them, "t0000", "val_f1"))
    build_report(with_them)
    svg = (with_them / "report" / "history.svg").read_text()
    titles = ("Training loss", "Training accuracy, %", "Validation loss", "Validation accuracy, %")
    macro = [f"Validation macro {name}" for name in ("precision", "recall", "F1")]
    assert all(f">{title}<" in svg for title in (*titles, *macro))
    without = make_run(tmp_path / "without", STOPPED | {"models": ["baseline", "medium"]})
    assert read_run(without).history["val_f1"].isna().all()
    build_report(without)
    svg = (without / "report" / "history.svg").read_text()
    assert all(f">{title}<" in svg for title in titles) and "macro" not in svg


def test_the_history_of_a_setting_that_is_read_off_a_longer_one(grid):
    run = read_run(grid)
    short = run.settings.index[run.settings["epochs"] == 5][0]
    members = set(run.ok.loc[run.ok["setting"] == short, "member"])
    history = run.history_of([short])
    assert set(history["member"]) == members and history["epoch"].max() == 5
    assert len(history) == 5 * run.settings.loc[short, "n"]


def test_many_models_stand_in_rows(tmp_path):
    study = STOPPED | {"models": list(LADDER)[:14], "seeds": [0]}
    folder = make_run(tmp_path / "run", study, stop={"t0000": 5}, examples=100)
    build_report(folder)
    assert {"models_val_loss", "models_train_accuracy", "history"} <= _names(folder, "svg")
    for figure in (folder / "report").glob("*.png"):
        with Image.open(figure) as image:
            assert image.width <= 13 * 150, figure.name


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
    assert checker.loaded and all(source.startswith("#") for source in checker.loaded)
    assert {source[1:] for source in checker.loaded} <= set(checker.ids)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert "prefers-color-scheme: dark" in page and "#0072b2" not in page.split("</style>")[1]


def test_names_are_escaped(tmp_path):
    folder = make_run(tmp_path / "run", _study([0, 1]))
    for name in ("trials.csv", "config.json", "data.json"):
        text = (folder / name).read_text()
        text = text.replace("baseline", "<b>x&y").replace('"plane"', '"<i>$a_{"')
        (folder / name).write_text(text.replace("cifar10", "<script>cifar"))
    page = build_report(folder).read_text()
    assert "&lt;b&gt;x&amp;y" in page and "&lt;i&gt;" in page and "&lt;script&gt;cifar" in page
    assert not re.search("<b>x|<i>|<script>cifar", page)


@pytest.mark.parametrize("keep", [0, 1, 37])
def test_a_study_that_still_runs(tmp_path, keep):
    folder = make_run(tmp_path / "run", GRID, keep=keep, examples=100)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"member": "t00')  # killed while writing
    assert f"{keep} of 240 trials finished" in build_report(folder).read_text()
    (folder / "trials.csv").unlink()
    assert "0 of 240 trials finished" in build_report(folder).read_text()


def test_everything_diverged(tmp_path):
    folder = make_run(tmp_path / "run", _study([0, 1]), diverge=("t0000", "t0001"))
    page = build_report(folder).read_text()
    assert "No trial has finished" in page and "2 of 2 finished trials diverged" in page


def test_missing_predictions_cost_only_the_confusion(tmp_path):
    folder = make_run(tmp_path / "run", _study([0, 1]))
    (folder / "predictions" / "t0001.npz").unlink()
    build_report(folder)
    assert "confusion_baseline" not in _names(folder, "svg")
    assert "curves_loss" in _names(folder, "svg")


def test_a_rebuilt_report_has_the_same_bytes(tmp_path):
    folder = make_run(tmp_path / "run", _study([0, 1]))
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


def test_the_command_imports_neither_jax_nor_pyplot(tmp_path):
    folder = make_run(tmp_path / "run", _study([0, 1]))
    code = (
        "import sys; from cnnjax.report.__main__ import main; code = main(sys.argv[1:]);"
        "heavy = {'jax', 'flax', 'matplotlib.pyplot', 'sklearn', 'scipy.stats'} & set(sys.modules);"
        "print(heavy or 'light', file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "light", done.stderr
    assert done.stdout.strip().endswith("index.html")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(76.16, "76.16"), (0.75728, "0.7573"), (0.009167, "0.009167"), (12345.6, "12346"), (0, "0")]
    + [(99.999, "100.0"), (-0.5, "-0.5000"), (1.5e-7, "1.500e-07"), (3e8, "3.000e+08")],
)
def test_four_significant_digits(value, shown):
    assert significant(value) == shown
