"""Curves against the epochs that they are drawn from."""

import itertools
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from cnnjax.analysis.read import read_run
from cnnjax.models.ladder import LADDER
from cnnjax.report import build_report
from cnnjax.report.sections import curves, models, spread
from cnnjax.report.sections.curves import draw_mean
from cnnjax.report.theme import canvas, context, legend, line_handle
from tests.support.made_up_run import GRID, STOPPED, figure_names, make_run, read_floats, read_rows


def _by_epoch(folder: Path, member: str, column: str) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[column] for line in lines if line["member"] == member]


@pytest.mark.slow
def test_a_mean_over_seeds_ends_with_the_first_that_stops(tmp_path):
    folder = make_run(tmp_path / "run", STOPPED, stop={"t0000": 5, "t0001": 7})
    run = read_run(folder)
    [[axes]] = canvas(4, 4)[1]
    draw_mean(axes, run.history_of([run.trials["configuration"][0]]), "val_accuracy", color="red")
    measured = [_by_epoch(folder, member, "val_accuracy") for member in ("t0000", "t0001", "t0002")]
    assert [len(curve) for curve in measured] == [5, 7, 9]
    mean, *others = axes.lines
    np.testing.assert_array_equal(mean.get_xdata(), range(1, 6))
    np.testing.assert_allclose(mean.get_ydata(), 100 * np.mean([curve[:5] for curve in measured], axis=0))
    for line, curve in zip(others, measured[1:], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), range(5, len(curve) + 1))
        np.testing.assert_allclose(line.get_ydata(), 100 * np.array(curve[4:]))
    assert "where the first seed stops early" in next(p.caption for p in curves.figures(run) if p.name == "curves_loss")


def test_a_band_ends_where_the_measure_does():
    frame = pd.DataFrame({"member": ["a", "a", "b", "b"], "epoch": [1, 2, 1, 2], "val_accuracy": [0.9, 1, 1, 1]})
    [[axes]] = canvas(4, 4)[1]
    draw_mean(axes, frame, "val_accuracy", color="red")
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == 100
    assert heights.min() == pytest.approx(95 - 100 * statistics.stdev([0.9, 1]))


def test_configurations_that_differ_in_an_axis_of_words_are_told_apart(tmp_path):
    config = STOPPED | {"train": {"schedule": ["constant", "warmup:1"], "early_stopping": ["off", "val_loss:3"]}}
    (loss,) = (p for p in curves.figures(read_run(make_run(tmp_path / "run", config))) if p.name == "curves_loss")
    for schedule, stopping in itertools.product(*config["train"].values()):
        assert f">schedule {schedule}, early stopping {stopping}<" in loss.svg


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["adam", "sgd", "base", "he"], 1),
        (["validation", "learning rate 0.01", "learning rate 0.03", "training"], 2),
        ([f"learning rate {rate}, weight decay 0.1, schedule warmup:1" for rate in (0.1, 0.01, 0.001)], 3),
    ],
)
def test_a_legend_is_no_wider_than_its_figure(names, rows):
    with context():
        figure, [[axes]] = canvas(4.6, 3.6)
        legend(figure, [line_handle(name) for name in names])
        FigureCanvasAgg(figure).draw()
    (shown,) = figure.legends
    assert shown.get_window_extent().x0 >= 0 and shown.get_window_extent().x1 <= figure.bbox.width
    assert len({round(text.get_window_extent().y0) for text in shown.get_texts()}) == rows
    assert axes.bbox.height == pytest.approx(3 * figure.dpi, rel=0.03)


@pytest.mark.slow
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


def test_the_history_of_a_configuration_that_is_read_off_a_longer_one(tmp_path):
    run = read_run(make_run(tmp_path / "run", GRID, examples=20))
    short = run.configurations.index[run.configurations["epochs"] == 5][0]
    members = set(run.ok.loc[run.ok["configuration"] == short, "member"])
    history = run.history_of([short])
    assert set(history["member"]) == members and history["epoch"].max() == 5
    assert len(history) == 5 * run.configurations.loc[short, "n"]


@pytest.mark.slow
def test_many_models_stand_in_rows(tmp_path):
    study = STOPPED | {"models": list(LADDER)[:14], "seeds": [0]}
    folder = make_run(tmp_path / "run", study, stop={"t0000": 5}, examples=100)
    build_report(folder)
    assert {"models_best_accuracy", "models_val_loss", "models_train_accuracy", "history"} <= figure_names(
        folder, "svg"
    )
    for figure in (folder / "report").glob("*.png"):
        with Image.open(figure) as image:
            assert image.width <= 13 * 150, figure.name


def _bars(folder: Path) -> tuple[list[str], str]:
    """The numbers beside the bars of the models' best configurations, and the caption."""
    (plot,) = models.figures(read_run(folder))
    return re.findall(r">(\d+\.\d)</text>", plot.svg), plot.caption


def test_bars_of_the_best_configurations_hold_test_and_highest_validation_accuracy(tmp_path):
    study = STOPPED | {"models": ["baseline", "medium", "complex"], "train": STOPPED["train"] | {"learning_rate": 0.03}}
    folder = make_run(tmp_path / "run", study, stop={"t0000": 5})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["val_accuracy"] += 0.1 * (line["epoch"] == 4)  # the highest is not the last
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    trials = read_rows(folder / "trials.csv")
    test, validation = [], []
    for model in study["models"]:
        mine = [row for row in trials if row["model"] == model]
        test.append(statistics.mean(read_floats(mine, "test_accuracy")))
        highest = [max(_by_epoch(folder, row["member"], "val_accuracy")) for row in mine]
        validation.append(statistics.mean(highest))
    shown, caption = _bars(folder)
    assert shown == [f"{100 * value:.1f}" for value in [*test, *validation]]
    start = re.search(r"it starts at (\d+) %", caption)
    assert start and 0 < int(start[1]) < 100 * min(validation)


def test_an_axis_that_starts_at_zero_is_not_called_cut(tmp_path):
    study = STOPPED | {"models": ["baseline", "medium", "complex"], "train": STOPPED["train"] | {"learning_rate": 0.03}}
    folder = make_run(tmp_path / "run", study, stop={})
    trials = pd.read_csv(folder / "trials.csv")
    trials.assign(test_accuracy=[0.1] * 3 + [0.2] * 3 + [0.9] * 3).to_csv(folder / "trials.csv", index=False)
    shown, caption = _bars(folder)
    assert shown[:3] == ["10.0", "20.0", "90.0"] and "starts at" not in caption


@pytest.mark.parametrize(
    ("losses", "accuracies", "said"),
    [
        ([0.01, 2], [0.01, 0.9], ""),
        ([0.01, 2], [0.8, 0.9], " Not all axes start at zero."),
        ([1.9, 2], [0.8, 0.9], " The axes do not start at zero."),
    ],
)
def test_axes_are_called_cut_where_zero_is_not_on_them(tmp_path, losses, accuracies, said):
    folder = make_run(tmp_path / "run", STOPPED, stop={})
    trials = pd.read_csv(folder / "trials.csv")
    measured = {"test_loss": np.resize(losses, len(trials)), "test_accuracy": np.resize(accuracies, len(trials))}
    trials.assign(**measured).to_csv(folder / "trials.csv", index=False)
    (by_seed,) = spread.figures(read_run(folder))
    assert by_seed.caption.partition("interval of the mean.")[2] == said
