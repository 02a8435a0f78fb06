"""Findings: rules of protocol that a run breaks, and that limit what its numbers support."""

import json
import math
from collections.abc import Iterator
from typing import Any

from cnnjax.analysis.chance import (
    chance_level,
    configurations_at_chance,
    stuck_by_configuration,
    stuck_trials,
)
from cnnjax.analysis.columns import measure_name
from cnnjax.analysis.compare.fresh import is_outdated, read_confirmation
from cnnjax.analysis.run import Run
from cnnjax.report.sections.data_rules import Finding, check_data, first_three, worst_first
from cnnjax.study.axes import where_it_matters


def check(run: Run) -> list[Finding]:
    """Returns the rules that a run breaks, the worst first."""
    examined = run.data.get("examined")  # missing in older runs
    found = [finding for rules in (_selection, _seeds, _trials, _data, _comparability) for finding in rules(run)]
    return worst_first(found + (check_data(examined, run.classes) if examined else []))


def _selection(run: Run) -> Iterator[Finding]:
    """What selects configurations and epochs."""
    data, select = run.config.get("data", {}), measure_name(run.select)
    validation, several = data.get("validation_from"), len(run.configurations) > 1
    if several and run.selects_on_test:
        said = f"The best configuration is selected by {select}: on the test split, so its test results are optimistic."
        yield Finding("selection-on-test", "error", said)
    if validation == "same_as_test":
        said = (
            "The validation split is the test split: it selects configurations and epochs and stops trainings, so the "
            "test results are optimistic."
        )
        yield Finding("validation-is-test", "error", said)
    rules = [
        *_several(run, "early_stopping"),
        *(stage.get("early_stopping", "off") for stage in _several(run, "stages")),
    ]
    watched = sorted({rule for rule in rules if str(rule).startswith("val_")})
    if watched and validation in ("test", "same_as_test"):
        whose = "the test split" if validation == "same_as_test" else "images of the data's test set"
        said = f"Trials stop early by {', '.join(watched)}, measured on {whose}: it decides when each training ends."
        yield Finding("early-stopping-on-test", "error", said)
    if several and run.select.startswith("train"):
        said = (
            f"The best configuration is selected by {select}, which does not measure generalization: no validation "
            "split takes part in the selection."
        )
        yield Finding("selection-on-train", "warning", said)
    if data.get("validation") and validation == "test":
        said = (
            "The validation split is part of the data's test set: the test results are on the rest of it, and not "
            "comparable with published ones."
        )
        yield Finding("validation-from-test", "warning", said)
    if several and run.planned_select not in (None, run.config["select"]):
        said = (
            f"The report was asked to select by {select}; the study selects by {measure_name(run.planned_select)}; a "
            "measure chosen after the results are known may be chosen for its winner."
        )
        yield Finding("selection-afterwards", "warning", said)
    confirmed = read_confirmation(run.workdir)
    if confirmed is not None and is_outdated(run, confirmed):
        said = "The study has grown since --confirm trained its winner on fresh seeds: confirm it again."
        yield Finding("confirmation-outdated", "warning", said)


def _several(run: Run, key: str) -> list[Any]:
    value = run.config.get("train", {}).get(key) or []
    return value if isinstance(value, list) else [value]


def _seeds(run: Run) -> Iterator[Finding]:
    """Whether seeds show a spread, and how much of it."""
    several = len(run.configurations) > 1
    if len(run.ok) and run.configurations["n"].max() == 1:
        said = "differences between configurations may be chance, and no configuration can be called better."
        said = f"One seed per configuration: {said}" if several else "One seed: the effect of another seed is unknown."
        yield Finding("single-seed", "error", said)
        if several:
            said = (
                "With one seed per configuration, every spread in this report is due to hyperparameters; no error bars "
                "are drawn."
            )
            yield Finding("spread-of-configurations", "warning", said)
    streams = run.config.get("streams", {}).items()
    seeds = {name: values if isinstance(values, list) else [values] for name, values in streams}
    fixed = [
        f"{name} = {json.dumps(of[0])}"
        for name, of in seeds.items()
        if len(of) == 1 and of != [None] and name != "split"  # fixed by default
    ]
    if fixed:
        said = (
            f"Random streams are fixed ({', '.join(fixed)}): all trainings of a configuration share them, and spread "
            "less than independent trainings."
        )
        yield Finding("fixed-streams", "warning", said)
    if run.folds:
        yield Finding("folds", "note", run.folds_note.strip())
    if run.crossed:
        said = (
            f"Random streams are crossed ({', '.join(run.crossed)}): trainings of a configuration share some of them, "
            "they are not independent, and intervals that assume independence are too narrow."
        )
        yield Finding("crossed-streams", "warning", said)


