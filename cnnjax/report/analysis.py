"""The statistics of a run, computed once: what its words, tables and figures rest on."""

from collections.abc import Iterator
from typing import NamedTuple

from cnnjax import stats
from cnnjax.report.effects import draw_effects, effect_tables, explain
from cnnjax.report.evidence import Evidence, evidence_tables, weigh
from cnnjax.report.ranking import draw_ranking, draw_settings
from cnnjax.report.read import Run
from cnnjax.report.streams import Sources, draw_sources, source_tables, split_variance
from cnnjax.report.style import Plot
from cnnjax.report.tables import Table


class Analysis(NamedTuple):
    """What the seeds support, where their spread comes from, and what the axes of the grid explain."""

    evidence: Evidence | None
    sources: list[Sources]
    effects: stats.Effects | None


def analyse(run: Run) -> Analysis:
    """Computes what the finished trials allow."""
    return Analysis(weigh(run), split_variance(run), explain(run))


def analysis_tables(run: Run, analysis: Analysis) -> list[Table]:
    """The tables of an analysis, in the order of its figures."""
    of_evidence = evidence_tables(run, analysis.evidence) if analysis.evidence else []
    return [*source_tables(analysis.sources), *of_evidence, *effect_tables(analysis.effects)]


def draw_analysis(run: Run, analysis: Analysis) -> Iterator[Plot]:
    """The figures of an analysis."""
    yield from draw_sources(analysis.sources)
    if analysis.evidence:
        yield from draw_ranking(run, analysis.evidence)
    yield from draw_effects(run, analysis.effects)
    yield from draw_settings(run)
