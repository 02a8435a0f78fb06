"""Findings on the data: rules that a data set breaks, by the counts of `data.findings`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cnnjax.utils.text import counted

_FEW = 10  # training images of a class
_STRONG = 4  # ratio of the most frequent class to the rarest


class Finding(NamedTuple):
    """A rule that a run or its data breaks.

    Attributes:
        name: of the rule.
        severity: `error` if results are biased or a claim is not supported, `warning` if they say less than they
            seem to, `note` if they are not comparable with others or will change.
        sentence: for the reader; one sentence.
    """

    name: str
    severity: str
    sentence: str


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sorts findings by severity."""
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def first_three(names: Sequence[str], separator: str = ", ") -> str:
    """Joins the first three names, with an ellipsis if there are more."""
    return separator.join([*names[:3], "..."] if len(names) > 3 else names)


def check_data(examined: Mapping[str, Any], classes: Sequence[str]) -> list[Finding]:
    """Returns the rules that a data set breaks, the worst first.

    Args:
        examined: the counts of `data.findings.examine`.
        classes: the class names.
    """
    return worst_first([*_classes(examined["class_counts"], classes), *_images(examined, classes)])


def _classes(counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Iterator[Finding]:
    train, test = counts["train"], counts["test"]
    if absent := [name for name, count in zip(classes, train, strict=True) if not count]:
        of = f"{len(absent)} of {len(classes)} classes ({first_three(absent)})"
        said = f"There is no training image of {of}: no network can learn them."
        yield Finding("untrained-classes", "error", said)
    if small := [name for name, count in zip(classes, train, strict=True) if 0 < count < _FEW]:
        of = f"{len(small)} of {len(classes)} classes ({first_three(small)})"
        said = f"There are fewer than {_FEW} training images of {of}: their test results are mostly chance."
        yield Finding("small-classes", "warning", said)
    there = [count for count in train if count]
    if len(there) > 1 and max(there) >= _STRONG * min(there):
        most, share = classes[test.index(max(test))], 100 * max(test) / sum(test)
        said = (
            f"Classes are unequal, with {min(there):,} to {max(there):,} training images: always predicting {most} has "
            f"a test accuracy of {share:.1f} %, which a network must exceed to have learned anything."
        )
        yield Finding("imbalance", "warning", said)


def _images(examined: Mapping[str, Any], classes: Sequence[str]) -> Iterator[Finding]:
    images = sum(examined["class_counts"]["train"])
    if examined["distinct"] < 2 <= images:
        yield Finding("equal-images", "error", f"All {images:,} training images are equal.")
    if shared := [(*pair.split("/"), count) for pair, count in examined["in_two_splits"].items() if count]:
        which = ", ".join(f"{counted(count, f'{other} image')} also in {one}" for one, other, count in shared)
        said = f"Identical images are in two splits ({which}): a network may have memorized them."
        yield Finding("in-two-splits", "warning", said)
    if number := examined["two_labels"]["images"]:
        pairs = ", ".join(" and ".join(classes[k] for k in pair) for pair in examined["two_labels"]["pairs"])
        have = "image has" if number == 1 else "images have"
        said = f"{number:,} {have} identical copies with another label ({pairs}): at most one of the labels is right."
        yield Finding("two-labels", "warning", said)
    if flat := [counted(count, f"{split} image") for split, count in examined["flat"].items() if count]:
        yield Finding(
            "flat-images", "warning", f"Some images have a single color ({', '.join(flat)}): they show nothing."
        )
