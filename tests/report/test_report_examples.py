"""The report's chapter of single examples against the stored predictions, and the images it shows."""

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special

from cnnjax.analysis.read import read_run
from cnnjax.data import load_dataset
from cnnjax.data.resize import thumbnails
from cnnjax.report.sections import examples
from cnnjax.report.tables import Table
from cnnjax.utils.progress import Progress
from tests.support.made_up_run import make_config, make_run
from tests.support.studies import make_study

TWO = make_config([0, 1, 2], select="val_accuracy", data={"validation": 0.1}, models=["baseline", "medium"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("examples") / "run", TWO, examples=200)


@pytest.fixture(scope="module")
def tables(folder) -> list[Table]:
    return examples.tables(read_run(folder))


def _logits(folder: Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    trials = pd.read_csv(folder / "trials.csv").query("model == @model")["trial"]
    files = [folder / "predictions" / f"{name}.npz" for name in trials]
    logits = np.stack([np.load(file)["logits"] for file in files]).astype(np.float64)
    return logits, np.load(folder / "predictions" / "labels.npz")["labels"]


def test_the_table_of_examples_is_that_of_the_stored_predictions(folder, tables):
    table = tables[0].frame.set_index("configuration")
    run = read_run(folder)
    assert table.index[0] == run.configurations.loc[run.best, "model"]
    for model in ("baseline", "medium"):
        logits, labels = _logits(folder, model)
        right = (logits.argmax(axis=2) == labels).sum(axis=0)
        probabilities = scipy.special.softmax(logits, axis=2)
        row = table.loc[model]
        assert (row["n"], row["test_accuracy"]) == (3, pytest.approx(right.mean() / 3))
        assert row["ensemble"] == pytest.approx((probabilities.mean(axis=0).argmax(axis=1) == labels).mean())
        assert row["always_right"] == pytest.approx((right == 3).mean())
        assert row["always_wrong"] == pytest.approx((right == 0).mean())
        assert row["coin_flips"] == pytest.approx(((right == 1) | (right == 2)).mean())
        assert row["confidence"] == pytest.approx(probabilities.max(axis=2).mean(), rel=1e-5)


def test_churn_counts_changed_predictions(folder, tables):
    (row,) = tables[1].frame.to_dict("records")
    best = tables[0].frame.loc[0, "configuration"]
    (logits, labels), (others, _) = _logits(folder, best), _logits(folder, row["instead of"])
    new, old = logits.argmax(axis=2), others.argmax(axis=2)
    pairs = list(itertools.product(old, new))
    assert row["changed"] == pytest.approx(np.mean([(a != b).mean() for a, b in pairs]))
    assert row["gained"] == pytest.approx(np.mean([((a != labels) & (b == labels)).mean() for a, b in pairs]))
    assert row["lost"] == pytest.approx(np.mean([((a == labels) & (b != labels)).mean() for a, b in pairs]))
    within = [(a != b).mean() for a, b in itertools.combinations(old, 2)]
    assert row["by seed alone"] == pytest.approx(np.mean(within))


def test_the_spread_on_all_data_is_less_than_on_this_test_set(folder, tables):
    table = tables[2].frame.set_index("configuration")
    for model in ("baseline", "medium"):
        logits, labels = _logits(folder, model)
        right = logits.argmax(axis=2) == labels
        row = table.loc[model]
        variance = right.mean(axis=1).var(ddof=1)
        of_images = right.var(axis=0, ddof=1).mean() / len(labels)  # unbiased, of each image
        assert row["std here"] == pytest.approx(variance**0.5)
        assert row["std if independent"] == pytest.approx(of_images**0.5)
        assert row["std on all data"] == pytest.approx(max(0, (variance - of_images) * 200 / 199) ** 0.5)


def test_galleries_show_images_of_what_they_say(folder, tables):
    galleries = {plot.name: plot for plot in examples.figures(read_run(folder))}
    assert {"examples_coin_flips", "examples_always_right"} <= set(galleries)
    logits, labels = _logits(folder, tables[0].frame.loc[0, "configuration"])
    right = (logits.argmax(axis=2) == labels).mean(axis=0)
    flips = np.flatnonzero((right > 0.25) & (right < 0.75))
    assert f"Coin flips: {len(flips)} of 200 test images" in galleries["examples_coin_flips"].caption
    shown = min(16, int((flips < 100).sum()))  # the run's folder holds the first hundred images
    assert galleries["examples_coin_flips"].svg.count("<image ") == shown
    assert "of the first 100" in galleries["examples_coin_flips"].caption
    shares = re.findall(r"(\d+) % right<", galleries["examples_coin_flips"].svg)
    assert len(shares) == shown and set(shares) <= {"33", "67"}


def test_without_images_there_is_no_gallery_and_without_predictions_no_chapter(folder, tmp_path):
    config = make_config([0, 1])
    make_run(tmp_path / "run", config, examples=60)
    (tmp_path / "run/predictions/images.npz").unlink()
    plots = examples.figures(read_run(tmp_path / "run"))
    assert [plot.name for plot in plots] == ["examples_by_seeds", "reliability", "ensembles"]
    for file in (tmp_path / "run/predictions").glob("t*.npz"):
        file.unlink()
    run = read_run(tmp_path / "run")
    assert examples.tables(run) == examples.figures(run) == []


def test_thumbnails_are_few_and_small():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (50, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(thumbnails(small), small)
    large = rng.integers(0, 256, (3, 130, 100, 1)).astype(np.uint8)
    np.testing.assert_array_equal(thumbnails(large), large[:, ::3, ::3])
    many = np.broadcast_to(np.uint8(7), (10_000, 32, 32, 3))
    assert thumbnails(many).shape == (2604, 32, 32, 3) and thumbnails(many).nbytes <= 8_000_000


@pytest.mark.slow
def test_a_run_keeps_its_test_images(tiny, tmp_path):
    from cnnjax.commands import run as runner

    study = make_study(train={"epochs": 1})
    with Progress() as progress:
        runner.run(study, tmp_path / "run", progress=progress)
    images = np.load(tmp_path / "run" / "predictions" / "images.npz")["images"]
    np.testing.assert_array_equal(images, load_dataset(study.data).test.images)
