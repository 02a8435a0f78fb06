"""The report's verdicts, rankings, effects and sources of variance, against the files they are computed from."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.special import softmax
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from cnnjax.analysis.evidence import scale_of, weigh
from cnnjax.analysis.read import read_run
from cnnjax.report.sections import hyperparameters, protocol, ranking, spread, variance
from cnnjax.report.sections.hyperparameters import marginal_means
from cnnjax.report.sections.search import expected_bests
from cnnjax.report.sections.variance import split_variance
from tests.support.made_up_run import GRID, leave_at_chance, make_config, make_run, read_answer

TWO = {"learning_rate": [0.01, 0.03]}


def _run_with(folder: Path, config: dict, values: list[float], measure: str = "val_accuracy") -> Path:
    """A made-up run whose trials have these values, in the order of trials.csv."""
    make_run(folder, config, examples=40)
    frame = pd.read_csv(folder / "trials.csv")
    frame[measure] = values
    frame.to_csv(folder / "trials.csv", index=False)
    return folder


def _config(seeds: int = 5, **more) -> dict:
    return make_config(
        list(range(seeds)), **({"select": "val_accuracy", "data": {"validation": 0.1}, "train": TWO} | more)
    )


def _ranking(folder: Path) -> pd.DataFrame:
    run = read_run(folder)
    return ranking.tables(run)[0].frame


def _against(folder: Path) -> pd.DataFrame:
    run = read_run(folder)
    return ranking.tables(run)[1].frame


LUCK = np.array([0.010, -0.012, 0.004, 0.009, -0.011])


def test_a_clear_winner_is_called_better(tmp_path):
    folder = _run_with(tmp_path / "run", _config(), [*(0.60 + LUCK), *(0.62 + LUCK + [0.001, 0, 0, -0.001, 0])])
    said = read_answer(folder)
    assert "Decided: it is better than the runner-up, learning rate 0.01, by +2.00 points" in said
    frame = _ranking(folder)
    assert frame["learning_rate"].tolist() == [0.03, 0.01]
    assert (frame.loc[0, "first_place"], frame.loc[0, "last_place"], frame.loc[1, "first_place"]) == (1, 1, 2)
    assert _against(folder).loc[0, "the winner is"] == "better"
    assert (frame["certainty"] > 0.99).all() and frame["may be best"].tolist() == ["yes", "no"]


def test_an_open_comparison_says_its_interval_and_how_many_more_seeds(tmp_path):
    values = np.array([*(0.60 + LUCK), *(0.605 + LUCK[::-1])])
    folder = _run_with(tmp_path / "run", _config(), values.tolist())
    scale = scale_of(read_run(folder), "val_accuracy")
    x, y = scale.apply(values[5:]), scale.apply(values[:5])
    found = scipy.stats.ttest_ind(x, y, equal_var=False)  # the luck of a seed is not shared
    low, high = scale.invert_difference((x.mean() + y.mean()) / 2, found.confidence_interval())
    row = _against(folder).loc[0]
    assert (row["difference"], row["difference_low"], row["difference_high"]) == pytest.approx((0.005, low, high))
    assert (row["p"], row["the winner is"]) == (pytest.approx(found.pvalue), "undecided")
    gaps = np.subtract.outer(values[5:], values[:5])
    assert row["p_beats"] == pytest.approx((np.sign(gaps).mean() + 1) / 2) and row["p_beats_low"] < row["p_beats"]

    def welch(a, b, axis):
        return scipy.stats.ttest_ind(a, b, axis=axis, equal_var=False).statistic

    permuted = scipy.stats.permutation_test((values[5:], values[:5]), welch, vectorized=True, n_resamples=np.inf)
    assert row["p_permutation"] == pytest.approx(permuted.pvalue, abs=0.01)  # which takes no ties for ties
    pooled = np.sqrt((values[5:].var(ddof=1) + values[:5].var(ddof=1)) / 2)
    assert row["effect size"] == pytest.approx(0.005 / pooled * (1 - 3 / (4 * 8 - 1)), rel=1e-3)  # Hedges' g
    said = read_answer(folder)
    shown = f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f} points; 5 seeds each)"
    assert "Undecided: it leads the runner-up, learning rate 0.01, by +0.50 points" in said and shown in said
    assert f"{row['more_seeds']:.0f} more seeds of each would decide it" in said


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (3, "(with so few seeds it cannot be smaller than 0.25, and decides nothing)"),
        (5, "(with so few seeds it cannot be smaller than 0.062, and decides nothing)"),
        (6, "(with so few seeds it cannot be smaller than 0.031)"),
        (9, ""),
    ],
)
def test_how_small_a_p_value_by_permutation_can_be_is_said_beside_it(tmp_path, seeds, words):
    """Of pairs: two of all 2**n flips of signs."""
    values = np.random.default_rng(0).normal(0.6, 0.05, seeds)
    folder = _run_with(tmp_path / "run", _config(seeds), [*values, *(values + LUCK[np.arange(seeds) % 5] / 50)])
    run = read_run(folder)
    note = ranking.tables(run)[1].note
    assert note.endswith(f"without the assumption of normality{' ' * bool(words)}{words}.")


def test_losses_rank_downwards(tmp_path):
    values = [*(0.60 + LUCK), *(0.66 + LUCK + [0.001, 0, 0, -0.001, 0])]
    folder = _run_with(tmp_path / "run", _config(select="val_loss"), values, "val_loss")
    assert "Decided: it is better than the runner-up, learning rate 0.03, by -0.06 of validation loss" in read_answer(
        folder
    )
    assert _ranking(folder)["learning_rate"].tolist() == [0.01, 0.03]


def test_many_configurations_make_one_interval_no_verdict(tmp_path):
    rates = [0.01 * k for k in range(1, 13)]
    rng = np.random.default_rng(0)
    gap = LUCK[:4] / 4 + 0.009
    luck = [rng.normal(0, 0.01, 4) for _ in rates[2:]]
    values = [*(0.60 + luck[0] + gap), *(0.60 + luck[0]), *np.ravel([0.59 + of_rate for of_rate in luck])]
    folder = _run_with(tmp_path / "run", _config(4, train={"learning_rate": rates}), values)
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(data | {"counts": {"test": 10_000}}))
    assert _ranking(folder).loc[1, "learning_rate"] == 0.02
    second = _against(folder).loc[0]
    alone = dataclasses.replace(weigh(read_run(folder)).against[0], tests=1)
    assert alone.verdict == "better"
    assert second["the winner is"] == "undecided" and second["p"] > 0.05 and second["more_seeds"] > 0
    said = read_answer(folder)
    assert "Undecided" in said and "widened for 11 comparisons" in said


def test_equal_configurations_and_single_seeds(tmp_path):
    same = _run_with(tmp_path / "same", _config(), [*(0.6 + LUCK)] * 2)
    assert "Equal: it and the runner-up" in read_answer(same)
    assert _against(same).loc[0, "the winner is"] == "equal"
    single = _run_with(tmp_path / "single", _config(1), [0.60, 0.65])
    said = read_answer(single)
    assert (
        "With one seed, the effect of another seed is unknown" in said and "One seed says nothing about seeds" in said
    )
    assert _against(single).loc[0, "the winner is"] == "undecided" and "p" not in _against(single)
    assert "Decided" not in said and np.isnan(_ranking(single)["certainty"]).all()


def test_configurations_that_lost_seeds_are_not_ranked(tmp_path):
    folder = make_run(tmp_path / "run", _config(), diverge=("t0000",), examples=40)
    run = read_run(folder)
    assert weigh(run).against == []
    (table,) = spread.tables(run)
    assert table.frame["n"].tolist() == [5, 4]


def test_selection_is_tested_on_the_seed_left_out(tmp_path):
    folder = make_run(tmp_path / "run", _config(), examples=60)
    trials = pd.read_csv(folder / "trials.csv")
    val = trials.pivot(index="learning_rate", columns="seed", values="val_accuracy")
    test = trials.pivot(index="learning_rate", columns="seed", values="test_accuracy")
    chosen = [val.drop(columns=seed).mean(axis=1).idxmax() for seed in val]
    reached = np.mean([test.loc[rate, seed] for rate, seed in zip(chosen, val, strict=True)])
    winner = val.mean(axis=1).idxmax()
    said = read_answer(folder)
    assert f"it is selected {sum(rate == winner for rate in chosen)} of 5 times" in said
    assert re.search(rf"reaches {100 * reached:.2f}\d? % test accuracy", said)


def test_the_winner_and_its_runners_up_differ_on_the_images_that_they_differ_on(tmp_path):
    folder = make_run(tmp_path / "run", _config(3, train={"learning_rate": [0.01, 0.02, 0.03]}), examples=150)
    run = read_run(folder)
    evidence = weigh(run)
    frame = ranking.tables(run)[2].frame
    labels = np.load(folder / "predictions/labels.npz")["labels"]
    right, classes = {}, {}
    for configuration in evidence.configurations:
        trials = run.trials.loc[run.trials["configuration"] == configuration, "trial"]
        logits = [np.load(folder / f"predictions/{trial}.npz")["logits"].astype(float) for trial in trials]
        classes[configuration] = np.array([x.argmax(axis=1) for x in logits])
        right[configuration] = np.mean([softmax(x, axis=1) for x in logits], axis=0).argmax(axis=1) == labels
    best, *others = evidence.configurations
    p_values = []
    for (_, row), other in zip(frame.iterrows(), others, strict=True):
        disagree = np.mean([(x != y).mean() for x in classes[best] for y in classes[other]])
        assert row["disagree"] == pytest.approx(disagree)
        table = [[(right[best] == i)[right[other] == j].sum() for j in (1, 0)] for i in (1, 0)]
        assert (row["only the winner right"], row["only the other right"]) == (table[1][0], table[0][1])[::-1]
        p_values.append(mcnemar(table, exact=True).pvalue)
        means = [(classes[configuration] == labels).mean() for configuration in (best, other)]
        assert row["accuracy_difference"] == pytest.approx(means[0] - means[1])
    assert frame["p, McNemar"].tolist() == pytest.approx(multipletests(p_values, method="holm")[1])
    (folder / "predictions/t0000.npz").unlink()
    assert len(ranking.tables(run)) == 3 - (best == 0) and len(evidence.against) == 2


def test_the_spread_of_every_configuration_is_that_of_its_trials(tmp_path):
    folder = make_run(tmp_path / "run", _config(), examples=60)
    run = read_run(folder)
    frame = spread.tables(run)[0].frame.set_index("learning_rate")
    for rate, trials in pd.read_csv(folder / "trials.csv").groupby("learning_rate"):
        values, row = trials["test_accuracy"], frame.loc[rate]
        assert (row["n"], row["mean"], row["std"]) == pytest.approx((5, values.mean(), values.std()))
        assert (row["sem"], row["range"]) == pytest.approx((scipy.stats.sem(values), np.ptp(values)))
        assert row["iqm"] == pytest.approx(scipy.stats.trim_mean(values, 0.25))


def test_effects_of_a_complete_grid_are_its_sums_of_squares(tmp_path):
    folder = make_run(tmp_path / "run", GRID, examples=60)
    run = read_run(folder)
    frame = hyperparameters.tables(run)[0].frame.set_index("effect")
    trials = pd.read_csv(folder / "trials.csv")
    y = trials["test_accuracy"]

    def explained(by: list[str]) -> float:
        return float(((trials.groupby(by)["test_accuracy"].transform("mean") - y.mean()) ** 2).sum())

    total = float(((y - y.mean()) ** 2).sum())
    for axis in ("model", "optimizer", "learning_rate", "epochs"):
        assert frame.loc[axis.replace("_", " "), "share"] == pytest.approx(explained([axis]) / total)
    both = explained(["optimizer", "learning_rate"]) - explained(["optimizer"]) - explained(["learning_rate"])
    assert frame.loc["optimizer x learning rate", "share"] == pytest.approx(both / total)
    assert frame["share"].sum() == pytest.approx(1)
    assert hyperparameters.tables(read_run(make_run(tmp_path / "one", _config(), examples=40))) == []


STREAMS = {"init": [0, 1, 2], "order": [0, 1, 2, 3]}


def test_crossed_streams_are_split_into_their_shares(tmp_path):
    rng = np.random.default_rng(2)
    of_init, noise = np.array([-0.03, 0.0, 0.03])[:, None], rng.normal(0, 0.003, (3, 4))
    values = 0.6 + of_init + noise
    config = make_config([0], streams=STREAMS)
    folder = _run_with(tmp_path / "run", config, values.ravel().tolist(), "test_accuracy")
    run = read_run(folder)
    frame = variance.tables(run)[0].frame.set_index("source")
    # the classical estimates of a two-way table without repetitions
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns + values.mean()
    interaction = (rest**2).sum() / 6
    init = (4 * rows.var(ddof=1) - interaction) / 4
    assert frame.loc["init x order", "std"] == pytest.approx(interaction**0.5)
    assert frame.loc["init", "std"] == pytest.approx(init**0.5)
    assert frame.loc["init", "share"] > 0.9 and frame["share"].sum() == pytest.approx(1)
    said = read_answer(folder)
    assert said.startswith("Test accuracy differs by") and "12 trainings" in said and "init 9" in said
    assert "t intervals" not in said and "Decided" not in said
    (table,) = spread.tables(run)  # no ranking, and no interval that takes trainings for independent
    assert not {"low", "high", "sem", "new_low"} & set(table.frame)


def test_a_crossing_that_is_not_complete_has_no_shares(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0], streams=STREAMS), keep=7, examples=40)
    assert split_variance(read_run(folder)) == []
    assert "share random streams" in read_answer(folder)


def test_streams_that_follow_the_seed_are_a_source_of_their_own(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1], streams={"init": [0, 1, 2]}), examples=40)
    frame = variance.tables(read_run(folder))[0].frame
    assert frame["source"].tolist() == ["init", "seed", "init x seed"]


def test_a_search_of_one_trial_finds_the_mean_and_of_all_the_best(tmp_path):
    run = read_run(make_run(tmp_path / "run", GRID, diverge=["t0003"]))
    for model in (None, "baseline", "complex"):
        values = [
            v
            for s in run.ranked
            if model in (None, run.configurations.loc[s, "model"])
            for v in run.values(s, run.select)
        ]
        numbers, best = expected_bests(run, model)
        assert (numbers[0], numbers[-1]) == (1, len(values)) and len(numbers) <= 40
        assert (best[0], best[-1]) == pytest.approx((np.mean(values), max(values)))
        pairs = [max(a, b) for i, a in enumerate(values) for b in values[:i]]
        assert best[1] == pytest.approx(np.mean(pairs)) and (np.diff(best) > 0).all()


def test_intervals_along_an_axis_end_where_the_measure_does(tmp_path):
    folder = make_run(tmp_path / "run", GRID | {"seeds": [0, 1]})
    rows = pd.read_csv(folder / "trials.csv")
    best = rows["model"] == "complex"
    rows.loc[best, "test_accuracy"] = 1.0
    rows.loc[best.idxmax(), "test_accuracy"] = 0.8
    rows.drop(columns="crc32", errors="ignore").to_csv(folder / "trials.csv", index=False)
    means = {mean.levels[0]: mean for mean in marginal_means(read_run(folder), ("model",))}
    assert means["complex"].high == 1 and 0 <= means["complex"].low < means["complex"].mean < 1
    assert 0 < means["baseline"].low < means["baseline"].mean < means["baseline"].high < 1


def _stuck_run(folder: Path, values: np.ndarray, stuck: list[str]) -> Path:
    """A run of these validation accuracies [configurations, seeds], some of whose trials never left chance."""
    rates = [0.01 * k for k in range(1, len(values) + 1)]
    make_run(folder, _config(values.shape[1], train={"learning_rate": rates}), examples=200)
    frame = pd.read_csv(folder / "trials.csv")
    frame["val_accuracy"] = values.ravel()
    frame.to_csv(folder / "trials.csv", index=False)
    leave_at_chance(folder, stuck)
    return folder


def test_seeds_that_never_left_chance_are_named_and_compared_both_ways(tmp_path):
    values = 0.5 + np.arange(4)[::-1, None] / 10 + np.array([0.004, -0.004, 0.001])
    values[1] = values[0] - 0.001  # as good as the best, where it trains at all
    folder = _stuck_run(tmp_path / "run", values, ["t0004", "t0005", "t0007"])
    said = read_answer(folder)
    with_them = 100 * (values[1, 0] + 0.2) / 3
    assert (
        f"learning rate 0.02: 2 of 3 seeds never left chance. It has {with_them:.2f} % validation accuracy with them, "
        f"and {100 * values[1, 0]:.2f} % without them, when it is undecided against the best." in said
    )
    assert "learning rate 0.03: 1 of 3 seeds never left chance" in said and "still worse than the best" in said
    frame = _ranking(folder).set_index("learning_rate")
    assert frame["stuck"].to_dict() == {0.01: 0, 0.02: 2, 0.03: 1, 0.04: 0}
    assert frame.loc[0.02, "may be best"] == "yes" and frame.loc[0.04, "may be best"] == "no"


def test_folds_are_no_seeds_and_the_report_says_so(tmp_path):
    config = make_config([0], train={"learning_rate": [0.01, 0.03]}, data={"validation": None, "folds": 4})
    found = read_run(make_run(tmp_path / "run", config))
    assert (found.folds, found.repeats, [*found.configurations["n"]]) == (4, "folds", [4, 4])
    assert {key[-1] for key in found.by_seed(0, "test_accuracy")} == {0, 1, 2, 3}
    said = "Trials are of 4 folds, which share training images: their spread is not that of seeds"
    assert said in read_answer(tmp_path / "run")
    tables = [*spread.tables(found), *ranking.tables(found)]
    assert sum(said in table.note for table in tables) == 3
    assert [finding.severity for finding in protocol.check(found) if finding.name == "folds"] == ["note"]


def test_each_trial_is_measured_with_the_labels_of_its_own_test_split(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1], streams={"split": None}))
    labels = np.load(folder / "predictions/labels.npz")["labels"]
    np.savez(folder / "predictions/labels_split0.npz", labels=labels)
    np.savez(folder / "predictions/labels_split1.npz", labels=labels[::-1])
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(data | {"test_splits": [0, 1]}))
    run = read_run(folder)
    (_, first), (_, second) = run.tested(0)
    np.testing.assert_array_equal((first, second), (labels, labels[::-1]))
    logits, of_all = run.predictions(0)  # single images are compared on one test split
    assert len(logits) == 1 and of_all.tolist() == labels.tolist()
    (folder / "predictions/labels_split1.npz").unlink()
    assert read_run(folder).tested(0) == []
