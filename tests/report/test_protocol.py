"""Each rule of protocol by itself: a run that breaks it alone is told so, and one that keeps it is not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cnnjax.analysis.chance import chance_level, stuck_trials
from cnnjax.analysis.read import read_run
from cnnjax.report import build_report
from cnnjax.report.sections import protocol
from cnnjax.report.sections.data_rules import Finding
from tests.support.made_up_run import STOPPED, make_config, make_run, read_answer, read_rows

GRID = {"learning_rate": [0.01, 0.03]}


ONE_CLASS = {"classes": ["all"]}


def _check(folder: Path, config: dict, data: dict | None = None, **more) -> dict[str, Finding]:
    """The findings of a made-up run by name; `data` are changes of its data.json."""
    make_run(folder, config, examples=40, **more)
    if data == ONE_CLASS:
        np.savez(folder / "predictions/labels.npz", labels=np.zeros(40, np.int32))
    if data:
        there = json.loads((folder / "data.json").read_text())
        (folder / "data.json").write_text(json.dumps(there | data))
    return {finding.name: finding for finding in protocol.check(read_run(folder))}


@pytest.mark.slow
def test_a_study_that_keeps_every_rule(tmp_path):
    config = make_config([0, 1], select="val_accuracy", train=GRID, data={"validation": 0.1})
    assert _check(tmp_path / "run", config) == {}
    assert 'class="findings"' not in build_report(tmp_path / "run").read_text()


ADAMS = ["adam", "adamw"]
KEPT = {"select": "val_accuracy", "data": {"validation": 0.1}}
FROM_TEST = {"validation": 0.5, "validation_from": "test"}
STOPPING = GRID | {"early_stopping": "val_loss:3"}


@pytest.mark.parametrize(
    ("names", "config"),
    [
        (["selection-on-test"], make_config([0, 1], select="test_accuracy", train=GRID)),
        (["selection-on-test"], make_config([0, 1], select="test_f1", train=GRID)),
        (["selection-on-train"], make_config([0, 1], select="train_loss", train=GRID)),
        ([], make_config([0, 1], select="test_accuracy")),  # of one configuration nothing was selected
        ([], make_config([0, 1], select="train_loss")),
        (["validation-is-test"], make_config([0, 1], select="val_loss", data={"validation_from": "same_as_test"})),
        (["validation-from-test"], make_config([0, 1], select="val_loss", data=FROM_TEST)),
        (
            ["early-stopping-on-test", "validation-from-test"],
            make_config([0, 1], select="val_loss", data=FROM_TEST, train=STOPPING),
        ),
        (
            ["validation-is-test", "early-stopping-on-test"],
            make_config([0, 1], select="val_loss", data={"validation_from": "same_as_test"}, train=STOPPING),
        ),
        (
            ["early-stopping-on-test", "validation-from-test"],
            make_config(
                [0, 1],
                select="val_loss",
                data=FROM_TEST,
                train={"stages": ({"epochs": 2}, {"early_stopping": "val_accuracy:2"})},
            ),
        ),
        (["validation-from-test"], make_config([0, 1], data=FROM_TEST, train={"early_stopping": "train_loss:2"})),
        ([], make_config([0, 1], **KEPT, train=STOPPING)),
        (["single-seed", "spread-of-configurations"], make_config([0], **KEPT, train=GRID)),
        (["single-seed"], make_config([0], **KEPT)),
        (["fixed-streams"], make_config([0, 1], **KEPT, streams={"init": 3})),
        (["crossed-streams"], make_config([0], **KEPT, streams={"init": [0, 1], "order": [0, 1]})),
        (["unshuffled"], make_config([0, 1], **KEPT, train={"shuffle": False})),
        (["axis-without-effect"], make_config([0, 1], **KEPT, train={"weight_decay": [0, 0.1], "optimizer": ADAMS})),
        (["unshuffled"], make_config([0, 1], **KEPT, train={"shuffle": [True, False]})),
        (["augmented-test"], make_config([0, 1], data={"augment": ("flip",), "augment_test": True})),
        ([], make_config([0, 1], data={"augment": ("flip",)})),
        (["test-time-augmentation"], make_config([0, 1], data={"test_time_augment": "flip"})),
        (["unscaled"], make_config([0, 1], select="val_loss", data={"validation": 0.1, "normalization": "none"})),
        (["training-subset"], make_config([0, 1], select="val_loss", data={"validation": 0.1, "train_examples": 500})),
    ],
    ids=lambda value: "+".join(value) or "none" if isinstance(value, list) else "",
)
def test_rules_of_the_config(tmp_path, names, config):
    assert list(_check(tmp_path / "run", config)) == names


def test_diverged_members_are_said_to_be_left_out(tmp_path):
    found = _check(tmp_path / "run", STOPPED, diverge=("t0003",))
    assert list(found) == ["diverged-left-out"]
    assert found["diverged-left-out"].sentence.startswith("1 of 6 finished trials diverged")
    assert list(_check(tmp_path / "all", make_config([0, 1]), diverge=("t0000", "t0001"))) == ["diverged-left-out"]
    of_two = make_config([0, 1], select="val_accuracy", train=GRID, data={"validation": 0.1})
    everything = [f"t{trial:04}" for trial in range(4)]
    assert list(_check(tmp_path / "two", of_two, diverge=everything)) == ["diverged-left-out"]


def test_classes_without_a_test_image_are_said_to_lower_macro_measures(tmp_path):
    """As of labels that count from 1, which leave a class 0 without any image."""
    found = _check(tmp_path / "run", make_config([0, 1]), {"classes": ["none", *map(str, range(1, 10)), "nothing"]})
    assert list(found) == ["absent-classes"] and "Of 11 classes, 1 (nothing) have" in found["absent-classes"].sentence
    (finding,) = _check(tmp_path / "one", make_config([0, 1]), ONE_CLASS).values()
    assert (finding.name, finding.severity) == ("one-class", "error")


def _make_stuck(folder: Path, trials: tuple[str, ...], loss: float = 2.3026, learned: float = 0.1) -> None:
    """These trials name one class alone, in each epoch, but for one epoch with a better training accuracy."""
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    shares = np.bincount(np.load(folder / "predictions/labels.npz")["labels"]) / 400
    for row in rows:
        if row["trial"] in trials:
            row |= {"test_accuracy": shares[3], "test_loss": loss, "train_accuracy": 0.1}
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["member"] in trials:
            line["train_accuracy"] = learned if line["epoch"] == 2 else 0.1
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trials", "how", "names"),
    [
        (("t0000", "t0002"), {}, ["stuck"]),
        (("t0000", "t0001", "t0002"), {}, ["stuck", "at-chance"]),  # all seeds of the first configuration
        (("t0000", "t0002"), {"loss": 9.0}, []),  # it overfits, or shoots about
        (("t0000", "t0002"), {"learned": 0.4}, []),  # it left chance, and went back
        (("t0000", "t0001", "t0002"), {"loss": 9.0}, ["at-chance"]),
    ],
)
def test_seeds_that_never_left_chance_are_named(tmp_path, trials, how, names):
    folder = make_run(tmp_path / "run", STOPPED)
    _make_stuck(folder, trials, **how)
    found = {finding.name: finding.sentence for finding in protocol.check(read_run(folder))}
    assert list(found) == names
    if "stuck" in names:
        of_seeds = f"{len(trials)} of 3 seeds of learning rate 0.01"
        assert found["stuck"].startswith(f"{len(trials)} of 6 finished trials never left chance ({of_seeds}): ")
        assert f"<b>{len(trials)}</b>stuck at chance" in build_report(folder).read_text()
        assert f"Stuck at chance: {of_seeds} learned nothing" in read_answer(folder)
        rows = read_rows(folder / "report" / "configurations.csv")
        assert sorted((row["learning_rate"], row["stuck"]) for row in rows) == [
            ("0.01", f"{len(trials)}"),
            ("0.03", "0"),
        ]
    if "at-chance" in names:
        assert found["at-chance"].startswith("1 of 2 configurations") and "(learning rate 0.01)" in found["at-chance"]


def test_chance_is_what_the_most_frequent_class_gives(tmp_path):
    """Of nine images in ten of one class, an accuracy of 90 % is nothing, and a loss of .325 what counting gives."""
    folder = make_run(tmp_path / "run", STOPPED)
    _make_stuck(folder, ("t0000",), loss=0.325)
    labels = np.repeat(np.array([3, 0], np.int32), [360, 40])
    np.savez(folder / "predictions" / "labels.npz", labels=labels)
    chance = chance_level(read_run(folder))
    assert chance.accuracy == 0.9 and chance.limit == pytest.approx(0.93)
    assert "t0000" in stuck_trials(read_run(folder))["trial"].tolist()
    (folder / "predictions" / "labels.npz").unlink()
    assert chance_level(read_run(folder)).accuracy == pytest.approx(0.1)


def test_a_study_that_is_not_finished(tmp_path):
    (finding,) = _check(tmp_path / "run", STOPPED, keep=4).values()
    assert (finding.name, finding.severity) == ("unfinished", "note")
    assert "4 of 6 trials" in finding.sentence


@pytest.mark.parametrize(("stored", "validation"), [("flip_zoom", 4), ("flip_zoom", 0), ("none", 4)])
def test_validation_images_in_several_versions(tmp_path, stored, validation):
    config = make_config([0, 1], data={"stored_augment": stored})
    found = _check(tmp_path / "run", config, {"counts": {"validation": validation}})
    assert list(found) == ["augmented-validation"] * (stored == "flip_zoom" and validation > 0)


@pytest.mark.parametrize(("test_from", "names"), [("pooled", ["pooled-test"]), ("source", []), ("train", [])])
def test_a_pooled_test_set(tmp_path, test_from, names):
    config = make_config([0, 1], data={"fractions": (0.6, 0.2, 0.2)})
    assert list(_check(tmp_path / "run", config, {"test_from": test_from})) == names


def test_what_is_said_of_reading_the_data(tmp_path):
    config = make_config([0, 1])
    (finding,) = _check(tmp_path / "run", config, {"notes": ["left out: a", "put on white: b"]}).values()
    assert (finding.name, finding.severity) == ("reading", "note")
    assert finding.sentence == "How the data was read: left out: a; put on white: b."
    assert not _check(tmp_path / "none", config, {"notes": []})


def test_every_rule_is_a_plain_sentence_with_a_name_of_its_own(tmp_path):
    config = make_config(
        [0],
        select="test_accuracy",
        train=GRID | {"shuffle": False, "early_stopping": "val_loss:2"},
        data={"validation_from": "same_as_test", "normalization": "none", "train_examples": 500},
        streams={"order": 1},
    )
    found = _check(tmp_path / "run", config, {"test_from": "pooled"}, keep=1)
    severities = [finding.severity for finding in found.values()]
    assert severities == sorted(severities, key=("error", "warning", "note").index) and len(found) > 7

    for finding in found.values():
        assert finding.sentence[0] == finding.sentence[0].upper()
        assert finding.sentence.endswith(".") and ". " not in finding.sentence
    page = build_report(tmp_path / "run").read_text()
    assert all(f'<li class="{finding.severity}"><b>{finding.name}</b>' in page for finding in found.values())
