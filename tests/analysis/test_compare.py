"""The command that holds two runs against each other: what it says, and what it refuses."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.special import softmax
from statsmodels.stats.contingency_tables import mcnemar

from cnnjax import compare, stats
from cnnjax.analysis.columns import measure_name
from cnnjax.analysis.compare import read_side
from cnnjax.analysis.compare.evidence import compare_sides
from cnnjax.utils.errors import RequestError
from tests.support.made_up_run import leave_at_chance, make_config, make_run, read_answer

ROOT = Path(__file__).parents[2]
LADDER = {"models": ["baseline", "medium"], "data": {"validation": 0.1}, "select": "val_accuracy"}
GRID = make_config([0, 1, 2, 3, 4, 5]) | LADDER
TEST = "--measure=test_accuracy"
GRID["train"] = GRID["train"] | {"learning_rate": [0.01, 0.03]}


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "grid", GRID)


def copy_of(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


def edit_json(run: Path, name: str, **changes) -> None:
    path = run / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_trials(run: Path, change) -> None:
    trials = pd.read_csv(run / "trials.csv")
    change(trials).to_csv(run / "trials.csv", index=False)


def find(a, b, *options) -> dict:
    """The JSON of a comparison, by test accuracy unless `options` say otherwise."""
    namespace = compare.parse(["compare", str(a), str(b), "--format=json", TEST, *options])
    return json.loads(printed(namespace))


def printed(namespace) -> str:
    with contextlib.redirect_stdout(out := io.StringIO()):
        compare.main(namespace)
    return out.getvalue()


def show(a, b, *options) -> str:
    return printed(compare.parse(["compare", str(a), str(b), TEST, *options]))


def test_two_configurations_of_one_run_are_compared_over_their_seeds(grid):
    found = find(f"{grid}:model=baseline,learning_rate=0.03", f"{grid}:model=medium,learning_rate=0.03")
    trials = pd.read_csv(grid / "trials.csv")
    a, b = (of["test_accuracy"].to_numpy() for _, of in trials.query("learning_rate == 0.03").groupby("model"))
    # By hand: logits of counts of 400 images, and variances moderated by those of all four configurations.
    odds = trials.assign(logit=np.log((trials["test_accuracy"] * 400 + 0.5) / (400.5 - 400 * trials["test_accuracy"])))
    variances = odds.groupby(["learning_rate", "model"])["logit"].var()
    prior = stats.fit_prior(variances.to_numpy(), np.full(4, 5.0), caution=48 / 4)  # as of one pair
    weight = 1.0 if np.isinf(prior.freedom) else prior.freedom / (prior.freedom + 5)
    moderated = weight * prior.variance + (1 - weight) * variances[0.03]
    x, y = odds.query("learning_rate == 0.03").groupby("model")["logit"].mean()
    expected = 2 * scipy.stats.t.sf(abs(x - y) / np.sqrt(moderated.sum() / 6), min(prior.freedom + 5, 20))
    assert found["verdict"] == "worse" and not found["paired"]  # their made-up luck is each its own
    assert found["difference"]["value"] == pytest.approx(a.mean() - b.mean())
    assert found["difference"]["p"] == pytest.approx(expected)
    assert found["difference"]["low"] < a.mean() - b.mean() < found["difference"]["high"] < 0
    assert found["a"]["summary"]["mean"] == pytest.approx(a.mean())
    assert found["differences"]["configurations"] == {"model": ["baseline", "medium"]}
    assert found["warnings"] == []


@pytest.mark.parametrize("select", ["val_accuracy", "val_loss", "test_f1", "train_loss"])
def test_report_and_compare_say_the_same_of_the_same_measure(tmp_path, select):
    run = make_run(tmp_path / "run", make_config([0, 1, 2], train={"learning_rate": [0.01, 0.03]}, select=select,
                                                 data={"validation": 0.1}))  # fmt: skip
    trials = pd.read_csv(run / "trials.csv")
    luck = np.array([0.004, -0.003, 0.001])
    sign = -1 if select.endswith("loss") else 1
    trials[select] = [*(0.6 + luck), *(0.6 + 0.05 * sign + luck[::-1])]
    trials["test_accuracy"] = [*(0.7 + luck), *(0.6 + luck[::-1])]  # says the opposite
    trials.to_csv(run / "trials.csv", index=False)
    said = read_answer(run)
    first, _, rest = said.partition(": ")
    assert first == f"Best of 2 configurations by {measure_name(select)}" and "learning rate 0.03" in rest
    assert "Decided: it is better than the runner-up, learning rate 0.01" in said
    command = ["compare", f"{run}:learning_rate=0.03", f"{run}:learning_rate=0.01"]
    text = printed(compare.parse(command))
    assert re.match(rf"Decided: A is better than B by \S+ (points )?of {measure_name(select)} ", text)
    assert ("says nothing of new ones" in text) == (select == "train_loss")
    worse = printed(compare.parse([*command, TEST]))
    assert re.match(r"Decided: A is worse than B by \S+ points of test accuracy ", worse)


@pytest.mark.parametrize(("name", "change"), [("config", {"select": "val_loss"}), ("data", {"sha256": "other"})])
def test_runs_that_select_by_another_measure_or_other_data_are_held_against_each_other_by_test_accuracy(
    grid, tmp_path, name, change
):
    other = copy_of(grid, tmp_path / "other")
    sides = [f"{grid}:model=baseline,learning_rate=0.03", f"{other}:model=medium,learning_rate=0.03"]
    assert re.match(
        r"Decided: A is worse than B by \S+ (points )?of validation accuracy ",
        printed(compare.parse(["compare", *sides])),
    )
    edit_json(other, name, **change)
    assert re.match(
        r"Decided: A is worse than B by \S+ (points )?of test accuracy ", printed(compare.parse(["compare", *sides]))
    )


def test_the_predictions_are_compared_by_example(grid):
    sides = [f"{grid}:model={model},learning_rate=0.03" for model in ("baseline", "medium")]
    found = find(*sides)
    labels = np.load(grid / "predictions/labels.npz")["labels"]
    logits = [[np.load(grid / f"predictions/{t}.npz")["logits"] for t in found[side]["trials"]] for side in "ab"]
    right = [
        np.mean([softmax(x.astype(float), axis=1) for x in side], axis=0).argmax(axis=1) == labels for side in logits
    ]
    table = [[(right[0] == i)[right[1] == j].sum() for j in (1, 0)] for i in (1, 0)]
    assert found["examples"]["mcnemar"]["p"] == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert found["examples"]["mcnemar"]["only_b"] == table[1][0]
    classes = [np.array([x.argmax(axis=1) for x in side]) for side in logits]
    disagree = np.mean([(x != y).mean() for x in classes[0] for y in classes[1]])
    assert found["examples"]["churn"]["between"] == pytest.approx(disagree)
    accuracies = (classes[0] == labels).mean(axis=1)
    assert found["examples"]["spreads"]["a"]["test_set_std"] == pytest.approx(accuracies.std(ddof=1))


def test_without_predictions_the_rest_is_compared(grid, tmp_path):
    bare = copy_of(grid, tmp_path / "bare")
    shutil.rmtree(bare / "predictions")
    assert find(f"{bare}:model=baseline", f"{bare}:model=medium")["examples"] is None


def test_a_run_stands_for_its_best_configuration_and_the_luck_of_it_is_said(grid):
    found = find(grid, f"{grid}:model=baseline,learning_rate=0.03")
    means = pd.read_csv(grid / "trials.csv").groupby(["model", "learning_rate"])["val_accuracy"].mean()
    model, rate = means.idxmax()
    assert f"{model}, sgd, learning rate {rate:g}" in found["a"]["configuration"]
    assert (found["a"]["rivals"], found["b"]["rivals"]) == (4, 1)
    (warning,) = found["warnings"]
    assert "A is the best of 4 configurations by val_accuracy" in warning and "TEST SPLIT" not in warning


def test_selection_on_the_test_split_is_said_aloud(tmp_path):
    run = make_run(tmp_path / "run", GRID | {"select": "test_accuracy"})
    assert "ON THE TEST SPLIT" in find(run, f"{run}:model=baseline,learning_rate=0.03")["warnings"][0]


def test_one_trial_of_each_is_undecided_but_for_its_predictions(grid):
    text = show(f"{grid}:trial=t0000", f"{grid}:trial=t0023")
    assert text.startswith("Undecided") and "One seed says nothing about seeds" in text
    assert "p, McNemar" in text and "nan" not in text and "– to –" not in text
    assert find(f"{grid}:trial=t0000", f"{grid}:seed=2,model=medium")["difference"]["std"] is None


def test_a_spread_that_is_only_borrowed_is_said(grid):
    """One seed against three, among four configurations."""
    found = find(f"{grid}:model=medium,learning_rate=0.01", f"{grid}:trial=t0000")
    assert found["difference"]["std"] > 0
    assert any(warning.startswith("B has one seed. The test takes the spread") for warning in found["warnings"])


def test_an_undecided_comparison_says_how_many_more_seeds_it_takes(grid):
    sides = [f"{grid}:model=baseline,learning_rate={rate}" for rate in (0.01, 0.03)]
    found = find(*sides)
    assert found["verdict"] == "undecided"
    more, _ = found["more_seeds"]
    assert more > 0 and f"{more:,} more seeds of each would decide it with 80 % power" in found["sentence"]
    assert find(*sides, "--margin=0.2")["verdict"] == "equal"
    assert "Equal within 20.00 points: A and B differ" in show(*sides, "--margin=0.2")


@pytest.mark.parametrize("examples", [1, 40])
def test_sides_without_a_spread_have_no_intervals(tmp_path, examples):
    run = make_run(tmp_path / "run", make_config([0, 1, 2], train={"learning_rate": [0.01, 0.03]}), examples=examples)
    logits = np.load(run / "predictions" / "t0000.npz")["logits"]
    for trial in range(1, 6):
        np.savez(run / "predictions" / f"t000{trial}.npz", logits=logits)
    edit_trials(run, lambda rows: rows.assign(test_accuracy=np.where(rows["learning_rate"] == 0.01, 0.7, 0.1)))
    text = show(f"{run}:learning_rate=0.01", f"{run}:learning_rate=0.03")
    assert text.startswith("Undecided: ") and "The values of each are the same on every seed" in text
    assert "nan" not in text and "– to" not in text and "to decide" not in text


def test_a_lower_loss_is_better(grid):
    sides = [f"{grid}:model={model},learning_rate=0.03" for model in ("medium", "baseline")]
    assert find(*sides, "--measure=test_loss")["verdict"] == "better"
    assert find(*sides, "--measure=test_loss")["difference"]["value"] < 0


def test_pairs_need_the_same_streams(grid, tmp_path):
    """And that the seeds go together, of all configurations of both runs."""
    grid, fixed = copy_of(grid, tmp_path / "grid"), copy_of(grid, tmp_path / "fixed")
    sides = f"{grid}:model=baseline,learning_rate=0.03", f"{fixed}:model=medium,learning_rate=0.03"
    assert not find(*sides)["paired"]
    luck = np.random.default_rng(0).normal(0, 0.2, 6)
    for run in (grid, fixed):
        edit_trials(run, lambda trials: trials.assign(test_accuracy=trials["test_accuracy"] + luck[trials["seed"]]))
    assert find(*sides)["paired"]
    edit_trials(fixed, lambda trials: trials.assign(stream_init=7))
    assert not find(*sides)["paired"]


def test_trainings_that_share_crossed_streams_are_no_seeds(tmp_path):
    streams = {"streams": {"init": [0, 1], "order": [0, 1, 2]}}
    crossed = make_run(tmp_path / "crossed", make_config([0], train={"learning_rate": [0.01, 0.03]}) | streams)
    sides = f"{crossed}:learning_rate=0.01", f"{crossed}:learning_rate=0.03"
    with pytest.raises(RequestError, match=r"share random streams \(init, order\).*not independent"):
        find(*sides)
    fixed = find(*(f"{side},stream_init=1" for side in sides))
    assert sum("share random streams (init, augment, dropout)" in warning for warning in fixed["warnings"]) == 2


def test_configurations_that_differ_in_a_later_stage_are_told_apart(tmp_path):
    stages = [{"optimizer": "adam", "learning_rate": 0.001}, {}]
    train = {"optimizer": "sgd", "learning_rate": [0.01, 0.1], "stages": stages}
    run = make_run(tmp_path / "stages", make_config([0, 1, 2], train=train))
    rates = [f"{run}:later_stages=sgd learning_rate={rate}" for rate in (0.01, 0.1)]
    found = find(*rates)
    assert [len(found[side]["trials"]) for side in "ab"] == [3, 3]
    assert list(found["differences"]["configurations"]) == ["later_stages"]


def test_what_differs_beside_the_configurations_is_listed(grid, tmp_path):
    other = copy_of(grid, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    edit_json(other, "config", data=config["data"] | {"resize": "nearest"})
    edit_trials(other, lambda trials: trials.assign(normalization="unit"))
    edit_json(other, "environment", jax="0.11.0", command=["elsewhere"])
    found = find(f"{grid}:model=baseline", f"{other}:model=medium")["differences"]
    assert found["studies"] == {"data.resize": ["pad", "nearest"]}
    assert found["configurations"]["normalization"] == ["half", "unit"]
    assert found["environments"] == {"jax": ["0.10.2", "0.11.0"]}


def test_data_that_lie_elsewhere_are_no_other_data(grid, tmp_path):
    runs = [copy_of(grid, tmp_path / name) for name in "ab"]
    for run in runs:
        config = json.loads((run / "config.json").read_text())["data"]
        edit_json(run, "config", data=config | {"path": f"/data/{run.name}"})
        data = json.loads((run / "data.json").read_text())
        (run / "data.json").write_text(json.dumps(data | {"name": run.name, "sha256": "x"}))
    found = find(f"{runs[0]}:model=baseline", f"{runs[1]}:model=medium")
    assert found["differences"]["studies"] == {} and not any("DATA DIFFER" in line for line in found["warnings"])
    edit_json(runs[1], "data", sha256="y")
    found = find(f"{runs[0]}:model=baseline", f"{runs[1]}:model=medium")
    assert found["differences"]["studies"] == {"data.path": ["/data/a", "/data/b"]}


def test_other_layers_under_one_name_are_listed(grid, tmp_path):
    runs = [copy_of(grid, tmp_path / name) for name in "ab"]
    for run, layer in zip(runs, ("Relu()", "Gelu()"), strict=True):
        edit_json(run, "config", networks={"medium": ["Conv(features=32)", layer, "Dense()"], layer: []})
    found = find(*(f"{run}:model=medium" for run in runs))["differences"]["studies"]
    assert found == {"networks.medium.layer 2": ["Relu()", "Gelu()"]}


def test_diverged_trials_are_counted(tmp_path):
    run = make_run(tmp_path / "run", GRID, diverge=["t0000"])
    found = find(f"{run}:model=baseline,learning_rate=0.01", f"{run}:model=medium,learning_rate=0.01")
    assert found["a"]["diverged"] == 1 and found["a"]["summary"]["n"] == 5
    assert "1 of 6 trials of A diverged" in found["warnings"][0]
    text = show(f"{run}:model=baseline,learning_rate=0.01", f"{run}:model=medium,learning_rate=0.01")
    assert "not paired (Welch), 5 and 6 seeds" in text


def test_the_same_results_are_called_identical(grid, tmp_path):
    other = copy_of(grid, tmp_path / "other")
    assert show(grid, other).startswith("Equal: A and B have the same test accuracy on each of 6 seeds.")


def test_other_data_are_warned_of(grid, tmp_path):
    runs = [copy_of(grid, tmp_path / name) for name in "ab"]
    sides = f"{runs[0]}:model=baseline", f"{runs[1]}:model=medium"
    edit_json(runs[1], "data", mean=[0.1])
    assert any(w.startswith("THE DATA DIFFER: their pixels") for w in find(*sides)["warnings"])
    for run, fingerprint in zip(runs, "xy", strict=True):
        edit_json(run, "data", test_sha256=fingerprint)
    with pytest.raises(RequestError, match="tested on different images"):  # though all labels are equal
        find(*sides)
    config = json.loads((runs[1] / "config.json").read_text())["data"]
    edit_json(runs[1], "config", data=config | {"image_size": 16, "resize": "bilinear"})
    assert any("THE TEST IMAGES HAVE ANOTHER SIZE" in w for w in find(*sides)["warnings"])
    edit_json(runs[1], "data", test_sha256="x")
    assert any("The test images are the same." in w for w in find(*sides)["warnings"])


@pytest.mark.parametrize("what", ["labels", "classes"])
def test_other_test_images_are_refused(grid, tmp_path, what):
    other = copy_of(grid, tmp_path / "other")
    edit_json(other, "data", sha256="other", **({"classes": list("abcdefghij")} if what == "classes" else {}))
    if what == "labels":
        labels = np.load(other / "predictions/labels.npz")["labels"]
        np.savez(other / "predictions/labels.npz", labels=labels[::-1])
    sides = f"{grid}:model=baseline", f"{other}:model=medium"
    with pytest.raises(RequestError, match="tested on different images"):
        find(*sides)
    assert find(*sides, "--measure=val_accuracy")["verdict"] == "worse"


def test_augmented_test_images_are_warned_of(grid, tmp_path):
    other = copy_of(grid, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    edit_json(other, "config", data=config["data"] | {"augment": ["flip"], "augment_test": True})
    edit_trials(other, lambda trials: trials.assign(augment="flip"))
    assert "TEST IMAGES DIFFER" in find(f"{grid}:model=baseline", f"{other}:model=medium")["warnings"][0]


def test_test_time_augmentation_of_one_run_is_warned_of(grid, tmp_path):
    other = copy_of(grid, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    edit_json(other, "config", data=config["data"] | {"test_time_augment": "flip"})
    warnings = find(f"{grid}:model=baseline", f"{other}:model=medium")["warnings"]
    assert "THE PREDICTIONS DIFFER in test-time augmentation: none and flip." in warnings


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        ("{grid}", "nowhere", [], ["workdir", "nowhere", "a run's folder"]),
        ("{grid}", "{grid}", [], ["same trials", "RUN:model=baseline"]),
        ("{grid}:modl=baseline", "{grid}", [], ["'modl=baseline'", "did you mean 'model'?"]),
        ("{grid}:model", "{grid}", [], ["'model'", "key=value"]),
        ("{grid}:model=basline", "{grid}", [], ["selector model", "did you mean 'baseline'?"]),
        ("{grid}:learning_rate=fast", "{grid}", [], ["learning_rate", "'fast'", "a number"]),
        ("{grid}:learning_rate=0.02", "{grid}", [], ["learning_rate", "0.02", "0.01, 0.03"]),
        ("{grid}:trial=t0000,seed=3", "{grid}", [], ["no finished trial has these values together"]),
        ("{grid}:model=baseline", "{grid}:model=medium", ["--measure=tset_loss"], ["--measure", "'test_loss'"]),
        ("{grid}:model=baseline", "{grid}:model=medium", ["--margin=0.0"], ["--margin", "> 0"]),
        ("{grid}:model=baseline", "{grid}:model=medium", ["--margin=5"], ["--margin", "half a percentage point"]),
        ("{grid}:model=baseline", "{grid}:model=medium", ["--margin=nan"], ["--margin", "nan"]),
    ],
)
def test_a_wrong_request_is_refused(grid, a, b, options, words):
    with pytest.raises(RequestError) as error:
        find(a.format(grid=grid), b.format(grid=grid), *options)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_measure_that_was_not_taken_is_refused(tmp_path):
    run = make_run(tmp_path / "run", make_config([0, 1]) | {"models": ["baseline", "medium"]})
    with pytest.raises(RequestError, match=r"no such values; use one of train_loss, train_accuracy, test_loss"):
        find(f"{run}:model=baseline", f"{run}:model=medium", "--measure=val_loss")


def test_a_colon_in_a_folder_s_name_is_no_selector(grid, tmp_path):
    other = copy_of(grid, tmp_path / "odd:name=1")
    assert read_side(str(other)).run.workdir == other
    assert read_side(f"{other}:model=baseline").description.startswith("baseline")


def test_a_value_of_a_selector_may_have_colons(tmp_path):
    """Also where the folder's name has one, is misspelled, or is a URL."""
    schedules = ["constant", "piecewise:1=0.1/2=0.01"]
    config = make_config([0, 1], train={"schedule": schedules, "early_stopping": ["off", "train_loss:1"]})
    run = make_run(tmp_path / "a:b", config)
    side = read_side(f"{run}:schedule=piecewise:1=0.1/2=0.01,early_stopping=train_loss:1")
    assert set(side.trials["schedule"]) == {schedules[1]} and set(side.trials["early_stopping"]) == {"train_loss:1"}
    for place in (f"{tmp_path}/nowhere", "memory://nowhere"):
        with pytest.raises(RequestError, match=f"'{place}'"):
            read_side(f"{place}:schedule=warmup:1")


