"""The answer in words: the best configuration, its lead, the evidence for it, and the seeds that would decide it."""

import math
from collections.abc import Sequence
from typing import Any

from cnnjax import stats
from cnnjax.analysis.columns import measure_name, scale
from cnnjax.analysis.evidence import Evidence, are_equal, summarize, weigh
from cnnjax.analysis.looks import count_looks, seeds_in_words
from cnnjax.analysis.run import Run
from cnnjax.report.sections import confirmation
from cnnjax.report.sections.data_rules import first_three
from cnnjax.report.sections.protocol import list_stuck_seeds
from cnnjax.report.sections.variance import Sources, split_variance
from cnnjax.utils.text import counted, significant


def text(run: Run) -> tuple[str, list[tuple[str, str]]]:
    """Returns the answer, and further paragraphs, each with its label (empty for none).

    If fresh seeds were trained, only they decide whether the winner is better than its runners-up.
    """
    evidence = weigh(run)
    if evidence is None:
        return "No trial has finished with a value to select by.", []
    best, sources, confirmed = evidence.configurations[0], split_variance(run), confirmation.read(run)
    if sources:
        return _sources_sentence(run, sources), [("", _best_sentence(run, best))]
    said = [_best_sentence(run, best), _seeds_sentence(run, best)]
    if confirmed:
        said += [confirmation.text(confirmed), _open_sentence(run, evidence, len(confirmed.contenders))]
    elif evidence.against and not run.crossed:
        said.append(_verdict_sentence(run, evidence))
    looks = _looks_sentence(run, evidence)
    said += [looks] if evidence.against and not run.crossed and not confirmed else []
    details = [("Selection", _selection_sentence(run, evidence))] if evidence.selection and not run.crossed else []
    if stuck := list_stuck_seeds(run):
        said_of_stuck = f"{stuck} learned nothing; see the finding `stuck`. {_stuck_sentence(run, evidence)}"
        details.append(("Stuck at chance", said_of_stuck.rstrip()))
    unranked = len(run.configurations) - len(evidence.configurations)
    details += [("Unranked", _unranked_sentence(run, unranked))] if unranked else []
    return " ".join(filter(None, said)), details


def numbers(run: Run) -> dict[str, Any]:
    """Returns the numbers behind the answer: the best configuration compared with its runner-up.

    If fresh seeds were trained, they are of these seeds. The dict is empty if nothing is compared: without a second
    configuration, or if trainings share random streams.

    Returns:
        `verdict`, which is `better`, `worse`, `equal` or `undecided`; `measure`, a column of trials.csv; `difference`
        of its means, with the 95 % interval from `low` to `high` and the p-value `p`, both corrected for the number of
        comparisons; `seeds` of the best; `more_seeds` of each that would decide it if it is undecided (None if
        unknown); `undecided`, the number of all configurations with an undecided difference from the best.
    """
    evidence, confirmed = weigh(run), confirmation.read(run)
    rows: Sequence[Any] = confirmed.against if confirmed else evidence.against if evidence else ()
    if run.crossed or evidence is None or not rows:
        return {}
    found = rows[0]
    if confirmed:
        measure, seeds = confirmed.measure, confirmed.contenders[0].fresh.n
        interval, difference, more = (found.low, found.high), found.difference, found.more_seeds
    else:
        measure, seeds = run.select, evidence.ranks[0].n
        interval, difference, more = found.interval, found.difference, found.more_seeds
    is_open = found.verdict == "undecided"
    return {
        "verdict": found.verdict,
        "measure": measure,
        "difference": difference,
        "low": interval[0],
        "high": interval[1],
        "p": found.p,
        "seeds": seeds,
        "more_seeds": max(more) if is_open and more else None,
        "undecided": sum(row.verdict == "undecided" for row in rows),
    }


def _best_sentence(run: Run, best: int) -> str:
    so_far = " so far" if len(run.trials) < run.planned else ""
    count = len(run.configurations)
    verb = f"Best{so_far} of {count} configurations by {measure_name(run.select)}: " if count > 1 else ""
    measured = "; ".join(filter(None, (_interval(run, best, measure) for measure in _measures(run))))
    return f"{verb}{run.describe(best)}. {measured[0].upper()}{measured[1:]}."


