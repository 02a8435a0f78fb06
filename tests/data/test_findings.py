"""What is wrong with a data set is counted pixel by pixel and said: before training, and in the report."""

import dataclasses
import json

import numpy as np
import pytest

from cnnjax.analysis.read import read_run
from cnnjax.commands import inspect
from cnnjax.data import Dataset, Split, load_dataset
from cnnjax.data.findings import examine
from cnnjax.report import build_report
from cnnjax.report.sections import protocol
from cnnjax.report.sections.data_rules import check_data
from tests.support.made_up_run import make_config, make_run
from tests.support.studies import make_study

CLASSES = ("plane", "car", "bird")


def make_split(counts, seed):
    images = np.random.default_rng(seed).integers(0, 256, (sum(counts), 4, 3, 2)).astype(np.uint8)
    return Split(images, np.repeat(np.arange(len(counts)), counts).astype(np.int32))


def make_dataset(train=(20, 20, 20), test=(5, 5, 5), validation=None):
    splits = [make_split(counts, seed) if counts else None for seed, counts in enumerate((train, validation, test))]
    return Dataset("made up", *splits, CLASSES)


def names_of(dataset):
    found = check_data(examine(dataset), dataset.classes)
    assert all(finding.sentence.endswith(".") and ". " not in finding.sentence for finding in found)
    return {finding.name: finding.sentence for finding in found}


def test_of_sound_data_nothing_is_said():
    assert names_of(make_dataset(validation=(4, 4, 4))) == {}
    assert check_data(examine(load_dataset(make_study().data)), [str(digit) for digit in range(10)]) == []


def test_counts_by_class():
    found = names_of(make_dataset(train=(0, 3, 40), test=(1, 2, 7)))
    assert set(found) == {"untrained-classes", "small-classes", "imbalance"}
    assert "1 of 3 classes (plane)" in found["untrained-classes"] and "1 of 3 classes (car)" in found["small-classes"]
    assert "3 to 40 training images" in found["imbalance"] and "predicting bird has a test accuracy of 70.0 %" in str(
        found
    )
    assert set(names_of(make_dataset(train=(10, 20, 39)))) == set()
    assert set(names_of(make_dataset(train=(10, 20, 40)))) == {"imbalance"}


def test_images_in_two_splits_and_under_two_labels():
    dataset = make_dataset(validation=(4, 4, 4))
    dataset.test.images[:2] = dataset.train.images[:2]  # two of the same class
    dataset.validation.images[0] = dataset.test.images[4]
    found = names_of(dataset)
    assert set(found) == {"in-two-splits"}
    assert "(2 test images also in train, 1 test image also in validation)" in found["in-two-splits"]
    dataset = make_dataset()
    dataset.train.images[[1, 2]] = dataset.train.images[50]
    found = names_of(dataset)
    assert set(found) == {"two-labels"} and found["two-labels"].startswith(
        "1 image has identical copies with another label"
    )
    assert "(plane and bird)" in found["two-labels"]


def test_the_test_split_that_validates_is_no_second_split():
    dataset = make_dataset()
    alike = dataclasses.replace(dataset, validation=dataset.test, validation_from="same_as_test")
    assert names_of(alike) == {}


def test_images_that_are_equal_or_of_one_color():
    dataset = make_dataset()
    dataset.train.images[:] = dataset.train.images[0]
    assert names_of(dataset)["equal-images"] == "All 60 training images are equal."
    dataset = make_dataset()
    dataset.train.images[3], dataset.test.images[[1, 2]] = (7, 90), 0  # a color has two channels
    found = names_of(dataset)
    assert "(1 train image, 2 test images)" in found["flat-images"]
    assert "in-two-splits" not in found


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_copies_are_what_a_dictionary_of_bytes_says(shape):
    """Also of more images than are looked at in one go."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (900, *shape)).astype(np.uint8)
    which, labels = rng.integers(0, 900, 1500), rng.integers(0, 3, 1500).astype(np.int32)
    train, test = (Split(kinds[which[part]], labels[part]) for part in (slice(1200), slice(1200, None)))
    found = examine(Dataset("made up", train, None, test, CLASSES))
    seen = {image.tobytes() for image in train.images}
    labels_of = {}
    for image, label in zip(kinds[which], labels, strict=True):
        labels_of.setdefault(image.tobytes(), set()).add(label)
    assert found["distinct"] == len(seen)
    assert found["in_two_splits"] == {"train/test": sum(image.tobytes() in seen for image in test.images)}
    assert found["two_labels"]["images"] == sum(len(of) > 1 for of in labels_of.values())


@pytest.mark.slow
def test_it_is_said_before_training_and_in_the_report(tmp_path, monkeypatch):
    dataset = load_dataset(make_study().data)
    dataset.test.images[0] = dataset.train.images[0]
    monkeypatch.setattr(inspect, "load_dataset", lambda *_: dataset)
    said = inspect.inspect_study(make_study(models=("baseline",)), tmp_path / "page")
    assert "warning: in-two-splits: Identical images are in two splits" in said
    assert "<b>in-two-splits</b>" in (tmp_path / "page/index.html").read_text()
    run = make_run(tmp_path / "run", make_config([0, 1]))
    data = json.loads((run / "data.json").read_text()) | {"examined": examine(dataset)}
    (run / "data.json").write_text(json.dumps(data))
    assert "in-two-splits" in [finding.name for finding in protocol.check(read_run(run))]
    page = build_report(run).read_text()
    assert "<b>in-two-splits</b>" in page and "examined" not in page
