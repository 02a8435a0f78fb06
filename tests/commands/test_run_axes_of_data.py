"""Runs whose trials differ in their data: folds, splits, normalization, augmentation and number of examples."""

import json

import numpy as np
import pytest

import cnnjax
from cnnjax.analysis.evidence import weigh
from cnnjax.analysis.read import read_run
from cnnjax.data import load_dataset
from cnnjax.data.dataset import Cut
from cnnjax.data.normalization import affine_map
from cnnjax.report import build_report
from cnnjax.training.load import load_trials
from tests.support.runs import run
from tests.support.studies import make_study

pytestmark = [pytest.mark.usefixtures("quick", "rough"), pytest.mark.slow]


def assert_loaded_as_trained(study, folder):
    """The networks that are loaded reach the accuracies in trials.csv on their own splits."""
    dataset, results = load_dataset(study.data, study.split_seeds), cnnjax.load_results(folder)
    for trained, row in zip(load_trials(folder, results.trial), results.itertuples(), strict=True):
        trial = trained.trial
        cut = Cut(trial.streams.split, trial.stages[0].traced.fold, trial.static.train_examples)
        partition = dataset.partitions[cut]
        for measured, positions in ((row.val_accuracy, partition.validation), (row.test_accuracy, partition.test)):
            split = dataset.pool.take(positions)
            accuracy = (trained.logits(split.images).argmax(1) == split.labels).mean()
            assert accuracy == pytest.approx(measured, abs=0.004)
        expected = affine_map(partition.mean, partition.std, trial.stages[0].traced.normalization)
        np.testing.assert_array_equal((trained.scale, trained.shift), expected)
    return results


def test_five_folds_of_two_models(tmp_path):
    data = {"folds": 5, "stratify": True, "validation": None, "train_examples": None, "normalization": "standard"}
    study = make_study(models=("tiny", "baseline"), select="val_accuracy", data=data, train={"epochs": 1})
    said = run(study, tmp_path)
    assert "all folds train on 1,150 images; where there is one more, it is left out" in said
    results = assert_loaded_as_trained(study, tmp_path)
    assert results.groupby("model").fold.apply(list).to_dict() == {name: [0, 1, 2, 3, 4] for name in study.models}
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [(program["model"], program["members"]) for program in plan["programs"]] == [("tiny", 5), ("baseline", 5)]
    found = read_run(tmp_path)
    assert found.repeats == "folds" and [*found.configurations.n] == [5, 5]
    comparison = weigh(found).against[0]
    assert len(comparison.a) == len(comparison.b) == 5
    page = build_report(tmp_path).read_text()
    assert page.count("Trials are of 5 folds, which share training images: their spread is not that of seeds") > 2


def test_trials_with_their_own_splits_normalization_and_number_of_examples(tmp_path):
    data = {"normalization": ("half", "standard"), "augment": ["none", "flip"], "train_examples": (100, 200)}
    study = make_study(seeds=(0, 1), streams={"split": None}, data=data, train={"epochs": 1})
    run(study, tmp_path)
    results = assert_loaded_as_trained(study, tmp_path)
    assert len(results) == 16 and set(results.augment) == {"none", "flip"}
    dataset, found = load_dataset(study.data, study.split_seeds), read_run(tmp_path)
    for configuration in found.configurations.index:
        for (logits, labels), row in zip(
            found.tested(configuration), found.ok[found.ok.configuration == configuration].itertuples(), strict=True
        ):
            np.testing.assert_array_equal(labels, dataset.test_labels[row.stream_split])
            assert (logits.argmax(1) == labels).mean() == pytest.approx(row.test_accuracy)
        (logits,), labels = found.predictions(configuration)  # those of the first test split
        np.testing.assert_array_equal(labels, dataset.test.labels)
    assert build_report(tmp_path).exists()
