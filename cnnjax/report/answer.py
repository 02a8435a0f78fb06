"""The answer in words: what is best, by how much, how sure that is, and what would make it surer."""

import math

from cnnjax import stats
from cnnjax.report.confirmed import Confirmed, confirmed_sentence, confirmed_verdict
from cnnjax.report.data_lint import first_three
from cnnjax.report.evidence import Evidence
from cnnjax.report.names import measure_name
from cnnjax.report.run import Run
from cnnjax.report.streams import Sources
from cnnjax.report.tables import significant
from cnnjax.types import counted


def write_answer(
    run: Run, evidence: Evidence | None, sources: list[Sources], confirmed: Confirmed | None = None
) -> list[str]:
    """Returns the answer as paragraphs, the headline first.

    Where fresh seeds were trained, they alone say whether the winner is better than its runners-up.

    Args:
        run: the run.
        evidence: of its settings; None where nothing has finished.
        sources: of the spread, where the study crosses random streams.
        confirmed: what fresh seeds say of the winner, where they were trained.
    """
    if evidence is None:
        return ["No trial has finished with a value to select by."]
    best = evidence.settings[0]
    if sources:
        return [_sources_sentence(run, sources), _best_sentence(run, best)]
    said = [_best_sentence(run, best), _seeds_sentence(run, best)]
    if confirmed:
        said += [confirmed_sentence(confirmed), confirmed_verdict(confirmed)]
        said.append(_open_sentence(run, evidence, len(confirmed.contenders)))
    elif evidence.runner_up is not None and not run.crossed:
        said.append(_verdict_sentence(run, evidence))
    answer = [" ".join(filter(None, said))]
    if evidence.honest and not run.crossed:
        answer.append(_curse_sentence(run, evidence))
    unranked = len(run.settings) - len(evidence.settings)
    answer += [_unranked_sentence(run, unranked)] if unranked else []
    return answer


def _best_sentence(run: Run, best: int) -> str:
    so_far = " so far" if len(run.trials) < run.planned else ""
    count = len(run.settings)
    verb = f"Best{so_far} of {count} settings by {measure_name(run.select)}: " if count > 1 else ""
    measured = "; ".join(filter(None, (_interval(run, best, measure) for measure in _measures(run))))
    return f"{verb}{run.describe(best)}. {measured[0].upper()}{measured[1:]}."


def _measures(run: Run) -> list[str]:
    return [run.select, *(() if run.selects_on_test else ("test_accuracy",))]


def _interval(run: Run, setting: int, measure: str) -> str:
    summary = run.summary(setting, measure)
    if summary is None:
        return ""
    scale, unit = (100, " %") if measure.endswith("accuracy") else (1, "")
    mean, low, high = (significant(scale * value) for value in (summary.mean, summary.low, summary.high))
    between = ""
    if summary.n > 1 and not run.crossed:
        between = f" ({low} to {high})" if summary.std else " on every seed"
    return f"{measure_name(measure)} {mean}{unit}{between}"


def _seeds_sentence(run: Run, best: int) -> str:
    n = len(run.values(best, run.select))
    if n < 2:
        return "One seed: nothing can be said about how much another seed would change this."
    if run.crossed:
        return f"Means over {n} trainings that share random streams, so without an interval."
    summaries = (run.summary(best, measure) for measure in _measures(run))
    intervals = " with 95\u00a0% t intervals" if any(summary and summary.std for summary in summaries) else ""
    return f"Means over {n} seeds{intervals}."