def _measures(run: Run) -> list[str]:
    return [run.select, *(() if run.selects_on_test else ("test_accuracy",))]


def _interval(run: Run, configuration: int, measure: str) -> str:
    summary = summarize(run, configuration, measure)
    if summary is None:
        return ""
    unit = " %" if scale(measure) == 100 else ""
    mean, low, high = (significant(scale(measure) * value) for value in (summary.mean, summary.low, summary.high))
    between = ""
    if summary.n > 1 and not run.crossed:
        known = "" if math.isnan(summary.low) else f" ({low} to {high})"
        between = known if summary.std else " on every seed"
    return f"{measure_name(measure)} {mean}{unit}{between}"


def _seeds_sentence(run: Run, best: int) -> str:
    n = len(run.values(best, run.select))
    if n < 2:
        return "With one seed, the effect of another seed is unknown."
    if run.crossed:
        return f"Means over {n} trainings that share random streams, so without an interval."
    summaries = (summarize(run, best, measure) for measure in _measures(run))
    intervals = " with 95\u00a0% intervals" if any(one and one.low < one.high for one in summaries) else ""
    over = run.repeats if run.folds else "seeds"
    return f"Means over {n} {over}{intervals}.{run.folds_note}"


def _verdict_sentence(run: Run, evidence: Evidence) -> str:
    """Compares the best with the runner-up, and names the others against which the best is undecided."""
    found = evidence.against[0]
    runner_up = f"the runner-up, {run.tell_apart(evidence.configurations[1])},"
    said = [stats.verdict_sentence(found, run.select, "it", runner_up, name=measure_name(run.select))]
    if found.has_spread or len(evidence.undecided) < len(evidence.against):
        said = [_decided_sentence(evidence), *said, _open_sentence(run, evidence, 2)]
    return " ".join(filter(None, said))


def _decided_sentence(evidence: Evidence) -> str:
    """Says how many configurations are decided not to be the best."""
    count, worse = len(evidence.ranks), sum(not rank.may_be_best for rank in evidence.ranks)
    if count < 3 or not worse:
        return ""
    if worse == count - 1:
        return (
            f"Of all {count} configurations it is the best, with a certainty of {percent(evidence.ranks[0].certainty)}."
        )
    others = "the other is" if worse == 1 else f"the other {worse} are"
    return f"The best is one of {count - worse} configurations; {others} worse, with a certainty of 95\u00a0% or more."


def percent(certainty: float) -> str:
    """A certainty in percent, rounded down: 95 % is decided."""
    return ">\u00a099\u00a0%" if certainty > 0.99 else f"{math.floor(100 * certainty)}\u00a0%"


def _looks_sentence(run: Run, evidence: Evidence) -> str:
    """Says how many looks there were, and what all of them together risk; empty at the only look."""
    looks = count_looks(run)
    if len(looks.shares) < 2 and looks.share == 1:
        return ""
    counts = sorted({rank.n for rank in evidence.ranks})
    each = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else counted(counts[0], "seed")
    level = f"{100 * (1 - (1 - stats.LEVEL) * looks.share):.2f}"
    text = (
        f"This is look {len(looks.shares)} at the study ({seeds_in_words(looks)} seeds; now {each} per configuration): "
        f"verdicts are at a level of {level} %, so that all looks together err in at most "
        f"{100 * looks.total_risk:.2g}\u00a0% of studies."
    )
    if are_equal(evidence, looks.margin) and looks.margin is not None:
        margin = stats.gap(looks.margin, run.select).lstrip("+")
        text += f" All configurations that may be the best are equal within {margin}."
    return text


