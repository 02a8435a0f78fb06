"""What the report says of each class, against the predictions of a run."""

import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from cnnjax.analysis.read import read_run
from cnnjax.analysis.run import Run
from cnnjax.models.ladder import LADDER
from cnnjax.report import build_report
from cnnjax.report.sections import classes
from tests.support.made_up_run import CLASSES, GRID, SKILL, figure_names, make_config, make_run, read_answer, read_rows


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    study = GRID | {"select": "val_accuracy", "data": {"validation": 0.1}, "seeds": [0, 1, 2]}
    folder = make_run(tmp_path_factory.mktemp("runs") / "grid", study)
    build_report(folder)
    return folder


def _predictions(run: Run, configuration: int) -> tuple[list[np.ndarray], np.ndarray]:
    folder = run.workdir / "predictions"
    trials = run.ok.loc[run.ok["configuration"] == configuration, "trial"]
    return [np.load(folder / f"{t}.npz")["logits"] for t in trials], np.load(folder / "labels.npz")["labels"]


def _reports(run: Run, configuration: int) -> list[dict]:
    logits, labels = _predictions(run, configuration)
    given = {"labels": range(10), "target_names": CLASSES, "output_dict": True, "zero_division": 0}
    return [sklearn.metrics.classification_report(labels, each.argmax(axis=1), **given) for each in logits]


@pytest.mark.slow
def test_table_is_the_mean_of_the_seeds_classification_reports(grid):
    run = read_run(grid)
    reports = _reports(run, run.best_of_models["complex"])
    rows = read_rows(grid / "report" / "classes_complex.csv")
    assert len(reports) == 3 and len(rows) == 12
    for row, name in zip(rows, [*CLASSES, "macro avg", "weighted avg"], strict=True):
        assert row["class"] == name.replace("avg", "mean")
        assert int(row["support"]) == reports[0][name]["support"]
        for column, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            values = [report[name][theirs] for report in reports]
            assert float(row[column]) == pytest.approx(statistics.mean(values))
            assert float(row[f"{column}_std"]) == pytest.approx(statistics.stdev(values))


@pytest.mark.slow
def test_the_confusion_matrix_is_sklearns_summed_over_seeds(grid):
    run = read_run(grid)
    logits, labels = _predictions(run, run.best_of_models["complex"])
    expected = sum(sklearn.metrics.confusion_matrix(labels, each.argmax(axis=1), labels=range(10)) for each in logits)
    rows = read_rows(grid / "report" / "confusion_complex.csv")
    assert [row["true class"] for row in rows] == CLASSES
    assert [[int(row[f"predicted {name}"]) for name in CLASSES] for row in rows] == expected.tolist()


@pytest.mark.slow
def test_areas_are_the_means_of_sklearns(grid):
    run = read_run(grid)
    logits, labels = _predictions(run, run.best_of_models["medium"])
    odds = [scipy.special.softmax(each.astype(np.float64), axis=1) for each in logits]
    rows = read_rows(grid / "report" / "classes_medium.csv")
    for label, row in enumerate(rows[:10]):
        areas = [sklearn.metrics.roc_auc_score(labels == label, each[:, label]) for each in odds]
        assert float(row["auc"]) == pytest.approx(statistics.mean(areas))
        assert float(row["auc_std"]) == pytest.approx(statistics.stdev(areas))
        svg = (grid / "report" / "roc_medium.svg").read_text()
        assert f"{row['class']}: {statistics.mean(areas):.3f} ± {statistics.stdev(areas):.3f}" in svg
    macro = [sklearn.metrics.roc_auc_score(labels, each, multi_class="ovr") for each in odds]
    assert float(rows[10]["auc"]) == pytest.approx(statistics.mean(macro))
    assert rows[11]["auc"] == ""


def test_confusion_is_the_sum_over_seeds(grid):
    run = read_run(grid)
    logits, labels = _predictions(run, run.best_of_models["baseline"])
    expected = sum(sklearn.metrics.confusion_matrix(labels, each.argmax(axis=1), labels=range(10)) for each in logits)
    svg = (grid / "report" / "confusion_baseline.svg").read_text()
    shown = re.findall(r"<text[^>]*>(\d+)</text>", svg)  # by cell: percent, count
    assert [int(count) for count in shown[1::2]] == expected[expected > 0].tolist()
    share = 100 * expected / expected.sum(axis=1, keepdims=True)
    assert shown[::2] == [f"{value:.0f}" for value in share[expected > 0]]


def test_the_first_section_is_the_headlines_and_stands_open(grid):
    run = read_run(grid)
    first, *others = dict.fromkeys(table.group for table in classes.tables(run))
    assert f": {first}." in read_answer(grid)
    assert {configuration.partition(",")[0] for configuration in [first, *others]} == set(SKILL)
    page = (grid / "report" / "index.html").read_text()
    assert re.findall(r"<details( open)?><summary>([^<]*)", page) == [
        (" open" if configuration is first else "", configuration) for configuration in [first, *others]
    ]
    assert page.count("<tfoot>") == 4  # and that of the effects


@pytest.mark.slow
def test_a_class_that_is_absent_and_one_seed(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0]))
    labels = np.load(folder / "predictions" / "labels.npz")["labels"]
    labels[labels == 3] = 4
    np.savez(folder / "predictions" / "labels.npz", labels=labels)
    build_report(folder)
    rows = read_rows(folder / "report" / "classes_baseline.csv")
    assert (rows[3]["support"], rows[3]["auc"], rows[3]["recall"]) == ("0", "", "0.0")
    assert float(rows[10]["auc"]) == pytest.approx(statistics.mean(float(r["auc"]) for r in rows[:10] if r["auc"]))
    assert "auc_std" not in rows[0]
    assert "cat:" not in (folder / "report" / "roc_baseline.svg").read_text()
    np.savez(folder / "predictions" / "labels.npz", labels=np.zeros_like(labels))  # no class has a curve
    build_report(folder)
    assert all(row["auc"] == "" for row in read_rows(folder / "report" / "classes_baseline.csv"))


@pytest.mark.slow
def test_a_hundred_classes_are_not_named(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1]))
    rng = np.random.default_rng(0)
    data = (folder / "data.json").read_text()
    names = [f"name{k}" for k in range(100)]
    (folder / "data.json").write_text(re.sub(r'"classes": \[.*?\]', f'"classes": {names}'.replace("'", '"'), data))
    np.savez(folder / "predictions" / "labels.npz", labels=rng.integers(0, 100, 1000))
    for trial in ("t0000", "t0001"):
        np.savez(folder / "predictions" / f"{trial}.npz", logits=rng.normal(0, 1, (1000, 100)).astype(np.float16))
    build_report(folder)
    for figure in ("roc_baseline", "class_accuracy_baseline", "confusion_baseline"):
        assert "name7" not in (folder / "report" / f"{figure}.svg").read_text()


@pytest.mark.slow
def test_only_the_best_six_models_have_more_than_a_confusion_matrix(tmp_path):
    models = list(LADDER)[:8]
    study = make_config([0], models=models, select="test_accuracy", train={"epochs": 1})
    folder = make_run(tmp_path / "run", study, examples=200)
    build_report(folder)
    trials = sorted(read_rows(folder / "trials.csv"), key=lambda row: float(row["test_accuracy"]), reverse=True)
    figures = figure_names(folder, "svg")
    assert {f"confusion_{model}" for model in models} <= figures
    assert {f"roc_{row['model']}" for row in trials[:6]} == {name for name in figures if name.startswith("roc")}
