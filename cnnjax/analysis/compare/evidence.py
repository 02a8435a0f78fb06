"""The comparison of two configurations by their trials and predictions, and what else differs between them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from cnnjax import stats
from cnnjax.analysis.columns import bounds, larger_is_better
from cnnjax.analysis.compare.sides import Side
from cnnjax.analysis.evidence import every_stuck_seed, scale_of, trained_values
from cnnjax.analysis.looks import count_looks
from cnnjax.analysis.run import Run
from cnnjax.runs.environment import comparable
from cnnjax.study.augmentation import NONE
from cnnjax.study.hparams import HPARAMS
from cnnjax.utils.errors import RequestError
from cnnjax.utils.tree import differences

_ONE_SEED = "The test takes the spread of the other configurations for its spread; train more seeds to measure it."


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The comparison of A with B.

    Attributes:
        a: one side.
        b: the other side.
        measure: the measure that is compared.
        summaries: summaries of the measure over the seeds of A and of B.
        comparison: the comparison of the measure over seeds.
        examples: the comparison on single test images; None without stored predictions of the same images.
        warnings: limits of the comparison.
        configurations: the axes in which the configurations differ, with both values.
        configs: other keys in which the studies differ, without the axes of their grids.
        environments: keys in which the environments differ.
    """

    a: Side
    b: Side
    measure: str
    summaries: tuple[stats.Summary, stats.Summary]
    comparison: stats.Comparison
    examples: stats.Disagreement | None
    warnings: list[str]
    configurations: dict[str, tuple[Any, Any]]
    configs: dict[str, tuple[Any, Any]]
    environments: dict[str, tuple[Any, Any]]


def compare_configurations(a: Side, b: Side, measure: str | None = None, margin: float | None = None) -> Evidence:
    """Compares two configurations by the files of their runs.

    Args:
        a: one side.
        b: the other side.
        measure: a column of trials.csv. None is the measure that both runs select by, or the test accuracy if they
            select by different measures or have different data.
        margin: the largest difference, in the measure's unit, that does not matter.

    Raises:
        RequestError: A and B are the same trials, lack the measure, were tested on different images or share crossed
            streams; or the margin is not a possible difference.
    """
    if a.run.workdir.resolve() == b.run.workdir.resolve() and set(a.trials["trial"]) & set(b.trials["trial"]):
        raise RequestError(
            "arguments",
            f"{a.asked} {b.asked}",
            "both are the same trials; use two configurations, as RUN:model=baseline",
        )
    measure = measure or _shared_measure(a.run, b.run)
    values = a.values(measure), b.values(measure)
    least, most = bounds(measure)
    if margin is not None and not 0 < margin < most - least:
        at_most = " and < 1; 0.005 is half a percentage point" if most == 1 else ""
        raise RequestError("--margin", margin, f"must be > 0{at_most}")
    for side in (a, b):
        if side.crossed:
            how = f"its trainings share random streams ({', '.join(side.crossed)}), so they are not independent"
            raise RequestError("arguments", side.asked, f"{how}; use trials whose streams are not crossed")
    warnings = [*_data_warnings(a, b, measure), *_side_warnings(a, "A"), *_side_warnings(b, "B")]
    comparison = compare_sides(a, b, measure, margin=margin)
    if comparison.has_spread:  # that of other configurations, for a side with one seed
        sides = (("A", comparison.a), ("B", comparison.b))
        warnings += [f"{name} has one seed. {_ONE_SEED}" for name, sample in sides if len(sample) == 1]
    summary_a, summary_b = (stats.summarize([*side.values()], (least, most)) for side in values)
    configs = differences(_beside_the_grid(a.run.config), _beside_the_grid(b.run.config))
    if _have_same_data(a, b):
        configs.pop("data.path", None)
    axes_a, axes_b = (side.run.configurations.loc[side.configuration, side.run.axes].to_dict() for side in (a, b))
    return Evidence(
        a=a,
        b=b,
        measure=measure,
        summaries=(summary_a, summary_b),
        comparison=comparison,
        examples=_examples(a, b),
        warnings=warnings,
        configurations={
            key: pair for key, pair in differences(axes_a, axes_b).items() if str(pair[0]) != str(pair[1])
        },  # not NaN and NaN
        configs=configs | _networks(a.run.config, b.run.config),
        environments=differences(comparable(a.run.environment), comparable(b.run.environment)),
    )


