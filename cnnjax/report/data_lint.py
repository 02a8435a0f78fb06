"""Rules that a data set should keep, checked on the counts of `data.findings`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cnnjax.types import counted

_FEW = 10  # training images of a class
_STRONG = 4  # times as many images of the most frequent class as of the rarest


class Finding(NamedTuple):
    """A rule that a run, or its data, breaks.

    `severity` is `error` where a figure of the report is biased or a claim is not supported, `warning` where it says
    less than it seems to, `note` where it must not be compared with others or will change.
    """

    name: str
    severity: str
    sentence: str


class Rule(NamedTuple):
    """`check` returns one sentence, or an empty text where the rule is kept."""

    name: str
    severity: str
    check: Callable[..., str]


def broken(rules: Iterable[Rule], *arguments: Any) -> list[Finding]:
    """Returns a finding for each rule whose check, called with these arguments, returns a sentence."""
    return [Finding(rule.name, rule.severity, said) for rule in rules if (said := rule.check(*arguments))]


def check_data(examined: Mapping[str, Any], classes: Sequence[str]) -> list[Finding]:
    """Returns the faults of a data set, the worst first.

    Args:
        examined: the counts of `data.findings.examine`.
        classes: the class names.
    """
    return worst_first(broken(DATA_RULES, examined, classes))


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sorts findings by severity."""
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def _untrained_classes(examined: Mapping[str, Any], classes: Sequence[str]) -> str:
    counts = examined["class_counts"]["train"]
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not absent:
        return ""
    of = f"{len(absent)} of {len(classes)} classes ({first_three(absent)})"
    return f"There is no training image of {of}: no network can learn to name them."


def _small_classes(examined: Mapping[str, Any], classes: Sequence[str]) -> str:
    counts = examined["class_counts"]["train"]
    small = [name for name, count in zip(classes, counts, strict=True) if 0 < count < _FEW]
    if not small:
        return ""
    of = f"{len(small)} of {len(classes)} classes ({first_three(small)})"
    return f"There are fewer than {_FEW} training images of {of}: what the test split says of them is mostly chance."


def _imbalance(examined: Mapping[str, Any], classes: Sequence[str]) -> str:
    train, test = (examined["class_counts"][split] for split in ("train", "test"))
    there = [count for count in train if count]
    if len(there) < 2 or max(there) < _STRONG * min(there):
        return ""
    most = classes[test.index(max(test))]
    share = 100 * max(test) / sum(test)
    return (
        f"Classes are unequal: {min(there):,} to {max(there):,} training images, so that always naming {most} has a "
        f"test accuracy of {share:.1f} %, which a network must exceed to have learned anything."
    )


def _equal_images(examined: Mapping[str, Any], classes: Sequence[str]) -> str:
    images = sum(examined["class_counts"]["train"])
    return "" if examined["distinct"] > 1 or images < 2 else f"All {images:,} training images are equal."


def _flat_images(examined: Mapping[str, Any], classes: Sequence[str]) -> str:
    flat = [f"{counted(count, f'{split} image')}" for split, count in examined["flat"].items() if count]
    if not flat:
        return ""
    return f"There are images of one color alone ({', '.join(flat)}): nothing can be seen on them."


def _in_two_splits(examined: Mapping[str, Any], classes: Sequence[str]) -> str:
    shared = [(*pair.split("/"), count) for pair, count in examined["in_two_splits"].items() if count]
    if not shared:
        return ""
    which = ", ".join(f"{counted(count, f'{other} image')} also in {one}" for one, other, count in shared)
    return f"Images stand in two splits, every pixel alike ({which}): a network may know them by heart."


def _two_labels(examined: Mapping[str, Any], classes: Sequence[str]) -> str:
    found = examined["two_labels"]
    if not found["images"]:
        return ""
    pairs = ", ".join(" and ".join(classes[label] for label in pair) for pair in found["pairs"])
    stand = "image stands" if found["images"] == 1 else "images stand"
    return f"{found['images']:,} {stand} under two labels or more, every pixel alike ({pairs}): one of them is wrong."


DATA_RULES = (
    Rule("untrained-classes", "error", _untrained_classes),
    Rule("equal-images", "error", _equal_images),
    Rule("in-two-splits", "warning", _in_two_splits),
    Rule("two-labels", "warning", _two_labels),
    Rule("small-classes", "warning", _small_classes),
    Rule("imbalance", "warning", _imbalance),
    Rule("flat-images", "warning", _flat_images),
)


def first_three(names: Sequence[str], separator: str = ", ") -> str:
    """Joins the first three names, and an ellipsis where there are more."""
    return separator.join([*names[:3], "..."] if len(names) > 3 else names)
