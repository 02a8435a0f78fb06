"""Published figures held against runs, and runs collected into a folder."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tests.support.made_up_run import make_config, make_run

sys.path.insert(0, str(Path(__file__).parents[2]))  # the experiments are not installed

from cnnjax.utils.errors import RequestError
from experiments import claims, few_seeds, published
from experiments.claims import Claim
from experiments.collect import collect
from experiments.few_seeds import draw_subsets
from experiments.published import as_text, compare, compare_seeds

TRIALS = pd.DataFrame(
    {
        "member": ["a", "b", "c", "d"],
        "model": ["dense", "dense", "dense", "cnn"],
        "optimizer": "adam",
        "learning_rate": 0.001,
        "batch_size": 256,
        "epochs": 30,
        "epochs_run": [2, 3, 2, 1],
        "test_accuracy": [0.50, 0.52, 0.54, 0.9],
    }
)
HISTORY = pd.DataFrame(
    [("a", 1, 0.6), ("a", 2, 0.5), ("a", 3, 0.99), ("b", 1, 0.1), ("b", 2, 0.2), ("b", 3, 0.3), ("c", 1, 0.7)],
    columns=["member", "epoch", "val_accuracy"],
).assign(val_f1=lambda rows: rows["val_accuracy"] / 2)


def row_of(measure, printed, monkeypatch, model="dense"):
    monkeypatch.setattr(claims, "claims", lambda: [Claim("it", {"model": model}, measure, printed)])
    (row,) = compare(TRIALS, HISTORY).to_dict("records")
    return row


def test_a_published_run_lies_inside_the_interval_of_one_new_seed_or_not(monkeypatch):
    half = scipy.stats.t.ppf(0.975, 2) * 2 * np.sqrt(1 + 1 / 3)  # of three seeds with mean 52 and deviation 2
    row = row_of("test_accuracy", "52.00", monkeypatch)
    assert (row["n"], row["mean"], row["std"]) == (3, pytest.approx(52), pytest.approx(2))
    assert (row["one new seed, low"], row["high"]) == (pytest.approx(52 - half), pytest.approx(52 + half))
    assert 61.9 < 52 + half < 61.95
    for printed, where in (("61.94", "inside"), ("61.95", "outside"), ("62", "inside"), ("63", "outside")):
        assert row_of("test_accuracy", printed, monkeypatch)[""] == where
    assert row_of("test_accuracy", "42.06", monkeypatch)[""] == "inside"
    assert row_of("test_accuracy", "42.04", monkeypatch)[""] == "outside"
    assert row_of("test_accuracy", "90", monkeypatch, model="cnn")[""] == "-"


def test_measures_of_the_history_end_with_the_trial(monkeypatch):
    assert row_of("highest val_accuracy", "50", monkeypatch)["mean"] == pytest.approx(100 * (0.6 + 0.3 + 0.7) / 3)
    row = row_of("val_f1 of epoch 2", "0.2", monkeypatch)
    assert (row["n"], row["mean"]) == (2, pytest.approx((0.25 + 0.1) / 2))


def test_measures_of_a_class_are_those_of_its_trials(monkeypatch):
    monkeypatch.setattr(claims, "claims", lambda: [Claim("it", {"model": "dense"}, "f1 of class Coat", "0.8")])
    trials = TRIALS.assign(trial=TRIALS["member"])
    classes = pd.DataFrame(
        [("a", "Coat", 0.7), ("a", "Bag", 0.1), ("b", "Coat", 0.9), ("d", "Coat", 0.2)],
        columns=["trial", "class", "f1"],
    )
    (row,) = compare(trials, HISTORY, classes).to_dict("records")
    assert (row["n"], row["mean"]) == (2, pytest.approx(0.8))
    assert compare(trials, HISTORY).empty


def test_every_claim_is_of_something_that_the_ladder_has():
    from cnnjax.models.ladder import LADDER

    every = list(claims.claims())
    assert {claim.of["model"] for claim in every} <= set(LADDER)
    assert all(next(iter(claim.of)) == "model" and float(claim.printed) for claim in every)
    assert len({(*claim.of.items(), claim.measure) for claim in every}) == len(every)


@pytest.mark.slow
def test_runs_are_collected_into_one_folder(tmp_path):
    whole = make_config([0, 1], train={"batch_size": 64})
    make_run(tmp_path / "first", whole)
    make_run(tmp_path / "second", whole | {"data": {"augment": ["flip"]}}, keep=1)
    for name in ("first", "second"):
        command = [
            "somewhere/launch.py",
            f"--workdir=/some/where/{name}",
            "--config=configs/x.py",
            "--config.data.path=/a/b/images",
        ]
        environment = {"command": command, "platform": "Linux", "cpu_count": 2, "devices": ["cpu"], "versions": {}}
        (tmp_path / name / "environment.json").write_text(json.dumps(environment))
        data = json.loads((tmp_path / name / "data.json").read_text())
        (tmp_path / name / "data.json").write_text(json.dumps(data | {"sha256": "0"}))
    folders = [str(tmp_path / "first"), f"{tmp_path / 'second'}=flipped"]
    with pytest.raises(RequestError, match="curves_accuracy"):
        collect(tmp_path / "out", folders, ["curves_acuracy"])
    assert not (tmp_path / "out").exists()
    text = collect(tmp_path / "out", folders, ["curves_accuracy"])
    trials = pd.read_csv(tmp_path / "out/trials.csv")
    assert trials["trial"].tolist() == ["first/t0000", "first/t0001", "second/t0000"]
    assert trials["augment"].tolist() == ["none", "none", "flip"] and set(trials["model"]) == {"baseline"}
    history = pd.read_json(tmp_path / "out/metrics.jsonl", lines=True)
    assert set(history["member"]) == {"first/t0000", "first/t0001", "second/t0000", "second/t0001"}
    assert len(history) == 16
    ran = json.loads((tmp_path / "out/runs.json").read_text())
    assert ran["second"]["command"] == (
        "python -m cnnjax.launch --config=configs/x.py --config.data.path=images --workdir=runs/second"
    )
    assert (tmp_path / "out/curves_accuracy.png").read_bytes().startswith(b"\x89PNG")
    classes = pd.read_csv(tmp_path / "out/classes.csv")
    assert len(classes) == 30 and set(classes["support"].groupby(classes["trial"]).sum()) == {400}
    recall = classes["recall"] * classes["support"] / 400  # weighted, it is the accuracy
    np.testing.assert_allclose(recall.groupby(classes["trial"]).sum().to_numpy(), trials["test_accuracy"], rtol=1e-5)
    assert text == as_text(compare(trials, history, classes))


def test_the_published_spread_of_five_seeds_has_intervals_beside_ours():
    accuracy = np.array([0.70, 0.71, 0.72, 0.73, 0.745])
    trials = pd.DataFrame({"model": "base", "test_accuracy": accuracy})
    metrics = pd.DataFrame({"epoch": [1], "train_accuracy": [0.5], "val_accuracy": [0.6]})
    ours, published, tests = compare_seeds(trials, metrics)[2:5]
    low, high = scipy.stats.t.interval(0.95, 4, 100 * accuracy.mean(), 100 * scipy.stats.sem(accuracy))
    assert f"{100 * accuracy.mean():.2f}  {low:.2f}..{high:.2f}" in ours
    low, high = (0.48 * (4 / scipy.stats.chi2.ppf(p, 4)) ** 0.5 for p in (0.975, 0.025))
    assert f"0.48  {low:.2f}..{high:.2f}" in published
    low, high = scipy.stats.t.interval(0.95, 4, 72.15, 0.48 * 1.2**0.5)
    assert published.endswith(f"{low:.2f}..{high:.2f}")
    p = 2 * scipy.stats.f.sf((100 * accuracy.std(ddof=1) / 0.48) ** 2, 4, 4)
    assert f"spreads are equal: p = {p:.2f}" in tests


def test_subsets_of_seeds_spread_as_draws_without_replacement_do():
    rng = np.random.default_rng(0)
    best = rng.normal(60, 1, 32)
    table = draw_subsets(np.stack([best, best - 10])).set_index("seeds")
    assert (table["another first, %"] == 0).all()
    least, *_, most = ordered = np.sort(best)
    assert least <= table.loc[1, "mean, low"] <= ordered[1] and ordered[-2] <= table.loc[1, "high"] <= most
    half = 1.96 * best.std(ddof=1) * (1 / 10 - 1 / 32) ** 0.5  # of a finite population
    assert table.loc[10, "high"] - table.loc[10, "mean, low"] == pytest.approx(2 * half, rel=0.06)
    tied = draw_subsets(np.stack([best, rng.permutation(best) - 1e-9])).set_index("seeds")
    assert 35 < tied.loc[1, "another first, %"] < 65


@pytest.mark.parametrize("command", [few_seeds, published])
def test_a_folder_without_results_is_refused(command, tmp_path):
    for words, said in (([], "folder"), ([str(tmp_path)], "trials.csv")):
        with pytest.raises(RequestError, match=said):
            command.parse(["command", *words])


def test_seeds_of_configurations_that_differ_in_words(tmp_path, capsys):
    rows = [(model, seed, 0.5 + seed / 100) for model in ("dense", "cnn") for seed in range(3)]
    pd.DataFrame(rows, columns=["model", "seed", "test_accuracy"]).to_csv(tmp_path / "trials.csv", index=False)
    few_seeds.main(few_seeds.parse(["command", str(tmp_path)]))
    assert capsys.readouterr().out.startswith("best of 2 configurations over 3 seeds: model cnn\n")