def _verdict_sentence(run: Run, evidence: Evidence) -> str:
    found, (first, second, *_) = evidence.runner_up, evidence.ranks
    assert found is not None
    name, measure = run.tell_apart(evidence.settings[1]), measure_name(run.select)
    if found.is_identical:
        return f"Equal: the runner-up, {name}, has the same {measure} on every seed."
    by = f"by {stats.gap(found.difference.value, run.select)} of {measure}"
    if first.n < 2:
        return f"Undecided: it leads the runner-up, {name}, {by}, but one seed each decides nothing."
    if not found.difference.standard_error > 0:
        return f"Undecided: it leads the runner-up, {name}, {by}. {stats.what_decides(found)}"
    paired = ", paired by seed" if found.paired else ""
    sure = f"({stats.span(found.interval, run.select)}{paired}); P(best) = {100 * first.best:.0f} %."
    also = _open_sentence(run, evidence, 2)
    if evidence.decided:
        return " ".join(filter(None, (f"Decided: it is better than the runner-up, {name}, {by} {sure}", also)))
    if found.is_level:
        text = f"Undecided: it is level with the runner-up, {name}, in {measure} {sure}"
    else:
        text = f"Undecided: it leads the runner-up, {name}, {by} {sure}"
    if found.verdict == "better":
        text += (
            f" That interval alone excludes zero, but among the {evidence.pairs} pairs of settings such a gap "
            f"may be chance (p = {second.p:.2g} after Holm's correction): confirm it on fresh seeds."
        )
    return " ".join(filter(None, (text, stats.what_decides(found, "it", "the runner-up"), also)))


def _open_sentence(run: Run, evidence: Evidence, first: int) -> str:
    """Names what else is open, from a place on (the runner-up is 1): of a lower mean, but with too wide a spread."""
    if run.crossed:
        return ""
    places = [place for place in range(first, len(evidence.settings)) if evidence.verdict(place) == "undecided"]
    if not places:
        return ""
    names = [run.tell_apart(evidence.settings[place]) for place in places]
    needs = [evidence.against[place - 1].more_seeds for place in places]
    which = first_three(names, "; ")
    them = "it" if len(places) == 1 else "all of them"
    some = [max(more) for more in needs if more]
    how = f": {counted(max(some), 'more seed')} of each would decide {them}" if len(some) == len(places) else ""
    return f"It is undecided against {counted(len(places), 'other setting')} of a lower mean ({which}){how}."


def _unranked_sentence(run: Run, count: int) -> str:
    are, have = ("is", "has") if count == 1 else ("are", "have")
    return (
        f"Unranked: {count} of {len(run.settings)} settings {have} fewer seeds with a finite "
        f"{measure_name(run.select)} than the best, and {are} not compared."
    )


def _curse_sentence(run: Run, evidence: Evidence) -> str:
    honest = evidence.honest
    assert honest is not None
    low, high = (significant(100 * end) for end in (max(honest.low, 0), min(honest.high, 1)))
    between = "" if math.isnan(honest.low) else f" ({low} to {high})"
    votes, choices = honest.votes.get(honest.chosen, 0), sum(honest.votes.values())
    chosen = f"{votes} of {choices} times it is the one chosen when one seed is left out"
    some = f", by the {choices} seeds that all ranked settings have" if choices < evidence.ranks[0].n else ""
    text = (
        f"Selection{some}: {chosen}; on the seed left out, what is chosen reaches {significant(100 * honest.honest)} % "
        f"test accuracy{between}, {_apart(honest, ' on these' if some else '')}."
    )
    if run.selects_on_test:
        text += " The luck of the test images, which also chose it, is not in this."
    return text


def _apart(honest: stats.Honest, there: str) -> str:
    mean = f"the winner's own mean{there}"
    if len(honest.votes) == 1:
        return f"{mean}, for it is chosen each time: what it owes to luck (winner's curse) does not show here"
    if abs(honest.optimism) < 5e-5:
        return f"as much as {mean}"
    if honest.optimism < 0:
        return f"{-100 * honest.optimism:.2f} points above {mean}"
    return f"{100 * honest.optimism:.2f} points below {mean}: a rough estimate of its luck (winner's curse)"


def _sources_sentence(run: Run, sources: list[Sources]) -> str:
    last = sources[0]
    if not last.found.total:
        return f"Test accuracy is the same in all {last.trials} trainings, {run.tell_apart(last.setting)}."
    parts = sorted(last.found.components, key=lambda part: -part.share)[:3]
    named = "; ".join(
        f"{' x '.join(p.sources)} {100 * p.share:.0f} % ({100 * p.share_low:.0f} to {100 * p.share_high:.0f})"
        for p in parts
    )
    std = f"{100 * last.found.total**0.5:.2f}"
    return (
        f"Test accuracy differs by {std} points (standard deviation) between trainings whose random streams are all "
        f"new. Of this variance, from {last.trials} trainings, {run.tell_apart(last.setting)}: {named}."
    )
