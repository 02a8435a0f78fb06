"""Early stopping and stages against the same rules in NumPy, applied to uninterrupted training."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.study.early_stopping import is_stopping, read_stopping
from cnnjax.study.metrics import EPOCH_MEASURES
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.study.trials import list_trials
from cnnjax.utils.errors import RequestError
from tests.support.studies import logits_of, make_study
from tests.training.test_population import UNSTEADY, Bench, assert_close, assert_same, member_of

pytestmark = pytest.mark.usefixtures("dense")


def stops_at(values, metric, patience, min_change):
    """Returns the last and the best epoch: training stops after `patience` epochs in a row without improvement."""
    scores = -values if metric.endswith("loss") else values
    best_score, since_improvement, epoch = -np.inf, 0, 0
    while since_improvement < patience and epoch < len(scores):
        improved = scores[epoch] > best_score + np.float32(min_change)
        best_score, since_improvement = (scores[epoch], 0) if improved else (best_score, since_improvement + 1)
        epoch += 1
    return epoch, int(scores[:epoch].argmax()) + 1


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy", "train_loss", "val_f1"])
def test_a_member_stops_when_its_patience_is_over_and_takes_its_best_weights(metric):
    train = {**UNSTEADY, "epochs": 8, "early_stopping": ("off", f"{metric}:1", f"{metric}:2", f"{metric}:2:0.2")}
    bench = Bench(make_study(seeds=(0, 1), train=train))
    whole = {m.trials[0].seed: i for i, m in enumerate(bench.members) if rule_of(m) is None}
    # The same call for all members, because such unsteady training amplifies rounding errors.
    states, histories = zip(*trajectory(bench, 8), strict=True)
    history, state = jax.tree.map(lambda *columns: np.concatenate(columns, 1), *histories), states[-1]
    logits = [bench.predict(bench.members, then) for then in states]
    ended = set()
    for i, member in enumerate(bench.members):
        rule, free = rule_of(member), whole[member.trials[0].seed]
        if rule is None:
            assert (state.epoch[i], state.stage[i]) == (8, 1)
            continue
        epoch, best = stops_at(getattr(history, metric)[free], *rule)
        ended.add(epoch)
        assert (state.epoch[i], state.best.epoch[i], state.stage[i]) == (epoch, best, 1)
        assert_close(member_of(state.best.variables, i), member_of(states[best - 1].variables, free))
        np.testing.assert_array_equal(logits[-1][i].argmax(-1), logits[best - 1][free].argmax(-1))
    assert len(ended) > 1  # otherwise the test is weak


def trajectory(bench, epochs):
    """State and metrics after each epoch."""
    state = bench.init(bench.members)
    for _ in range(epochs):
        state, history = bench.train(bench.members, 1, state)
        yield state, history


def rule_of(member):
    return read_stopping(member.trials[0].stages[0].traced.early_stopping)


@pytest.mark.slow
def test_the_best_weights_are_judged_where_time_runs_out_first():
    """A trial that is a prefix of a longer one ends after its own epochs, with its best weights until then."""
    train = {**UNSTEADY, "epochs": (3, 6), "early_stopping": "val_loss:5"}
    bench = Bench(make_study(seeds=(0, 1, 2, 3), train=train))
    assert [len(member.trials) for member in bench.members] == [2] * 4
    states, histories = zip(*trajectory(bench, 3), strict=True)
    logits = [bench.predict(bench.members, state) for state in states]
    val_loss = np.concatenate([history.val_loss for history in histories], 1)
    best = val_loss.argmin(1)
    assert (best < 2).any() and (states[-1].stage == 0).all()
    for i, epoch in enumerate(best):
        assert_same(member_of(states[-1].best.variables, i), member_of(states[epoch].variables, i))
        assert_same(logits[-1][i], logits[epoch][i])


@pytest.mark.slow
@pytest.mark.parametrize("start", ["best", "last"])
def test_stages_follow_each_other(start):
    """Two stages equal two studies, of which the second starts from the best or the last weights of the first."""
    stages = ({"momentum": 0.9}, {"learning_rate": 0.02, "epochs": 2})
    train = {"learning_rate": 0.003, "momentum": 0.5, "epochs": 4, "stage_start": start}
    seeds = (0, 1, 2, 3)
    bench = Bench(make_study(seeds=seeds, select="val_accuracy", train={**train, "stages": stages}))
    assert bench.members[0].epochs == 6
    state, history = bench.train(bench.members, 6)
    np.testing.assert_array_equal((state.stage, state.epoch), [[2] * 4, [6] * 4])

    first = Bench(make_study(seeds=seeds, select="val_accuracy", train={**train, "momentum": 0.9}))
    before, expected = first.train(first.members, 4)
    assert (expected.val_accuracy.argmax(1) < 3).any()
    rest = {**train, "learning_rate": 0.02, "epochs": 2}
    second = Bench(make_study(seeds=seeds, select="val_accuracy", train=rest))
    handed = before.best.variables if start == "best" else before.variables
    begun = second.init(second.members)._replace(
        **handed, epoch=before.epoch, stage_start_epoch=before.epoch, best=before.best
    )
    after, then = second.train(second.members, 2, begun)
    assert_close(after.variables, state.variables)
    for one, two, whole in zip(expected, then, history, strict=True):
        np.testing.assert_allclose(np.concatenate([one, two], 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_stage_begins_without_moments():
    stages = ({"optimizer": "adam"}, {"optimizer": "sgd"})
    bench = Bench(make_study(train={"momentum": 0.9, "epochs": 1, "stages": stages}))
    (begun, _), (ended, _) = trajectory(bench, 2)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(begun.opt_state))
    assert_same(begun.variables, begun.best.variables)
    assert (begun.stage[0], ended.stage[0]) == (1, 2)


def test_the_best_weights_need_something_to_tell_them():
    stages = {"stage_start": ("best", "last"), "stages": ({}, {})}
    with pytest.raises(RequestError, match=r"train\.stage_start='best'.*data\.validation"):
        make_study(train=stages, data={"validation": 0.0}, select="train_loss")
    assert make_study(train={**stages, "early_stopping": "train_loss:2"}, data={"validation": 0.0}, select="train_loss")


@pytest.mark.slow
def test_the_second_stage_starts_when_patience_ends_the_first():
    stages = ({"epochs": 6, "early_stopping": "val_loss:1"}, {"epochs": 1, "learning_rate": 1e-9})
    bench = Bench(make_study(seeds=(0, 1, 2), train={**UNSTEADY, "stages": stages}))
    state, history = bench.train(bench.members, 7)
    for i in range(3):
        epoch, best = stops_at(history.val_loss[i, :6], "val_loss", 1, 0.0)
        assert state.epoch[i] == epoch + 1
        then, _ = bench.train(bench.members, best)
        # With such a small learning rate the second stage does not change the weights.
        assert_close(member_of(state.variables["params"], i), member_of(then.variables["params"], i))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metrics", "rate", "better"),
    [(("val_accuracy", "val_loss"), 0.1, 2), ((None, "val_loss"), 0.1, 2), (("val_loss", "val_f1"), 3.0, 1)],
)
def test_a_stage_holds_its_epochs_against_the_best_so_far_by_its_own_metric(metrics, rate, better):
    """The stages monitor an accuracy and then a loss, whose values cannot be compared."""
    rules = ["off" if metric is None else f"{metric}:9" for metric in metrics]
    first, second = ({"epochs": 4, "early_stopping": rule} for rule in rules)
    stages = (first, {**second, "learning_rate": rate})
    bench = Bench(make_study(seeds=(0, 1, 2, 3), select="val_accuracy", train={**UNSTEADY, "stages": stages}))
    state, history = bench.train(bench.members, 8)
    ended = []
    for i in range(4):
        best = None
        for epoch in range(8):
            metric = metrics[epoch // 4] or "val_accuracy"
            values = getattr(history, metric)[i]
            lead = 1 if best is None else (values[epoch] - values[best]) * (-1 if metric == "val_loss" else 1)
            best = epoch if lead > 0 else best
        ended.append(best + 1)
    np.testing.assert_array_equal(state.best.epoch, ended)
    assert better in {1 + (epoch > 4) for epoch in ended}  # otherwise another rule gives the same result


@pytest.mark.slow
def test_unshuffled_examples_come_in_their_order_and_the_last_ones_are_dropped():
    """Without shuffling, dropping the last 40 examples equals training on the first 160."""
    train = {"batch_size": 80, "epochs": 1, "shuffle": False, "drop_last": True}
    bench = Bench(make_study(train=train))
    state, history = bench.train(bench.members, 1)
    first = ({**arrays, "train": arrays["train"][:160]} for arrays in (bench.data.images, bench.data.labels))
    data = bench.data._replace(**dict(zip(("images", "labels"), first, strict=True)))
    short = Bench(make_study(train={**train, "drop_last": False}))
    short.data = data
    expected, expected_history = short.train(short.members, 1)
    assert_close(member_of(state.variables, 0), member_of(expected.variables, 0))
    np.testing.assert_allclose(history.train_loss, expected_history.train_loss, rtol=1e-5)
    shuffled = Bench(make_study(train={**train, "shuffle": True}))
    assert abs(shuffled.train(shuffled.members, 1)[1].train_loss - history.train_loss) > 1e-4


def test_stages_are_one_program_and_say_what_they_change():
    stages = ({"weight_decay": 0.1}, {"optimizer": "adam", "epochs": 3, "schedule": "cosine"})
    study = make_study(seeds=(0, 1), train={"learning_rate": (0.01, 0.1), "epochs": 2, "stages": stages})
    assert from_config(study.to_dict()) == study
    plan = make_plan(study)
    (program,) = plan.programs
    assert program.static.optimizer == "adam+sgd" and len(program.members) == 4
    first, second = list_trials(study)[0].stages
    assert (first.optimizer, first.epochs, first.traced.weight_decay) == ("sgd", 2, 0.1)
    assert (second.optimizer, second.epochs, second.traced.momentum) == ("adam", 3, 0.0)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("stages", ({"optimzer": "adam"},), "did you mean 'optimizer'"),
        ("stages", ({"learning_rate": (0.1, 0.2)},), "one value"),
        ("stages", ({"epochs": 0},), "> 0"),
        ("stages", 3, "groups of hyperparameters"),
        ("early_stopping", "val_acuracy:3", "val_accuracy"),
        ("early_stopping", "val_loss:0", "METRIC:PATIENCE"),
        ("clip_norm", 0, "> 0"),
        ("decay", "decoupled", "use train.optimizer: adamw"),
    ],
)
def test_what_is_no_training_rule_is_refused_in_one_line(key, value, words):
    with pytest.raises(RequestError, match=words) as caught:
        make_study(train={key: value})
    assert key in str(caught.value) and "\n" not in str(caught.value)


def test_stopping_by_validation_needs_a_validation_split():
    with pytest.raises(RequestError, match="validation split"):
        make_study(select="train_loss", data={"validation": 0}, train={"early_stopping": "val_loss:3"})
    make_study(select="train_loss", data={"validation": 0}, train={"early_stopping": "train_loss:3"})


@given(st.text(alphabet="valtrinoscuyf1_:.0123456789-e", max_size=25))
def test_any_text_is_answered(text):
    if is_stopping(text) and text != "off":
        rule = read_stopping(text)
        assert rule.metric in EPOCH_MEASURES and rule.patience >= 1 and 0 <= rule.min_change < np.inf


@pytest.mark.slow
def test_metrics_of_validation_are_scikit_learns():
    """Macro precision, recall and F1 of an epoch, from the logits of its last weights."""
    from sklearn.metrics import precision_recall_fscore_support

    bench = Bench(make_study(train={"epochs": 1}))
    state, history = bench.train(bench.members, 1)
    split = bench.splits.validation
    images = np.asarray(split.images, np.float32) * np.asarray(split.scale) + np.asarray(split.shift)
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)
    predicted = logits_of(bench.population.config.network, variables, images).argmax(-1)
    expected = precision_recall_fscore_support(
        np.asarray(split.labels), predicted, labels=range(10), average="macro", zero_division=0
    )
    found = [history.val_precision[0, 0], history.val_recall[0, 0], history.val_f1[0, 0]]
    np.testing.assert_allclose(found, expected[:3], rtol=1e-5)
