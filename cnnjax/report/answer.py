"""The answer in words: what is best, by how much, how sure that is, and what would make it surer."""

from cnnjax import stats
from cnnjax.report.confirmed import Confirmed, confirmed_details, confirmed_sentence
from cnnjax.report.evidence import Evidence
from cnnjax.report.names import measure_name
from cnnjax.report.read import Run
from cnnjax.report.streams import Sources
from cnnjax.report.tables import significant


def write_answer(
    run: Run, evidence: Evidence | None, sources: list[Sources], confirmed: Confirmed | None = None
) -> list[str]:
    """Returns the answer as paragraphs, the shortest that is true first.

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
    said += [confirmed_sentence(confirmed)] if confirmed else []
    answer = [" ".join(filter(None, said)), *(confirmed_details(confirmed) if confirmed else [])]
    if evidence.runner_up is not None and not run.crossed:
        answer.append(_verdict_sentence(run, evidence))
        answer += [_curse_sentence(run, evidence.honest)] if evidence.honest else []
    return answer


def _best_sentence(run: Run, best: int) -> str:
    so_far = " so far" if len(run.trials) < run.planned else ""
    count = len(run.settings)
    verb = f"Best{so_far} of {count} settings: " if count > 1 else ""
    measures = [run.select, *(() if run.selects_on_test else ("test_accuracy",))]
    measured = "; ".join(filter(None, (_interval(run, best, measure) for measure in measures)))
    return f"{verb}{run.describe(best)}. {measured[0].upper()}{measured[1:]}."


def _interval(run: Run, setting: int, measure: str) -> str:
    summary = run.summary(setting, measure)
    if summary is None:
        return ""
    scale, unit = (100, " %") if measure.endswith("accuracy") else (1, "")
    mean, low, high = (significant(scale * value) for value in (summary.mean, summary.low, summary.high))
    between = f" ({low} to {high})" if summary.n > 1 and not run.crossed else ""
    return f"{measure_name(measure)} {mean}{unit}{between}"


def _seeds_sentence(run: Run, best: int) -> str:
    n = int(run.settings.loc[best, "n"])
    if n < 2:
        return "One seed: nothing can be said about how much another seed would change this."
    if run.crossed:
        return f"Means over {n} trainings that share random streams, so without an interval."
    return f"Means over {n} seeds with 95\u00a0% t intervals."


def _verdict_sentence(run: Run, evidence: Evidence) -> str:
    found, (first, second, *_) = evidence.runner_up, evidence.ranks
    assert found is not None
    name, measure = run.tell_apart(evidence.settings[1]), measure_name(run.select)
    if found.is_identical:
        return f"Equal: the runner-up, {name}, has the same {measure} on every seed."
    by = f"by {stats.gap(found.difference.value, run.select)} of {measure}"
    if first.n < 2:
        return f"Undecided: it leads the runner-up, {name}, {by}, but one seed each decides nothing."
    paired = ", paired by seed" if found.paired else ""
    by = f"{by} ({stats.span(found.interval, run.select)}{paired}); P(best) = {100 * first.best:.0f} %."
    if evidence.decided:
        return f"Decided: it is better than the runner-up, {name}, {by}"
    text = f"Undecided: it leads the runner-up, {name}, {by}"
    if found.verdict == "better":
        return (
            f"{text} That interval alone excludes zero, but among the {evidence.pairs} pairs of settings such a gap "
            f"may be chance (p = {second.p:.2g} after Holm's correction): confirm it on fresh seeds."
        )
    return f"{text} {stats.what_decides(found, 'it', 'the runner-up')}"


def _curse_sentence(run: Run, honest: stats.Honest) -> str:
    low, high = (significant(100 * end) for end in (max(honest.low, 0), min(honest.high, 1)))
    votes, choices = honest.votes.get(honest.chosen, 0), sum(honest.votes.values())
    chosen = f"{votes} of {choices} times it is the one chosen when one seed is left out"
    text = (
        f"Selection: {chosen}; on the seed left out, what is chosen reaches {significant(100 * honest.honest)} % test "
        f"accuracy ({low} to {high}), {_apart(honest.optimism)}."
    )
    if run.selects_on_test:
        text += " The luck of the test images, which also chose it, is not in this."
    return text


def _apart(optimism: float) -> str:
    if abs(optimism) < 5e-5:
        return "as much as the winner's own mean"
    if optimism < 0:
        return f"{-100 * optimism:.2f} points above the winner's own mean"
    return f"{100 * optimism:.2f} points below the winner's own mean, which is so much too good (winner's curse)"


def _sources_sentence(run: Run, sources: list[Sources]) -> str:
    last = sources[0]
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
