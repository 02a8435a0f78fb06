"""What two settings' trials and predictions say, and what else differs between them."""

import dataclasses
from typing import Any

import numpy as np

from cnnjax import stats
from cnnjax.comparison.sides import Side
from cnnjax.environment import lasting
from cnnjax.nested import differences
from cnnjax.report.names import AXES, bounds, larger_is_better
from cnnjax.report.run import Run
from cnnjax.types import RequestError

_TEST = ("test_loss", "test_accuracy", "precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that is known of A beside B.

    Attributes:
        a: one side.
        b: the other.
        measure: what is compared.
        summaries: of the measure, of A and of B.
        comparison: of the measure over seeds.
        examples: None where predictions are not stored, or are of other examples.
        warnings: what to know before the numbers.
        settings: axes in which the settings differ, with both values.
        configs: other keys in which the studies differ; axes of their grids do not count.
        environments: keys in which the environments differ.
    """

    a: Side
    b: Side
    measure: str
    summaries: tuple[stats.Summary, stats.Summary]
    comparison: stats.Comparison
    examples: stats.Disagreement | None
    warnings: list[str]
    settings: dict[str, tuple[Any, Any]]
    configs: dict[str, tuple[Any, Any]]
    environments: dict[str, tuple[Any, Any]]


def compare_settings(a: Side, b: Side, measure: str | None = None, margin: float | None = None) -> Evidence:
    """Compares two settings by all that their runs' files say.

    Args:
        a: one side.
        b: the other.
        measure: a column of trials.csv; None for what both runs select by, as their reports do, if that is one measure
            of the same data; else the test accuracy.
        margin: the difference, in the measure's unit, that is too small to matter.

    Raises:
        RequestError: A and B are the same trials, or have no such measure, or were tested on different images; or the
            margin is no positive number that the measure could differ by; or trainings of a side share crossed streams.
    """
    if a.run.workdir.resolve() == b.run.workdir.resolve() and set(a.trials["trial"]) & set(b.trials["trial"]):
        raise RequestError(
            "arguments", f"{a.asked} {b.asked}", "they pick the same trials; pick two settings: RUN:model=baseline"
        )
    measure = measure or _shared_measure(a.run, b.run)
    least, most = bounds(measure)
    if margin is not None and not 0 < margin < most - least:
        allowed = "a number > 0" + (" and < 1: 0.005 is half a percentage point" if most == 1 else "")
        raise RequestError("--margin", margin, f"allowed: {allowed}")
    for side in (a, b):
        if side.crossed:
            how = f"its trainings share random streams ({', '.join(side.crossed)}), so they are not independent"
            raise RequestError("arguments", side.asked, f"{how}; allowed: trials whose streams are not crossed")
    values = a.values(measure), b.values(measure)
    warnings = [*_data_warnings(a, b, measure), *_side_warnings(a, "A"), *_side_warnings(b, "B")]
    comparison = stats.compare(
        *values,
        margin=margin,
        larger_is_better=larger_is_better(measure),
        most=most - least,
        pair=_pairing_helps(a, b, measure),
    )
    summary_a, summary_b = (stats.summarise([*side.values()], (least, most)) for side in values)
    config_a, config_b = (_beside_the_grid(side.run.config) for side in (a, b))
    configs = differences(config_a, config_b)
    if _have_same_data(a, b):
        configs.pop("data.path", None)
    environment_a, environment_b = (lasting(side.run.environment) for side in (a, b))
    axes_a, axes_b = (side.run.settings.loc[side.setting, list(AXES)].to_dict() for side in (a, b))
    return Evidence(
        a=a,
        b=b,
        measure=measure,
        summaries=(summary_a, summary_b),
        comparison=comparison,
        examples=_examples(a, b),
        warnings=warnings,
        settings={key: pair for key, pair in differences(axes_a, axes_b).items() if str(pair[0]) != str(pair[1])},
        configs=configs | _networks(a.run.config, b.run.config),
        environments=differences(environment_a, environment_b),
    )


def _pairing_helps(a: Side, b: Side, measure: str) -> bool:
    """Asks all settings of both runs that have the seeds that A and B share, as the report of one run does."""
    seeds = [seed for seed in a.values(measure) if seed in b.values(measure)]
    every = {
        (side.run.workdir.resolve(), setting): side.run.by_seed(setting, measure)
        for side in (a, b)
        for setting in side.run.settings.index
    }
    groups = {key: {seed: of[seed] for seed in seeds} for key, of in every.items() if set(seeds) <= set(of)}
    return bool(seeds) and stats.pairing_helps(groups)


def _shared_measure(a: Run, b: Run) -> str:
    return a.select if a.select == b.select and _data(a) == _data(b) else "test_accuracy"


def _data(run: Run) -> dict[str, Any]:
    return {**run.data, "examined": None}  # which older runs lack


def _examples(a: Side, b: Side) -> stats.Disagreement | None:
    if a.run.labels is None or b.run.labels is None or not np.array_equal(a.run.labels, b.run.labels):
        return None
    if a.logits is None or b.logits is None:
        return None
    return stats.compare_predictions(a.logits, b.logits, a.run.labels)


def _data_warnings(a: Side, b: Side, measure: str) -> list[str]:
    """What is not the same in the data; raises where figures of different test sets would be compared."""
    one, other = _data(a.run), _data(b.run)
    seen = [side.run.config.get("data", {}) for side in (a, b)]
    augmented = [config.get("augment", []) if config.get("augment_test") else [] for config in seen]
    warnings = []
    if measure.startswith("train"):
        warnings.append(
            "The measure is of training images, and says nothing of new ones: --measure=test_accuracy does."
        )
    if augmented[0] != augmented[1]:
        warnings.append("THE TEST IMAGES DIFFER as the networks see them: data.augment_test augments those of one run.")
    if _have_same_data(a, b):  # whatever the file or folder is called
        one, other = ({key: value for key, value in data.items() if key != "name"} for data in (one, other))
    if one == other:
        return warnings
    keys = ("name", "classes", "counts", "image_shape", "validation_from", "test_from")
    what = ", ".join(key for key in keys if one.get(key) != other.get(key)) or "their pixels, labels or order"
    if measure in _TEST and (one["classes"] != other["classes"] or not _may_be_tested_alike(a, b)):
        how = "their figures say nothing of each other; allowed: runs with the same test images"
        raise RequestError("arguments", f"{a.asked} {b.asked}", f"they were tested on different images ({what}); {how}")
    tests = one.get("test_sha256"), other.get("test_sha256")
    if None in tests:
        tested = "Whether the test images do, too, is not known."
    else:
        otherwise = "THE TEST IMAGES HAVE ANOTHER SIZE, OR GOT IT IN ANOTHER WAY; their labels are the same."
        tested = "The test images are the same." if tests[0] == tests[1] else otherwise
    return [*warnings, f"THE DATA DIFFER: {what}. {tested}"]


def _have_same_data(a: Side, b: Side) -> bool:
    return a.run.data.get("sha256") is not None and a.run.data["sha256"] == b.run.data.get("sha256")


def _may_be_tested_alike(a: Side, b: Side) -> bool:
    """Whether the test images are the same, or may be, brought to another size or in another way."""
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
            "independent ones, and another seed of these could turn the answer."
        )
    if side.diverged:
        total = side.diverged + len(side.trials)
        found.append(f"{side.diverged} of {total} trials of {name} diverged and do not count: {name} is flattered.")
    if side.rivals > 1:
        select = side.run.select
        split = " ON THE TEST SPLIT" if select in _TEST else ""
        found.append(
            f"{name} is the best of {side.rivals} settings by {select}{split}, on these very seeds: luck helped to "
            "pick it, and its figure is optimistic. Fresh seeds tell: python -m cnnjax.launch ... --confirm=5."
        )
    if side.run.planned > len(side.run.trials):
        found.append(f"{name}'s run has finished {len(side.run.trials)} of {side.run.planned} trials.")
    return found


def _beside_the_grid(config: dict[str, Any]) -> dict[str, Any]:
    """A study's config without the axes of its grid, of which the settings say more."""
    return {key: value for key, value in config.items() if key not in ("models", "networks", "seeds", "train")}


def _networks(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The layers that differ between networks of one name."""
    names = one.get("networks", {}).keys() & other.get("networks", {}).keys()
    a, b = ({name: _numbered(config["networks"][name]) for name in names} for config in (one, other))
    return differences(a, b, "networks.")


def _numbered(layers: list[str]) -> dict[str, str]:
    return {f"layer {number}": layer for number, layer in enumerate(layers, 1)}
