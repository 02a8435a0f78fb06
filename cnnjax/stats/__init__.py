"""Statistics over seeds: intervals, comparisons, rankings and sources of variance. Imports no jax."""

from cnnjax.stats.comparison import Comparison, Difference, Share, Verdict, compare
from cnnjax.stats.components import Component, Components, variance_components
from cnnjax.stats.correction import Adjusted, adjust, holm
from cnnjax.stats.effects import Effect, Effects, Marginal, explain_variance, marginal_means
from cnnjax.stats.examples import (
    AccuracySpread,
    Churn,
    Disagreement,
    McNemar,
    churn,
    compare_predictions,
    example_interval,
    mcnemar,
    spread_accuracy,
)
from cnnjax.stats.pairing import have_same_seeds, pairing_helps
from cnnjax.stats.planning import decision_power, seeds_to_decide
from cnnjax.stats.selection import Rank, SelectionEstimate, expected_best, nested_selection, pairwise_p, rank
from cnnjax.stats.spread import (
    LEVEL,
    Interval,
    Summary,
    bootstrap_interval,
    interquartile_mean,
    pooled_std,
    prediction_interval,
    summarize,
)
from cnnjax.stats.words import amount, gap, span, verdict_sentence, what_decides

__all__ = [
    "LEVEL",
    "AccuracySpread",
    "Adjusted",
    "Churn",
    "Comparison",
    "Component",
    "Components",
    "Difference",
    "Disagreement",
    "Effect",
    "Effects",
    "Interval",
    "Marginal",
    "McNemar",
    "Rank",
    "SelectionEstimate",
    "Share",
    "Summary",
    "Verdict",
    "adjust",
    "amount",
    "bootstrap_interval",
    "churn",
    "compare",
    "compare_predictions",
    "decision_power",
    "example_interval",
    "expected_best",
    "explain_variance",
    "gap",
    "have_same_seeds",
    "holm",
    "interquartile_mean",
    "marginal_means",
    "mcnemar",
    "nested_selection",
    "pairing_helps",
    "pairwise_p",
    "pooled_std",
    "prediction_interval",
    "rank",
    "seeds_to_decide",
    "span",
    "spread_accuracy",
    "summarize",
    "variance_components",
    "verdict_sentence",
    "what_decides",
]
