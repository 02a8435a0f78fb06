"""A comparison as text, as Markdown, and as JSON: the answer first."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnnjax import stats
from cnnjax.comparison.evidence import Evidence
from cnnjax.nested import finite
from cnnjax.report.names import measure_name
from cnnjax.stats import amount, gap, span
from cnnjax.types import counted

_SPECIAL = re.compile(r"([|$<`*])")  # in Markdown


class Section(NamedTuple):
    """Rows of a label and one or two texts."""

    title: str
    rows: Sequence[tuple[str, ...]]


def _headline(evidence: Evidence) -> str:
    return stats.verdict_sentence(evidence.comparison, evidence.measure, name=measure_name(evidence.measure))


def _sections(evidence: Evidence) -> list[Section]:
    sections = [_sides(evidence), _seeds(evidence)]
    if evidence.examples is not None:
        sections.append(_examples(evidence.examples))
    groups = {
        "What differs between the settings": evidence.settings,
        "What else differs between the studies": evidence.configs,
        "What differs between the environments": evidence.environments,
    }
    for title, found in groups.items():
        if found:
            sections.append(
                Section(title, [("", "A", "B"), *((k, _short(a), _short(b)) for k, (a, b) in found.items())])
            )
    return sections


def _sides(evidence: Evidence) -> Section:
    rows: list[tuple[str, ...]] = [("", "A", "B")]
    (a, b), measure = evidence.summaries, evidence.measure
    rows.append(("run", evidence.a.place, evidence.b.place))
    rows.append(("setting", evidence.a.description, evidence.b.description))
    rows.append(("seeds", str(a.n), str(b.n)))
    for name, text in (
        ("mean", lambda s: amount(s.mean, measure)),
        ("std across seeds", lambda s: amount(s.std, measure)),
        ("95 % t interval", lambda s: _range(s.low, s.high, measure)),
        ("interquartile mean", lambda s: amount(s.iqm, measure)),
        ("95 % bootstrap", lambda s: _range(s.iqm_low, s.iqm_high, measure)),
        ("range", lambda s: _range(s.min, s.max, measure)),
    ):
        rows.append((name, text(a), text(b)))
    return Section(measure_name(measure), rows)


def _seeds(evidence: Evidence) -> Section:
    found, measure = evidence.comparison, evidence.measure
    n, m = len(found.a), len(found.b)
    design = f"paired by seed, {n} pairs" if found.paired else f"not paired (Welch), {n} and {m} seeds"
    if unpaired := sum(summary.n for summary in evidence.summaries) - n - m:
        design += f"; trials without a partner do not count: {unpaired}"
    rows = [
        ("design", design),
        ("difference", f"{gap(found.difference.value, measure)}, 95 % interval {span(found.interval, measure)}"),
    ]
    if found.difference.standard_error > 0:
        least = found.least_permutation_p
        test = "sign flips" if found.paired else "permutations"
        share, low, high = (f"{100 * value:.0f}" for value in found.beats)
        rows += [
            ("p, t test", f"{found.difference.p:.3g}"),
            (f"p, {test}", f"{found.permutation_p:.3g} (with so many seeds it cannot be smaller than {least:.2g})"),
            ("A beats B", f"in {share} % of trainings (95 % interval {low} to {high} %)"),
            ("effect size", f"{found.effect_size:+.2f} standard deviations across seeds (Hedges' g)"),
        ]
    if found.verdict == "undecided" and found.difference.standard_error > 0:
        rows.append(("to decide", stats.what_decides(found)))
    return Section("Over seeds", rows)


def _examples(found: stats.Disagreement) -> Section:
    together, churn = found.mcnemar, found.churn
    rows = [
        ("disagree", f"{_percent(churn.between)} of test images, two networks of A and B"),
        ("two seeds disagree", f"{_percent(churn.within_a)} of A, {_percent(churn.within_b)} of B"),
        (
            "only A right",
            f"{counted(together.only_a, 'test image')} (all seeds of a side together)",
        ),
        ("only B right", f"{together.only_b:,}"),
        ("p, McNemar", f"{together.p:.3g}, exact: these networks, other test images"),
        (
            "over test images",
            f"95 % interval of the difference {span(found.interval, 'accuracy')}: these seeds, other test images",
        ),
    ]
    for name, spread in zip("AB", found.spreads, strict=True):
        if spread is not None:
            here, low, high = (spread.test_set_std, spread.distribution_low, spread.distribution_high)
            text = f"{100 * here:.2f} points on this test set, {100 * spread.distribution_std:.2f} on all data like it"
            between = "" if math.isnan(low) else f" (95 % interval {100 * low:.2f} to {100 * high:.2f})"
            rows.append((f"std of {name}", text + between))
    return Section("On single test images", rows)


def to_text(evidence: Evidence) -> str:
    """The comparison for a terminal."""
    blocks = [_headline(evidence), *(f"warning: {warning}" for warning in evidence.warnings)]
    for section in _sections(evidence):
        places = range(max(map(len, section.rows)))
        widths = [max((len(row[i]) for row in section.rows if i < len(row)), default=0) for i in places]
        lines = [
            "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)).rstrip() for row in section.rows
        ]
        blocks.append("\n".join([section.title, *(f"  {line}" for line in lines)]))
    return "\n\n".join(blocks)


def to_markdown(evidence: Evidence) -> str:
    """The comparison for a README or a pull request."""
    blocks = [f"**{_headline(evidence)}**", *(f"> {warning}" for warning in evidence.warnings)]
    for section in _sections(evidence):
        head, *rest = section.rows if not section.rows[0][0] else [("", ""), *section.rows]
        lines = [head, tuple("---" for _ in head), *rest]
        table = ["| " + " | ".join(_SPECIAL.sub(r"\\\1", cell) for cell in line) + " |" for line in lines]
        blocks.append("\n".join([f"#### {section.title[0].upper()}{section.title[1:]}", "", *table]))
    return "\n\n".join(blocks)


def to_json(evidence: Evidence) -> str:
    """The comparison as one JSON object; what is not known is null."""
    found = evidence.comparison
    has_spread = found.difference.standard_error > 0
    sides = {
        name: {
            "run": side.place,
            "setting": side.description,
            "trials": side.trials["trial"].tolist(),
            "diverged": side.diverged,
            "rivals": side.rivals,
            "summary": dataclasses.asdict(summary),
        }
        for name, side, summary in zip("ab", (evidence.a, evidence.b), evidence.summaries, strict=True)
    }
    document = {
        "verdict": found.verdict,
        "sentence": _headline(evidence),
        "warnings": evidence.warnings,
        "measure": evidence.measure,
        "margin": found.margin,
        **sides,
        "paired": found.paired,
        "difference": found.difference._asdict() | found.interval._asdict() | {"p": found.difference.p},
        "permutation_p": found.permutation_p if has_spread else None,
        "least_permutation_p": found.least_permutation_p,
        "a_beats_b": found.beats._asdict(),
        "effect_size": found.effect_size,
        "more_seeds": found.more_seeds if found.verdict == "undecided" else None,
        "examples": _examples_json(evidence.examples),
        "differences": {
            "settings": evidence.settings,
            "studies": evidence.configs,
            "environments": evidence.environments,
        },
    }
    return json.dumps(finite(document), indent=1)


def _examples_json(found: stats.Disagreement | None) -> dict[str, Any] | None:
    if found is None:
        return None
    churn = found.churn._asdict()
    del churn["by_example"]
    spreads = {name: spread and spread._asdict() for name, spread in zip("ab", found.spreads, strict=True)}
    return {
        "mcnemar": found.mcnemar._asdict(),
        "churn": churn,
        "interval": found.interval._asdict(),
        "spreads": spreads,
    }


def _range(low: float, high: float, measure: str) -> str:
    return "–" if math.isnan(low) else f"{amount(low, measure)} to {amount(high, measure)}"


def _percent(value: float) -> str:
    return amount(value, "accuracy")


def _short(value: Any) -> str:
    text = "–" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


FORMATS: dict[str, Callable[[Evidence], str]] = {"text": to_text, "markdown": to_markdown, "json": to_json}
