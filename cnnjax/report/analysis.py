"""The statistics of a run, computed once: what its words, tables and figures rest on."""

from collections.abc import Iterator
from typing import NamedTuple

from cnnjax import stats
from cnnjax.report.against import against_tables
from cnnjax.report.confirmed import Confirmed, confirmed_tables, read_confirmed
from cnnjax.report.effects import draw_effects, effect_tables, explain
from cnnjax.report.evidence import Evidence, ranking_tables, spread_tables, weigh
from cnnjax.report.ranking import draw_ranking, draw_settings
from cnnjax.report.run import Run
from cnnjax.report.search import draw_search
from cnnjax.report.streams import Sources, draw_sources, source_tables, split_variance
from cnnjax.report.style import Plot
from cnnjax.report.tables import Table


class Analysis(NamedTuple):
    """What the seeds support, what fresh seeds say of it, where the spread comes from, and what the axes explain."""

    evidence: Evidence | None
    confirmed: Confirmed | None
    sources: list[Sources]
    effects: stats.Effects | None


def analyse(run: Run) -> Analysis:
    """Computes what the finished trials allow."""
    return Analysis(weigh(run), read_confirmed(run.workdir), split_variance(run), explain(run))


def analysis_tables(run: Run, analysis: Analysis) -> list[Table]:
    """The tables of an analysis, in the order of its figures."""
    tables = [*confirmed_tables(analysis.confirmed), *source_tables(analysis.sources)]
    if analysis.evidence:
        tables += ranking_tables(run, analysis.evidence) + against_tables(run, analysis.evidence) + spread_tables(run)
    return [*tables, *effect_tables(analysis.effects)]


def draw_analysis(run: Run, analysis: Analysis) -> Iterator[Plot]:
    """The figures of an analysis."""
    yield from draw_sources(analysis.sources)
    if analysis.evidence:
        yield from draw_ranking(run, analysis.evidence)
        yield from draw_search(run)
    yield from draw_effects(run, analysis.effects)
    yield from draw_settings(run)