def compare_sides(a: Side, b: Side, measure: str, runs: Iterable[Run] = (), **options: Any) -> stats.Comparison:
    """Compares two sides over their seeds, with spreads moderated by those of all configurations of their runs.

    Args:
        a: one side.
        b: the other side.
        measure: the measure.
        runs: further runs whose spreads count.
        options: further attributes of the comparison.
    """
    scale, (least, most) = scale_of(a.run, measure), bounds(measure)
    split = [stats.split_stuck(side.values(measure), side.stuck) for side in (a, b)]
    trained, left_out = zip(*split, strict=True)
    every = {
        (run.workdir.resolve(), configuration): dict(zip(of, scale.apply([*of.values()]), strict=True))
        for run in (a.run, b.run, *runs)
        for configuration, of in trained_values(run, measure).items()
        if of
    }
    shared = [seed for seed in trained[0] if seed in trained[1]]
    same = {key: {seed: of[seed] for seed in shared} for key, of in every.items() if {*shared} <= {*of}}
    pair = bool(shared) and stats.pairing_helps(same)
    found = stats.compare(
        *trained,
        larger_is_better=larger_is_better(measure),
        most=most - least,
        pair=pair,
        scale=scale,
        stuck=left_out,
        share=min(count_looks(run).share for run in (a.run, b.run)),
        luck=_bad_luck(a, b, runs),
        **options,
    )
    if found.is_identical or max(len(found.a), len(found.b)) < 2:
        return found
    of_family = same if pair and found.paired else every
    samples = [np.array([*of.values()]) for of in of_family.values()]
    prior = stats.borrow(samples, found.paired and pair, scale, one_pair=True)
    return dataclasses.replace(found, prior=prior)


def _bad_luck(a: Side, b: Side, runs: Iterable[Run]) -> float:
    """Returns the probability that all trials of a side are stuck by bad luck, of both sides the larger one.

    It is 0 if both sides have trials that trained.
    """
    stuck = {name: (len(side.trials),) * 2 for name, side in (("A", a), ("B", b)) if side.is_stuck}
    if not stuck:
        return 0.0
    counts = {
        (run.workdir.resolve(), number): (len(every_stuck_seed(run, number)), len(run.keys(number)))
        for run in (a.run, b.run, *runs)
        for number in run.configurations.index
    }
    found = stats.bad_luck(counts | stuck)
    return max(found[name] for name in stuck)


def _shared_measure(a: Run, b: Run) -> str:
    return a.select if a.select == b.select and _data(a) == _data(b) else "test_accuracy"


def _data(run: Run) -> dict[str, Any]:
    """Returns data.json without what older runs lack, and without the splits of each trial."""
    return {key: value for key, value in run.data.items() if key not in ("examined", "splits", "test_splits")}


def _examples(a: Side, b: Side) -> stats.Disagreement | None:
    if a.run.labels is None or b.run.labels is None or not np.array_equal(a.run.labels, b.run.labels):
        return None
    if not a.logits or not b.logits:
        return None
    return stats.compare_predictions(a.logits, b.logits, a.run.labels)


def _data_warnings(a: Side, b: Side, measure: str) -> list[str]:
    """Returns warnings on differing data; raises RequestError for results on different test images."""
    one, other = _data(a.run), _data(b.run)
    augmented = [_augment_of_test(side) for side in (a, b)]
    warnings = []
    if measure.startswith("train"):
        warnings.append(
            "The measure is of training images, and says nothing of new ones; for these: --measure=test_accuracy."
        )
    if augmented[0] != augmented[1]:
        warnings.append("THE TEST IMAGES DIFFER as the networks see them: data.augment_test augments those of one run.")
    views = [side.run.config.get("data", {}).get("test_time_augment", NONE) for side in (a, b)]
    if views[0] != views[1]:
        warnings.append(f"THE PREDICTIONS DIFFER in test-time augmentation: {views[0]} and {views[1]}.")
    if _have_same_data(a, b):  # under any name of the file or folder, and whatever the splits of the first trial
        left_out = ("name", "sha256", "test_sha256", "mean", "std")
        one, other = ({key: value for key, value in data.items() if key not in left_out} for data in (one, other))
    if one == other:
        return warnings
    keys = ("name", "classes", "counts", "image_shape", "validation_from", "test_from")
    what = ", ".join(key for key in keys if one.get(key) != other.get(key)) or "their pixels, labels or order"
    if measure.startswith("test_") and (one["classes"] != other["classes"] or not _may_be_tested_alike(a, b)):
        said = f"they were tested on different images ({what}); use runs with the same test images"
        raise RequestError("arguments", f"{a.asked} {b.asked}", said)
    tests = one.get("test_sha256"), other.get("test_sha256")
    if None in tests:
        tested = "It is unknown whether the test images differ."
    elif tests[0] == tests[1]:
        tested = "The test images are the same."
    else:
        tested = "THE TEST IMAGES HAVE ANOTHER SIZE, OR WERE RESIZED IN ANOTHER WAY; their labels are the same."
    return [*warnings, f"THE DATA DIFFER: {what}. {tested}"]