def test_a_value_that_is_not_set_can_be_asked_for(tmp_path):
    config = make_config([0, 1]) | {"models": ["medium"]}
    run = make_run(tmp_path / "run", config | {"train": config["train"] | {"dropout_rate": [None, 0.2]}})
    found = find(f"{run}:dropout_rate=None", f"{run}:dropout_rate=0.2")
    assert found["differences"]["configurations"] == {"dropout_rate": [None, 0.2]}


def test_the_answer_comes_first_in_every_format(grid):
    sides = [f"{grid}:model={model},learning_rate=0.03" for model in ("medium", "baseline")]
    sentence = find(*sides)["sentence"]
    assert re.match(r"Decided: A is better than B by \S+ points of test accuracy ", sentence)
    assert show(*sides).splitlines()[0] == sentence
    markdown = show(*sides, "--format=markdown")
    assert markdown.splitlines()[0] == f"**{sentence}**"
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(tables) > 15 and all(line.endswith("|") for line in tables)


@pytest.mark.slow
def test_the_command_answers_in_one_line_what_is_wrong(grid, tmp_path):
    def command(*arguments):
        line = [sys.executable, "-B", "-m", "cnnjax.compare", *map(str, arguments)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)

    wrong = command(grid, grid)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    usage = command(grid)
    assert (usage.returncode, usage.stdout, usage.stderr.count("\n")) == (2, "", 1)
    done = command(f"{grid}:model=medium", f"{grid}:model=baseline")
    assert (done.returncode, done.stderr) == (0, "")
    assert "better than B" in done.stdout.splitlines()[0]