def _stuck_sentence(run: Run, evidence: Evidence) -> str:
    """Compares configurations with stuck seeds with the best both ways: with those seeds and without them."""
    said = []
    for rank, configuration in zip(evidence.ranks, evidence.configurations, strict=True):
        found = rank.against or (evidence.against[0] if evidence.against else None)
        if found is None or not (stuck := found.stuck[rank.against is not None]):
            continue
        trained = found.b if rank.against else found.a
        with_them, without = (stats.amount(mean, run.select) for mean in (rank.mean, trained.mean()))
        text = (
            f"{run.tell_apart(configuration)}: {len(stuck)} of {rank.n} seeds never left chance. It has "
            f"{with_them} {measure_name(run.select)} with them, and {without} without them"
        )
        if rank.against:
            still = "undecided against the best" if rank.may_be_best else "still worse than the best"
            text += f", when it is {still}"
        said.append(f"{text}.")
    return first_three(said, " ")


def _open_sentence(run: Run, evidence: Evidence, first: int) -> str:
    """Names the configurations from index `first` on that have a lower mean, but are not decided to be worse."""
    if run.crossed:
        return ""
    places = [place for place in evidence.undecided if place >= first]
    if not places:
        return ""
    names = [run.tell_apart(evidence.configurations[place]) for place in places]
    needs = [evidence.against[place - 1].more_seeds for place in places]
    which = first_three(names, "; ")
    them = "it" if len(places) == 1 else "all of them"
    some = [max(more) for more in needs if more]
    how = f": {counted(max(some), 'more seed')} of each would decide {them}" if len(some) == len(places) else ""
    return f"It is undecided against {counted(len(places), 'other configuration')} with a lower mean ({which}){how}."


def _unranked_sentence(run: Run, count: int) -> str:
    are, have = ("is", "has") if count == 1 else ("are", "have")
    return (
        f"{count} of {len(run.configurations)} configurations {have} fewer seeds with a finite "
        f"{measure_name(run.select)} than the best, and {are} not compared."
    )


def _selection_sentence(run: Run, evidence: Evidence) -> str:
    """Describes what the selected configuration reaches on seeds that did not select it."""
    found = evidence.selection
    assert found is not None
    low, high = (significant(100 * end) for end in (max(found.low, 0), min(found.high, 1)))
    between = "" if math.isnan(found.low) else f" ({low} to {high})"
    votes, choices = found.votes.get(found.chosen, 0), sum(found.votes.values())
    some = f" among the {choices} seeds that all ranked configurations have" if choices < evidence.ranks[0].n else ""
    text = (
        f"with one seed left out, it is selected {votes} of {choices} times{some}; on the seed left out, the selected "
        f"configuration reaches {significant(100 * found.held_out)} % test accuracy{between}, "
        f"{_optimism(found, ' on these' if some else '')}."
    )
    if run.selects_on_test:
        text += " The luck of the test images, which also selected it, is not included."
    return text


def _optimism(found: stats.SelectionEstimate, where: str) -> str:
    mean = f"the winner's own mean{where}"
    if len(found.votes) == 1:
        return f"{mean}: as it is selected each time, this does not show the luck of the selection (winner's curse)"
    if abs(found.optimism) < 5e-5:
        return f"as much as {mean}"
    if found.optimism < 0:
        return f"{-100 * found.optimism:.2f} points above {mean}"
    return f"{100 * found.optimism:.2f} points below {mean}: a rough estimate of its luck (winner's curse)"


def _sources_sentence(run: Run, sources: list[Sources]) -> str:
    last = sources[0]
    if not last.found.total:
        return f"Test accuracy is the same in all {last.trials} trainings, {run.tell_apart(last.configuration)}."
    parts = sorted(last.found.components, key=lambda part: -part.share)[:3]
    named = "; ".join(
        f"{' x '.join(p.sources)} {100 * p.share:.0f} % ({100 * p.share_low:.0f} to {100 * p.share_high:.0f})"
        for p in parts
    )
    std = f"{100 * last.found.total**0.5:.2f}"
    return (
        f"Test accuracy differs by {std} points (standard deviation) between trainings with all random streams new. "
        f"Shares of this variance, from {last.trials} trainings, {run.tell_apart(last.configuration)}: {named}."
    )