def _augment_of_test(side: Side) -> str:
    """Returns the augmentation of the test images of a side."""
    augments = side.run.config.get("data", {}).get("augment_test")
    return str(side.run.configurations.loc[side.configuration, "augment"]) if augments else NONE


def _have_same_data(a: Side, b: Side) -> bool:
    pairs = ((side.run.data.get(key) for side in (a, b)) for key in ("sha256", "source_sha256"))
    return any(one is not None and one == other for one, other in pairs)


def _may_be_tested_alike(a: Side, b: Side) -> bool:
    """Whether the test images may be the same, in the same or another size."""
    one, other = a.run.data, b.run.data
    tests = one.get("test_sha256"), other.get("test_sha256")
    if None not in tests:
        sizes = [[side.run.config.get("data", {}).get(key) for key in ("image_size", "resize")] for side in (a, b)]
        if tests[0] == tests[1]:
            return True
        if sizes[0] == sizes[1] and one.get("image_shape") == other.get("image_shape"):
            return False
    if a.run.labels is not None and b.run.labels is not None:
        return np.array_equal(a.run.labels, b.run.labels)
    return one.get("counts", {}).get("test") == other.get("counts", {}).get("test")


def _side_warnings(side: Side, name: str) -> list[str]:
    found = []
    if side.fixed:
        found.append(
            f"All trainings of {name} share random streams ({', '.join(side.fixed)}): they spread less than "
            "independent ones, and another seed of these streams may reverse the verdict."
        )
    if side.run.folds:
        found.append(f"{name}: {side.run.folds_note.strip()}")
    if side.diverged:
        total = side.diverged + len(side.trials)
        found.append(f"{side.diverged} of {total} trials of {name} diverged and are left out, which favors {name}.")
    if stuck := len(side.stuck):
        found.append(
            f"{stuck} of {len(side.trials)} trials of {name} never left chance. They count in its mean and not in the "
            "test, which needs trained networks."
        )
    if side.rivals > 1:
        select = side.run.select
        split = " ON THE TEST SPLIT" if side.run.selects_on_test else ""
        found.append(
            f"{name} is the best of {side.rivals} configurations by {select}{split} on these seeds, so its result is "
            "optimistic. Confirm it on fresh seeds: python -m cnnjax.launch ... --confirm=5."
        )
    if side.run.planned > len(side.run.trials):
        found.append(f"{name}'s run has finished {len(side.run.trials)} of {side.run.planned} trials.")
    return found


def _beside_the_grid(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a study's config without the axes of its grid, which the configurations contain."""
    axes = [h.name for h in HPARAMS if h.group == "data" and not h.is_repeat]
    data = {key: value for key, value in config.get("data", {}).items() if key not in axes}
    left_out = ("models", "networks", "seeds", "train", "added", "looks", "metrics")  # metrics change no training
    rest = {key: value for key, value in config.items() if key not in left_out}
    return rest | {"data": data}


def _networks(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the layers that differ between networks of the same name."""
    names = one.get("networks", {}).keys() & other.get("networks", {}).keys()
    a, b = ({name: _numbered(config["networks"][name]) for name in names} for config in (one, other))
    return differences(a, b, "networks.")


def _numbered(layers: list[str]) -> dict[str, str]:
    return {f"layer {number}": layer for number, layer in enumerate(layers, 1)}
