"""What a reader must know before believing a study's numbers: rules of protocol, held against the run's files."""

import json
from typing import Any

from cnnjax.axes import where_it_matters
from cnnjax.report.chance import chance_level, settings_at_chance, stuck_trials
from cnnjax.report.data_lint import Finding, Rule, broken, check_data, first_three, worst_first
from cnnjax.report.names import measure_name
from cnnjax.report.run import Run


def check_protocol(run: Run) -> list[Finding]:
    """Returns what a run breaks, the worst first."""
    found = broken(RULES, run)
    examined = run.data.get("examined")  # older runs lack it
    return worst_first(found + (check_data(examined, run.classes) if examined else []))


def _selection_on_test(run: Run) -> str:
    if not _chosen(run) or not run.selects_on_test:
        return ""
    return (
        f"The best setting is selected by {measure_name(run.select)}: the test split chose it, so its test figures are "
        "optimistic."
    )


def _selection_on_train(run: Run) -> str:
    if not _chosen(run) or not run.select.startswith("train"):
        return ""
    return (
        f"The best setting is selected by {measure_name(run.select)}, which does not measure generalisation: there is "
        "no validation split in the choice."
    )


def _selection_afterwards(run: Run) -> str:
    if not _chosen(run) or run.planned_select in (None, run.config["select"]):
        return ""
    return (
        f"The report was asked to select by {measure_name(run.select)}; the study selects by "
        f"{measure_name(run.planned_select)}. A measure that is chosen when results are known may be chosen for its "
        "winner."
    )


def _validation_is_test(run: Run) -> str:
    if _data(run).get("validation_from") != "same_as_test":
        return ""
    return (
        "The validation split is the test split: whatever it chose (a setting, an epoch, when to stop), the test "
        "figures are optimistic."
    )


def _validation_from_test(run: Run) -> str:
    if not _data(run).get("validation") or _data(run).get("validation_from") != "test":
        return ""
    return (
        "The validation split is part of the data's test set: test figures are of the rest of it, so they are not "
        "comparable with published ones."
    )


def _early_stopping_on_test(run: Run) -> str:
    if _data(run).get("validation_from") not in ("test", "same_as_test"):
        return ""
    rules = [
        *_several(run, "early_stopping"),
        *(stage.get("early_stopping", "off") for stage in _several(run, "stages")),
    ]
    watched = sorted({rule for rule in rules if str(rule).startswith("val_")})
    if not watched:
        return ""
    whose = "the test split" if _data(run)["validation_from"] == "same_as_test" else "images of the data's test set"
    return f"Trials stop early by {', '.join(watched)}, measured on {whose}: it decided when each training ended."


def _single_seed(run: Run) -> str:
    if not len(run.ok) or run.settings["n"].max() > 1:
        return ""
    if _chosen(run):
        return "One seed per setting: differences between settings may be chance, and no setting can be called better."
    return "One seed: nothing can be said about how much another seed would change these figures."


def _spread_of_settings(run: Run) -> str:
    if not _chosen(run) or run.settings["n"].max() != 1:
        return ""
    return (
        "With one seed per setting, every spread in this report is one of hyperparameters: it is no error bar, and "
        "none is drawn."
    )


def _diverged(run: Run) -> str:
    if not run.diverged:
        return ""
    return (
        f"{run.diverged} of {len(run.trials)} finished trials diverged (non-finite loss) and are left out of every "
        "mean: settings that lost seeds look better than they are, and one that lost more than others cannot be named "
        "best."
    )


def _stuck(run: Run) -> str:
    stuck, chance = stuck_trials(run), chance_level(run)
    if not len(stuck) or chance is None:
        return ""
    trials = [f"{row.trial} with seed {row.seed}" for row in stuck.itertuples()]
    return (
        f"{len(stuck)} of {len(run.trials)} finished trials never left chance ({first_three(trials)}): "
        f"their test accuracy is that of the most frequent class ({100 * chance.accuracy:.1f} %), their loss that of a "
        "network that tells no image from another, and they count in every mean and interval."
    )


def _at_chance(run: Run) -> str:
    found, chance = settings_at_chance(run), chance_level(run)
    if not found or chance is None:
        return ""
    names = [run.tell_apart(setting) for setting in found]
    have = "setting has" if len(run.settings) == 1 else "settings have"
    return (
        f"{len(found)} of {len(run.settings)} {have} a mean test accuracy that is no better than chance, "
        f"{100 * chance.accuracy:.1f} % for always naming the most frequent class ({first_three(names)})."
    )


def _fixed_streams(run: Run) -> str:
    fixed = {name: seeds for name, seeds in _streams(run).items() if len(seeds) == 1 and seeds != [None]}
    if not fixed:
        return ""
    which = ", ".join(f"{name} = {json.dumps(seeds[0])}" for name, seeds in fixed.items())
    return (
        f"Random streams are fixed ({which}): all runs of a setting share them, so the spread shown is not the whole "
        "spread of independent runs."
    )