def list_stuck_seeds(run: Run) -> str:
    """Returns how many of how many seeds of which configurations never left chance; empty if none."""
    found = stuck_by_configuration(run)
    n, total = run.configurations["n"], len(run.configurations)
    names = [
        f"{count} of {n[configuration]} {run.repeats}" + (f" of {run.tell_apart(configuration)}" if total > 1 else "")
        for configuration, count in found.items()
    ]
    return first_three(names, "; ")


def _trials(run: Run) -> Iterator[Finding]:
    """Trials that diverged, learned nothing, are missing or are not there twice."""
    total, chance = len(run.trials), chance_level(run)
    if run.diverged:
        said = (
            f"{run.diverged} of {total} finished trials diverged (non-finite loss) and are left out of every mean: "
            "configurations that lost seeds look better than they are, and are not named best if they lost more than "
            "others."
        )
        yield Finding("diverged-left-out", "warning", said)
    stuck = stuck_trials(run)
    if len(stuck) and chance:
        said = (
            f"{len(stuck)} of {total} finished trials never left chance ({list_stuck_seeds(run)}): their test accuracy "
            f"is that of the most frequent class ({100 * chance.accuracy:.1f} %), and their loss that of a constant "
            f"prediction (at most ln {len(run.classes)} = {math.log(len(run.classes)):.2f}). They count in means; "
            "tests of configurations leave them out, unless all seeds of a configuration are stuck."
        )
        yield Finding("stuck", "warning", said)
    at_chance = configurations_at_chance(run)
    if at_chance and chance:
        names = [run.tell_apart(configuration) for configuration in at_chance]
        have = "configuration has" if len(run.configurations) == 1 else "configurations have"
        said = (
            f"{len(at_chance)} of {len(run.configurations)} {have} a mean test accuracy no better than chance, "
            f"{100 * chance.accuracy:.1f} % for always predicting the most frequent class ({first_three(names)})."
        )
        yield Finding("at-chance", "warning", said)
    if total < run.planned:
        said = f"{total} of {run.planned} trials finished: the results will change."
        yield Finding("unfinished", "note", said)
    if repeats := run.plan.get("repeats"):
        where = ", and ".join(f"{axis} matters {where_it_matters(axis)}" for axis in repeats)
        said = f"Not every axis has an effect everywhere ({where}): of points that train identically, one was trained."
        yield Finding("axis-without-effect", "note", said)


def _data(run: Run) -> Iterator[Finding]:
    """Classes, and how images are fed."""
    data = run.config.get("data", {})
    if len(run.classes) < 2:
        yield Finding("one-class", "error", "There is one class: every prediction is right.")
    tested = set(range(len(run.classes)) if run.labels is None else run.labels.tolist())
    if absent := [name for label, name in enumerate(run.classes) if label not in tested]:
        said = (
            f"Of {len(run.classes)} classes, {len(absent)} ({first_three(absent)}) have no test image: macro "
            "precision, recall and F1 count each of them as 0, so a perfect network falls short of 1."
        )
        yield Finding("absent-classes", "warning", said)
    if not run.trials["shuffle"].astype(str).isin(["True", "1"]).all():
        said = (
            "Training images are not shuffled (train.shuffle): every epoch has the same batches in the same order, "
            "with any seed."
        )
        yield Finding("unshuffled", "warning", said)
    if (run.trials["normalization"] == "none").any():
        said = (
            "Pixels are not scaled (data.normalization = none): with values of 0 to 255, training depends on the "
            "learning rate more than on the network."
        )
        yield Finding("unscaled", "warning", said)
    if data.get("augment_test"):
        said = (
            "Test images are augmented (data.augment_test), each once and the same for all trials: the test results "
            "are not those of the original images."
        )
        yield Finding("augmented-test", "warning", said)
    if data.get("stored_augment", "none") != "none" and run.data.get("counts", {}).get("validation"):
        said = (
            "Validation images are stored in several versions each (data.stored_augment), test images are not: "
            "validation and test results are not comparable."
        )
        yield Finding("augmented-validation", "warning", said)


def _comparability(run: Run) -> Iterator[Finding]:
    """Whether results are comparable with those of others."""
    if (views := run.config.get("data", {}).get("test_time_augment", "none")) != "none":
        said = (
            f"Logits of validation and test images are means over views of each image (data.test_time_augment = "
            f"{views}): results are not comparable with those of the images alone."
        )
        yield Finding("test-time-augmentation", "note", said)
    if run.data.get("test_from") == "pooled":
        said = (
            "The data's own test set was pooled with its training images and split again (data.fractions): test "
            "results are not comparable with published ones."
        )
        yield Finding("pooled-test", "note", said)
    if examples := sorted(run.trials["train_examples"].dropna().astype(int).unique()):
        said = (
            f"Trained on a subset of {' or '.join(f'{count:,}' for count in examples)} training images "
            "(data.train_examples): results are not comparable with those of the whole data set."
        )
        yield Finding("training-subset", "note", said)
    if notes := run.data.get("notes"):
        yield Finding("reading", "note", f"How the data was read: {'; '.join(map(str, notes))}.")
