"""A comparison as text, as Markdown and as JSON: the verdict first."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

from cnnjax import stats
from cnnjax.analysis.columns import measure_name
from cnnjax.analysis.compare.evidence import Evidence
from cnnjax.stats import amount, gap, span
from cnnjax.utils.text import counted
from cnnjax.utils.tree import finite

_SPECIAL = re.compile(r"([|$<`*])")  # in Markdown
_Rows = list[tuple[str, ...]]  # a label and one or two texts


def _headline(evidence: Evidence) -> str:
    return stats.verdict_sentence(evidence.comparison, evidence.measure, name=measure_name(evidence.measure))


def _sections(evidence: Evidence) -> dict[str, _Rows]:
    """Returns the rows of each section, by its title."""
    sections = {measure_name(evidence.measure): _sides(evidence), "Over seeds": _seeds(evidence)}
    if evidence.examples is not None:
        sections["On single test images"] = _examples(evidence.examples)
    differing = {
        "What differs between the configurations": evidence.configurations,
        "What else differs between the studies": evidence.configs,
        "What differs between the environments": evidence.environments,
    }
    for title, found in differing.items():
        rows: _Rows = [(key, _short(a), _short(b)) for key, (a, b) in found.items()]
        sections |= {title: [("", "A", "B"), *rows]} if rows else {}
    return sections


def _sides(evidence: Evidence) -> _Rows:
    measure, sides = evidence.measure, (evidence.a, evidence.b)
    rows: dict[str, Callable[[stats.Summary], str]] = {
        "seeds": lambda s: str(s.n),
        "mean": lambda s: amount(s.mean, measure),
        "std across seeds": lambda s: amount(s.std, measure),
        "95 % t interval": lambda s: _range(s.low, s.high, measure),
        "interquartile mean": lambda s: amount(s.iqm, measure),
        "95 % bootstrap": lambda s: _range(s.iqm_low, s.iqm_high, measure),
        "range": lambda s: _range(s.min, s.max, measure),
    }
    head = [
        ("", "A", "B"),
        ("run", *(side.place for side in sides)),
        ("configuration", *(s.description for s in sides)),
    ]
    return [*head, *((name, *map(text, evidence.summaries)) for name, text in rows.items())]


def _seeds(evidence: Evidence) -> _Rows:
    found, measure = evidence.comparison, evidence.measure
    n, m = len(found.a), len(found.b)
    unit = "fold" if evidence.a.run.folds else "seed"
    design = f"paired by {unit}, {n} pairs" if found.paired else f"not paired (Welch), {n} and {m} seeds"
    if unpaired := sum(summary.n for summary in evidence.summaries) - n - m:
        design += f"; trials without a partner do not count: {unpaired}"
    difference = f"{gap(found.difference, measure)}, 95 % interval {span(found.interval, measure)}"
    rows: _Rows = [("design", design), ("difference", difference)]
    if found.has_spread:
        least = found.least_permutation_p
        share, low, high = (f"{100 * value:.0f}" for value in found.beats)
        rows += [
            ("p, t test", f"{found.p:.3g}{_borrowed(found)}"),
            (
                f"p, {'sign flips' if found.paired else 'permutations'}",
                f"{found.permutation_p:.3g} (with this number of seeds it cannot be smaller than {least:.2g})",
            ),
            ("A beats B", f"in {share} % of trainings (95 % interval {low} to {high} %)"),
            ("effect size", f"{found.effect_size:+.2f} standard deviations across seeds (Hedges' g)"),
        ]
        rows += [("to decide", stats.what_decides(found))] if found.verdict == "undecided" else []
    return rows


def _borrowed(found: stats.Comparison) -> str:
    """Says on which scale the test is, and where its degrees of freedom come from."""
    scale = "" if found.scale.name == "identity" else f" ({found.scale.name} scale"
    borrowed = f"{found.tested.freedom:.3g} degrees of freedom, with the spreads of all configurations of the runs"
    return f"{scale}; {borrowed})" if scale and found.prior.freedom else f"{scale})" if scale else ""


def _examples(found: stats.Disagreement) -> _Rows:
    together = found.mcnemar
    between, of_a, of_b = (amount(value, "accuracy") for value in found.churn[:3])
    rows: _Rows = [
        ("disagree", f"{between} of test images, one network of A and one of B"),
        ("two seeds disagree", f"{of_a} of A, {of_b} of B"),
        ("only A right", f"{counted(together.only_a, 'test image')} (all seeds of a side together)"),
        ("only B right", f"{together.only_b:,}"),
        ("p, McNemar", f"{together.p:.3g}, exact: these networks, other test images"),
        ("over test images", f"95 % interval of the difference {span(found.interval, 'accuracy')}, these seeds fixed"),
    ]
    for name, spread in zip("AB", found.spreads, strict=True):
        if spread is not None:
            here, low, high = (spread.test_set_std, spread.distribution_low, spread.distribution_high)
            text = f"{100 * here:.2f} points on this test set, {100 * spread.distribution_std:.2f} on all data like it"
            between = "" if math.isnan(low) else f" (95 % interval {100 * low:.2f} to {100 * high:.2f})"
            rows.append((f"std of {name}", text + between))
    return rows


def to_text(evidence: Evidence) -> str:
    """The comparison for a terminal."""
    blocks = [_headline(evidence), *(f"warning: {warning}" for warning in evidence.warnings)]
    for title, rows in _sections(evidence).items():
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
        blocks.append("\n".join([title, *(f"  {line}".rstrip() for line in lines)]))
    return "\n\n".join(blocks)


def to_markdown(evidence: Evidence) -> str:
    """The comparison for a README or a pull request."""
    blocks = [f"**{_headline(evidence)}**", *(f"> {warning}" for warning in evidence.warnings)]
    for title, rows in _sections(evidence).items():
        head, *rest = rows if not rows[0][0] else [("", ""), *rows]
        lines = [head, tuple("---" for _ in head), *rest]
        table = ["| " + " | ".join(_SPECIAL.sub(r"\\\1", cell) for cell in line) + " |" for line in lines]
        blocks.append("\n".join([f"#### {title[0].upper()}{title[1:]}", "", *table]))
    return "\n\n".join(blocks)


def to_json(evidence: Evidence) -> str:
    """The comparison as one JSON object; unknown values are null."""
    found = evidence.comparison
    sides = {
        name: {
            "run": side.place,
            "configuration": side.description,
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
        "difference": found.tested._asdict() | found.interval._asdict() | {"value": found.difference, "p": found.p},
        "scale": found.scale.name,
        "permutation_p": found.permutation_p if found.has_spread else None,
        "least_permutation_p": found.least_permutation_p,
        "a_beats_b": found.beats._asdict(),
        "effect_size": found.effect_size,
        "more_seeds": found.more_seeds if found.verdict == "undecided" else None,
        "examples": evidence.examples and _examples_json(evidence.examples),
        "differences": {
            "configurations": evidence.configurations,
            "studies": evidence.configs,
            "environments": evidence.environments,
        },
    }
    return json.dumps(finite(document), indent=1)


def _examples_json(found: stats.Disagreement) -> dict[str, Any]:
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


def _short(value: Any) -> str:
    text = "–" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


FORMATS: dict[str, Callable[[Evidence], str]] = {"text": to_text, "markdown": to_markdown, "json": to_json}
