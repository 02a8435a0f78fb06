"""What the report says where the evidence is thin: no spread, ties, lost seeds, a test set of one image."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from cnnjax.analysis.evidence import scale_of
from cnnjax.analysis.read import read_run
from cnnjax.report import build_report, summarize_run
from cnnjax.report.sections import protocol, ranking, spread
from cnnjax.report.sections.hyperparameters import explain
from cnnjax.report.sections.variance import split_variance
from tests.support.made_up_run import make_config, make_run, read_answer

RATES = [0.01, 0.02, 0.03]
LUCK = np.array([0.010, -0.012, 0.004, 0.009, -0.011])


def _run(
    folder: Path, *configurations, seeds: int = 5, measure: str = "val_accuracy", examples: int = 40, **options
) -> Path:
    """A run whose configurations have these values of the measure that selects; nan where there is none."""
    train = {"learning_rate": RATES[: len(configurations)]}
    config = make_config(list(range(seeds)), select=measure, data={"validation": 0.1}, train=train)
    make_run(folder, config, examples=examples, **options)
    frame = pd.read_csv(folder / "trials.csv")
    values = np.ravel(configurations)
    frame[measure] = np.where(frame["status"] == "diverged", np.nan, values)
    frame.to_csv(folder / "trials.csv", index=False)
    return folder


def _tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    run = read_run(folder)
    places, others, *_ = ranking.tables(run)
    return places.frame, others.frame


def test_a_gap_of_as_many_images_on_each_seed_decides_nothing(tmp_path):
    values = (np.array([[80, 90, 85], [85, 95, 90]]) / 100).astype(np.float32)
    folder = _run(tmp_path / "run", *values, seeds=3)
    said = read_answer(folder)
    assert "Undecided: it leads the runner-up, learning rate 0.01, by +5.00 points of validation accuracy (95 %" in said
    assert "10,000" not in said and "certainty" not in said
    ranking, against = _tables(folder)
    assert (ranking["certainty"] < 0.95).all() and ranking["last_place"].tolist() == [2, 2]
    assert against.loc[0, "the winner is"] == "undecided" and against.loc[0, "p"] > 0.05


@pytest.mark.slow
def test_equal_values_have_no_interval_on_the_page(tmp_path):
    folder = _run(tmp_path / "run", [0.8] * 3, [0.7] * 3, seeds=3)
    frame = pd.read_csv(folder / "trials.csv").assign(test_accuracy=0.1)  # whose mean is not 0.1
    frame.to_csv(folder / "trials.csv", index=False)
    said = read_answer(folder)
    assert "Validation accuracy 80.00 % on every seed; test accuracy 10.00 % on every seed. Means over 3 seeds." in said
    assert "t intervals" not in said and "reaches 10.00 % test accuracy, the winner's own mean" in said
    (table,) = spread.tables(read_run(folder))
    assert (table.frame["std"] == 0).all() and table.frame[["low", "high", "new_low"]].isna().all(axis=None)
    page = build_report(folder).read_text()
    assert "nan" not in re.sub("<script.*?</script>|base64,[^\"']*", "", page, flags=re.DOTALL)
    figure = (folder / "report" / "ranking.svg").read_text()
    assert "may be the best" in figure and "may be the best (" not in figure


def test_level_configurations_lead_nothing(tmp_path):
    said = read_answer(_run(tmp_path / "run", [0.8, 0.9, 0.85], [0.9, 0.8, 0.85], seeds=3))
    assert (
        "Undecided: it is level with the runner-up, learning rate 0.02, in validation accuracy (95 % interval -" in said
    )
    assert "no number of seeds" in said and "+0.00" not in said


def test_differences_end_where_accuracies_do(tmp_path):
    folder = _run(tmp_path / "run", [0.1, 0.9], [0.95, 0.3], seeds=2)
    assert "interval -100.00 to +100.00 points; 2 seeds" in read_answer(folder)
    assert _tables(folder)[1].loc[0, ["difference_low", "difference_high"]].tolist() == [-1, 1]


def test_configurations_that_lost_different_seeds_are_compared_as_they_are_ranked(tmp_path):
    """Pairs of the seeds that both have would be another difference than that of the means that are shown."""
    a, b = np.array([0.5, 0.81, 0.82, 0.84, 0.95]), np.array([0.5, 0.8, 0.81, 0.83, 0.6])
    folder = _run(tmp_path / "run", a, b, diverge=("t0000", "t0009"))
    ranking, against = _tables(folder)
    row, scale = against.loc[0], scale_of(read_run(folder), "val_accuracy")
    welch = scipy.stats.ttest_ind(scale.apply(a[1:]), scale.apply(b[:4]), equal_var=False)
    assert row["difference"] == pytest.approx(a[1:].mean() - b[:4].mean())
    assert row["difference"] == pytest.approx(-ranking["val_accuracy"].diff()[1])
    middle = np.mean([scale.apply(a[1:]).mean(), scale.apply(b[:4]).mean()])
    low, high = scale.invert_difference(middle, welch.confidence_interval())
    assert (row["p"], row["difference_low"], row["difference_high"]) == pytest.approx((welch.pvalue, low, high))
    said = read_answer(folder)
    assert "paired" not in said
    assert (
        "it is selected 3 of 3 times among the 3 seeds that all ranked configurations have" in said
        and "own mean on these:" in said
    )


def test_a_runner_up_may_be_beaten_and_another_not(tmp_path):
    second, third = 0.89 + np.array([0, 5, 0, 5, 0]) / 1e4, [0.5, 0.99, 0.98, 0.97, 0.96]
    said = read_answer(_run(tmp_path / "run", [0.9] * 5, second, third))
    assert "Decided" in said and "It is undecided against 1 other configuration with a lower mean" in said
    assert re.search(r"mean \(learning rate 0.03\): [\d,]+ more seeds of each would decide it\.", said)
    clear = read_answer(_run(tmp_path / "clear", 0.9 + LUCK / 100, 0.8 + LUCK, 0.7 + LUCK[::-1]))
    assert "Decided" in clear and "undecided" not in clear


def test_configurations_with_fewer_seeds_are_said_to_be_unranked(tmp_path):
    folder = _run(tmp_path / "run", 0.8 + LUCK, 0.9 + LUCK, 0.7 + LUCK, diverge=("t0005",))
    assert "Unranked: 1 of 3 configurations has fewer seeds with a finite validation accuracy" in read_answer(folder)
    losses = [np.array([0.8, 0.9, 0.7]), np.array([0.3, np.nan, 0.4])]  # lucky, where it is a number
    folder = _run(tmp_path / "loss", *losses, seeds=3, measure="val_loss")
    said = read_answer(folder)
    assert (
        "learning rate 0.01" in said
        and "Unranked: 1 of 2 configurations has fewer seeds with a finite validation" in said
    )
    none = _run(tmp_path / "none", [np.nan] * 2, [np.nan] * 2, seeds=2, measure="val_loss")
    assert read_answer(none) == "No trial has finished with a value to select by."


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("examples", [1, 2])
def test_a_test_set_of_one_or_two_images_is_reported(tmp_path, seeds, examples):
    values = 0.8 + LUCK[:seeds], 0.85 + LUCK[::-1][:seeds]
    folder = _run(tmp_path / "run", *values, seeds=seeds, examples=examples)
    assert "on single test images" in summarize_run(folder)
    run = read_run(folder)
    first, second = (np.mean(run.values(configuration, "test_accuracy")) for configuration in run.ranked)
    row = ranking.tables(run)[2].frame.loc[0]
    assert row["accuracy_difference"] == pytest.approx(first - second) and not row["low"] < -1 and not row["high"] > 1
    build_report(folder)


@pytest.mark.slow
def test_equal_accuracies_have_neither_sources_nor_effects(tmp_path):
    crossed = make_run(tmp_path / "crossed", make_config([0], streams={"init": [0, 1, 2], "order": [0, 1, 2]}))
    grid = make_run(
        tmp_path / "grid", make_config([0, 1], train={"learning_rate": [0.01, 0.03], "batch_size": [16, 32]})
    )
    for folder in (crossed, grid):
        pd.read_csv(folder / "trials.csv").assign(test_accuracy=0.8).to_csv(folder / "trials.csv", index=False)
        build_report(folder)
    assert "Test accuracy is the same in all 9 trainings, baseline." in read_answer(crossed)
    assert split_variance(read_run(crossed))[0].found.total == 0
    assert not (crossed / "report" / "variance_components.svg").exists()
    assert explain(read_run(grid)) is None


@pytest.mark.slow
def test_one_of_anything_is_not_several(tmp_path):
    page = build_report(make_run(tmp_path / "run", make_config([0]), examples=40)).read_text()
    for one in ("compiled program", "configuration", "seed"):
        assert f"<b>1</b>{one}</li>" in page
    assert "that every seed classifies correctly" in page


def test_where_all_diverged_no_seed_is_single(tmp_path):
    folder = _run(tmp_path / "run", [0.8], [0.9], seeds=1, diverge=("t0000", "t0001"))
    assert [finding.name for finding in protocol.check(read_run(folder))] == ["diverged-left-out"]
