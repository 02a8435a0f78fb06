"""Statistics over seeds: intervals, comparisons, rankings and sources of variance. Imports no jax."""

from cnnjax.stats.comparison import Comparison, Verdict, compare, split_stuck
from cnnjax.stats.components import Component, Components, variance_components
from cnnjax.stats.correction import holm
from cnnjax.stats.difference import Difference, hsu_factor
from cnnjax.stats.effect_size import Share
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
from cnnjax.stats.looks import left, next_size, share_of_look, share_of_unplanned_look
from cnnjax.stats.moderation import NO_PRIOR, Prior, borrow, fit_prior, mean_interval, pairwise_errors
from cnnjax.stats.pairing import have_same_seeds, pairing_helps
from cnnjax.stats.planning import decision_power, seeds_to_decide
from cnnjax.stats.scales import Scale
from cnnjax.stats.selection import Rank, SelectionEstimate, bad_luck, expected_best, nested_selection, rank
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
    "NO_PRIOR",
    "AccuracySpread",
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
    "Prior",
    "Rank",
    "Scale",
    "SelectionEstimate",
    "Share",
    "Summary",
    "Verdict",
    "amount",
    "bad_luck",
    "bootstrap_interval",
    "borrow",
    "churn",
    "compare",
    "compare_predictions",
    "decision_power",
    "example_interval",
    "expected_best",
    "explain_variance",
    "fit_prior",
    "gap",
    "have_same_seeds",
    "holm",
    "hsu_factor",
    "interquartile_mean",
    "left",
    "marginal_means",
    "mcnemar",
    "mean_interval",
    "nested_selection",
    "next_size",
    "pairing_helps",
    "pairwise_errors",
    "pooled_std",
    "prediction_interval",
    "rank",
    "seeds_to_decide",
    "share_of_look",
    "share_of_unplanned_look",
    "span",
    "split_stuck",
    "spread_accuracy",
    "summarize",
    "variance_components",
    "verdict_sentence",
    "what_decides",
]