def test_numbers_that_are_not_known_are_null(grid):
    assert find(f"{grid}:trial=t0000", f"{grid}:trial=t0010")["a"]["summary"]["std"] is None


def test_folds_are_compared_with_a_warning(tmp_path):
    config = make_config([0], train={"learning_rate": [0.01, 0.03]}, data={"validation": None, "folds": 4})
    run = make_run(tmp_path / "run", config)
    found = find(f"{run}:learning_rate=0.01", f"{run}:learning_rate=0.03")
    assert sum("4 folds, which share training images" in warning for warning in found["warnings"]) == 2
    assert not any("not independent" in warning for warning in found["warnings"])
    assert [len(found[side]["trials"]) for side in "ab"] == [4, 4]


def test_a_side_with_only_stuck_seeds_is_worse_only_if_bad_luck_is_improbable(tmp_path):
    run = make_run(tmp_path / "run", GRID | {"seeds": [0, 1]}, examples=200)
    stuck = pd.read_csv(run / "trials.csv").query("model == 'baseline' and learning_rate == 0.01")["trial"]
    leave_at_chance(run, stuck)
    sides = (read_side(f"{run}:model={name},learning_rate=0.01") for name in ("baseline", "medium"))
    found = compare_sides(*sides, "test_accuracy")
    # Six of the eight seeds trained, and none of the other configurations is stuck.
    assert found.luck == pytest.approx((0.5 / 7) ** 2) and found.p >= found.luck