def _crossed_streams(run: Run) -> str:
    if not run.crossed:
        return ""
    return (
        f"Random streams are crossed ({', '.join(run.crossed)}): runs of a setting share some of them, so they are not "
        "independent, and intervals that take them for independent are too narrow."
    )


def _unshuffled(run: Run) -> str:
    if run.trials["shuffle"].astype(str).isin(["True", "1"]).all():
        return ""
    return (
        "Training images are not shuffled (train.shuffle): every epoch sees the same batches, which may teach their "
        "order, and another seed does not change it."
    )


def _one_class(run: Run) -> str:
    return "" if len(run.classes) > 1 else "There is one class: any network is right about every image."


def _absent_classes(run: Run) -> str:
    if run.labels is None:
        return ""
    tested = {*run.labels.tolist()}
    absent = [name for label, name in enumerate(run.classes) if label not in tested]
    if not absent:
        return ""
    return (
        f"Of {len(run.classes)} classes, {len(absent)} ({first_three(absent)}) have no test image: macro "
        "precision, recall and F1 count each of them as 0, so that a network without a fault falls short of 1."
    )


def _unscaled(run: Run) -> str:
    if _data(run).get("normalisation") != "none":
        return ""
    return (
        "Pixels are not scaled (data.normalisation = none): values of 0 to 255 make training depend on the learning "
        "rate more than on the network."
    )


def _augmented_test(run: Run) -> str:
    if not _data(run).get("augment_test"):
        return ""
    return (
        "Test images are augmented (data.augment_test), each once, alike for all trials: test figures are not those of "
        "the images as they are."
    )


def _stored_validation(run: Run) -> str:
    if _data(run).get("stored_augment", "none") == "none" or not run.data.get("counts", {}).get("validation"):
        return ""
    return (
        "Validation images are stored in several versions each (data.stored_augment), test images are not: validation "
        "and test figures are of different kinds of images."
    )


def _unfinished(run: Run) -> str:
    if len(run.trials) >= run.planned:
        return ""
    return f"{len(run.trials)} of {run.planned} trials finished: the figures will change."


def _pooled_test(run: Run) -> str:
    if run.data.get("test_from") != "pooled":
        return ""
    return (
        "The data's own test set was pooled with its training images and cut anew (data.fractions): test figures are "
        "not comparable with published ones."
    )


def _training_subset(run: Run) -> str:
    examples = _data(run).get("train_examples")
    if not examples:
        return ""
    return (
        f"Trained on a subset of {examples:,} training images (data.train_examples): figures are not comparable with "
        "those of the whole data set."
    )


def _reading(run: Run) -> str:
    notes = run.data.get("notes")
    return f"How the data was read: {'; '.join(map(str, notes))}." if notes else ""


def _axis_without_effect(run: Run) -> str:
    if not (repeats := run.plan.get("repeats")):
        return ""
    where = ", and ".join(f"{axis} matters {where_it_matters(axis)}" for axis in repeats)
    return f"Not every axis has an effect everywhere ({where}): what would train alike was trained once."


RULES = (
    Rule("selection-on-test", "error", _selection_on_test),
    Rule("validation-is-test", "error", _validation_is_test),
    Rule("early-stopping-on-test", "error", _early_stopping_on_test),
    Rule("single-seed", "error", _single_seed),
    Rule("one-class", "error", _one_class),
    Rule("spread-of-settings", "warning", _spread_of_settings),
    Rule("selection-on-train", "warning", _selection_on_train),
    Rule("validation-from-test", "warning", _validation_from_test),
    Rule("diverged-left-out", "warning", _diverged),
    Rule("stuck", "warning", _stuck),
    Rule("at-chance", "warning", _at_chance),
    Rule("absent-classes", "warning", _absent_classes),
    Rule("fixed-streams", "warning", _fixed_streams),
    Rule("crossed-streams", "warning", _crossed_streams),
    Rule("unshuffled", "warning", _unshuffled),
    Rule("unscaled", "warning", _unscaled),
    Rule("augmented-test", "warning", _augmented_test),
    Rule("augmented-validation", "warning", _stored_validation),
    Rule("selection-afterwards", "warning", _selection_afterwards),
    Rule("unfinished", "note", _unfinished),
    Rule("axis-without-effect", "note", _axis_without_effect),
    Rule("pooled-test", "note", _pooled_test),
    Rule("training-subset", "note", _training_subset),
    Rule("reading", "note", _reading),
)


def _chosen(run: Run) -> bool:
    return len(run.settings) > 1  # of one setting nothing was selected


def _data(run: Run) -> dict[str, Any]:
    return run.config.get("data", {})


def _streams(run: Run) -> dict[str, list[Any]]:
    """The seeds of each stream: [None] where it follows the trial's."""
    streams = run.config.get("streams", {}).items()
    return {name: seeds if isinstance(seeds, list) else [seeds] for name, seeds in streams}


def _several(run: Run, key: str) -> list[Any]:
    value = run.config.get("train", {}).get(key) or []
    return value if isinstance(value, list) else [value]
