"""Members that train together: each trains as if alone, one trace serves all, a diverged member disturbs no other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import load_dataset
from cnnjax.models.ladder import LADDER
from cnnjax.study.plan import make_plan
from cnnjax.training.augment.batch import gather_batch
from cnnjax.training.device_data import put_data
from cnnjax.training.devices import is_out_of_memory, make_mesh
from cnnjax.training.memory import member_batch_size
from cnnjax.training.population import Population
from cnnjax.training.stacking import steps_per_epoch, table_size
from cnnjax.training.train import Batch, epoch_order, loss_fn, stream_key
from tests.support.studies import logits_of, make_study

pytestmark = [pytest.mark.usefixtures("dense"), pytest.mark.slow]


class Bench:
    """A study's one program, ready to train any of its members."""

    def __init__(self, study, devices=1, shards=1):
        dataset = load_dataset(study.data, study.split_seeds)
        (program,) = make_plan(study).programs
        mesh = make_mesh(jax.local_devices()[:devices], shards)
        self.members = program.members
        self.data = put_data(dataset, study, mesh)
        static = program.static
        steps = steps_per_epoch(len(dataset.train), static.batch_size, static.drop_last)
        tables = table_size((stage for member in self.members for stage in member.trials[-1].stages), steps)
        shape = dataset.image_shape, len(dataset.classes)
        self.population = Population(study, static, *shape, mesh, tables=tables)

    def init(self, members):
        return self.population.init(*self.population.stack(members))

    @property
    def splits(self):
        """The splits of the first member."""
        hparams, streams = self.population.stack(self.members[:1])
        return self.data.of_member(member_of(hparams, 0), member_of(streams, 0), 0)

    def predict(self, members, state):
        return self.population.predict(state, *self.population.stack(members), self.data)

    def train(self, members, epochs, state=None, size=0):
        """Trains `members` for `epochs`, call by call: their state and metrics [members, epochs]."""
        stacked = self.population.stack(members, size)
        state = self.population.init(*stacked) if state is None else state
        histories = []
        for _ in range(epochs):
            state, history = self.population.advance(state, *stacked, self.data, 1)
            histories.append(history)
        return state, jax.tree.map(lambda *columns: np.concatenate(columns, 1), *histories)


def member_of(tree, index):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def is_different(one, other):
    return any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), one, other)))


def test_adam_leaves_a_bias_that_batch_norm_removes_as_it_was(tiny):
    bench = Bench(make_study(train={"optimizer": "adam", "learning_rate": 0.1}))
    start = bench.init(bench.members).variables["params"]["conv0"]
    state, _ = bench.train(bench.members, 2, bench.init(bench.members))
    end = state.variables["params"]["conv0"]
    assert_same(end["bias"], start["bias"])
    assert is_different(end["kernel"], start["kernel"])


def test_a_member_does_not_depend_on_its_company():
    """Alone, among ten, and in batches of four members, of which the last has two copies."""
    train = {"learning_rate": (1e-3, 1e-2), "weight_decay": 1e-3, "label_smoothing": 0.1}
    bench = Bench(make_study(seeds=(0, 1, 2, 3, 4), data={"augment": ("flip", "crop")}, train=train))
    assert len(bench.members) == 10
    together = bench.train(bench.members, 2)
    for i in (0, 7):
        alone = bench.train([bench.members[i]], 2)
        assert_close(member_of(alone, 0), member_of(together, i))
    for first in (0, 4, 8):
        batch = bench.members[first : first + 4]
        trained = bench.train(batch, 2, size=4)
        for i in range(len(batch)):
            assert_close(member_of(trained, i), member_of(together, first + i))
    weights = together[0].variables
    assert all(is_different(member_of(weights, 0), member_of(weights, i)) for i in range(1, 10))
    assert bench.population.traces == 3  # a trace for each number of members
    assert bench.population.compiled["chunk_members"] == [1, 4, 10]


def test_copies_that_fill_a_batch_do_not_train_on_a_cpu(monkeypatch):
    bench = Bench(make_study(seeds=(0, 1, 2), train={"epochs": (2, 3), "schedule": "cosine"}))
    members = bench.members[:4]
    state, history = bench.train(members, 2)
    filled, of_filled = bench.train(members[:2], 2, size=4)
    for place in (0, 1):
        assert_same(member_of((filled, of_filled), place), member_of((state, history), place))
    start = bench.init(members[:1])
    for copy in (2, 3):
        assert_same(member_of(filled, copy), member_of(start, 0))
        assert np.isnan(of_filled.train_loss[copy]).all()
    resumed = bench.population.with_more_epochs(filled, bench.population.stack(members[:2], 4)[0])
    assert_same(resumed, filled)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # there, members train side by side
    assert (bench.population.stack(members[:2], 4)[0].epochs > 0).all()


def test_epochs_in_one_call_or_one_by_one():
    bench = Bench(make_study(checkpoint={"every": 3}))
    one_by_one = bench.train(bench.members, 2)
    started = bench.init(bench.members)
    at_once = bench.population.advance(started, *bench.population.stack(bench.members), bench.data, 2)
    assert at_once[1].train_loss.shape == (1, 2)
    assert_same(at_once, one_by_one)


def test_one_trace_serves_all_batches_of_members_and_hparams(monkeypatch):
    calls = []
    compile_ = jax.stages.Lowered.compile
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self: calls.append(self) or compile_(self))
    train = {"learning_rate": (1e-3, 1e-2), "weight_decay": (0, 0.1), "dropout_rate": (None, 0.5)}
    bench = Bench(make_study(seeds=(0, 1), streams={"order": (None, 7)}, train=train))
    assert len(bench.members) == 32
    for first in range(0, 32, 8):
        bench.train(bench.members[first : first + 8], 2)
    assert bench.population.traces == bench.population.compiled["compilations"] == 1
    assert len(calls) == 2  # initialization and training


def test_bfloat16_rounds_the_arithmetic_and_keeps_the_weights():
    """A step in bfloat16 (8 bits) is that in float32 up to its rounding; whatever lasts is float32."""
    exact, rounded = (Bench(make_study(train={"precision": p, "epochs": 1})) for p in ("float32", "bfloat16"))
    assert_same(exact.init(exact.members).variables, rounded.init(rounded.members).variables)
    (state, history), (rough, rough_history) = exact.train(exact.members, 1), rounded.train(rounded.members, 1)
    kept = [leaf.dtype for leaf in jax.tree.leaves(rough) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    assert set(kept) == {jnp.dtype("float32")}
    assert is_different(state.variables, rough.variables)
    np.testing.assert_allclose(rough_history.train_loss, history.train_loss, rtol=0.02)
    logits, rough_logits = (
        bench.predict(bench.members, trained).astype(np.float32)
        for bench, trained in ((exact, state), (rounded, rough))
    )
    assert 1e-4 < np.linalg.norm(rough_logits - logits) / np.linalg.norm(logits) < 0.05


def test_a_schedule_moves_the_learning_rate():
    """Half the rate from the second epoch on is the second epoch at half the rate."""
    scheduled = Bench(make_study(train={"learning_rate": 0.1, "schedule": "piecewise:1=0.5"}))
    _, history = scheduled.train(scheduled.members, 2)
    fast, slow = (Bench(make_study(train={"learning_rate": rate})) for rate in (0.1, 0.05))
    state, first = fast.train(fast.members, 1)
    assert_same(member_of(first, slice(None)).train_loss[:, 0], history.train_loss[:, 0])
    _, second = slow.train(slow.members, 1, state)
    assert_same(second.train_loss[:, 0], history.train_loss[:, 1])
    _, constant = fast.train(fast.members, 1, state)
    assert constant.train_loss[0, 0] != history.train_loss[0, 1]


def test_within_an_epoch_the_rate_moves_from_step_to_step():
    """A triangle with its peak within the epoch: four steps, by hand."""
    train = {"learning_rate": 0.1, "epochs": 1, "schedule": "triangle:0.5:0.2:0.4", "momentum": 0.0}
    bench = Bench(make_study(train=train))
    hparams, streams = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in bench.population.stack(bench.members))
    start = member_of(bench.init(bench.members).variables, 0)
    params, batch_stats = start["params"], start["batch_stats"]
    split = bench.splits.train
    order = epoch_order(stream_key(streams, "order", 0), len(split.labels))
    key = stream_key(streams, "dropout", 0)
    grad_fn = jax.jit(jax.grad(loss_fn, has_aux=True), static_argnums=5)
    for step, factor in enumerate((0.2, 0.6, 1, 0.7)):
        batch = order[50 * step : 50 * (step + 1)]
        images = gather_batch(split.images, batch, split.scale, split.shift)
        grads, (batch_stats, _) = grad_fn(
            *(params, batch_stats, Batch(images, split.labels[batch]), hparams),
            *(jax.random.fold_in(key, step), bench.population.config.network),
        )
        params = jax.tree.map(lambda p, g, factor=factor: p - 0.1 * factor * g, params, grads)
    trained, _ = bench.train(bench.members, 1)
    assert_close(member_of(trained.variables, 0), {"params": params, "batch_stats": batch_stats})


def test_members_of_other_horizons_share_a_program_and_end_at_their_own():
    study = make_study(train={"epochs": (1, 3), "schedule": "cosine"})
    bench = Bench(study)
    assert [member.epochs for member in bench.members] == [1, 3]
    (state, _), (short, _) = bench.train(bench.members, 3), bench.train(bench.members, 1)
    assert list(state.epoch) == [1, 3]
    assert_same(member_of(state, 0), member_of(short, 0))
    alone, _ = bench.train(bench.members[1:], 3)
    assert_close(member_of(alone, 0), member_of(state, 1))


def test_each_stream_decides_its_part_only():
    streams = {"init": (0, 1), "order": (0, 1), "augment": (0, 1), "dropout": (0, 1)}
    bench = Bench(make_study(streams=streams, data={"augment": ("flip",)}))
    seeds = [member.trials[0].streams for member in bench.members]
    started = bench.init(bench.members).variables
    trained = bench.train(bench.members, 1)[0].variables
    for i in range(1, 16):
        has_other_init = seeds[i].init != seeds[0].init
        assert is_different(member_of(started, i), member_of(started, 0)) == has_other_init
        assert is_different(member_of(trained, i), member_of(trained, 0)), seeds[i]


# With one batch an epoch the first epoch's loss is finite: it comes before the update.
@pytest.mark.parametrize(("batch_size", "epoch"), [(50, 1), (200, 2)])
def test_a_diverged_member_is_frozen_and_disturbs_nobody(batch_size, epoch, tiny):
    rates = (1e-3, 1e-2, 1e30)
    bench = Bench(make_study(train={"batch_size": batch_size, "learning_rate": rates, "epochs": 3}))
    healthy, other, diverging = bench.members

    started = bench.init([healthy, diverging])
    before = bench.train([healthy, diverging], epoch - 1, started)[0] if epoch > 1 else started
    state, history = bench.train([healthy, diverging], 3, started)
    np.testing.assert_array_equal(state.diverged, [0, epoch])
    np.testing.assert_array_equal(np.isfinite(history.train_loss), [[True] * 3, [i < epoch for i in (1, 2, 3)]])
    frozen = member_of((state.variables, state.opt_state, state.best), 1)
    assert_same(frozen, member_of((before.variables, before.opt_state, before.best), 1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(frozen[0]))

    expected = bench.train([healthy, other], 3)
    np.testing.assert_array_equal(expected[0].diverged, [0, 0])
    assert_same(member_of((state, history), 0), member_of(expected, 0))


# At this rate training is so unsteady that the best epoch is rarely the last one.
UNSTEADY = {"optimizer": "adam", "learning_rate": 0.1, "epochs": 6}


@pytest.mark.parametrize("select", ["val_accuracy", "val_loss"])
def test_best_is_the_first_epoch_with_the_best_metric(select):
    bench = Bench(make_study(seeds=(0, 1, 2), select=select, train=UNSTEADY))
    state, history = bench.train(bench.members, 6)
    found = history.val_loss.argmin(1) if select == "val_loss" else history.val_accuracy.argmax(1)
    np.testing.assert_array_equal(state.best.epoch, found + 1)
    assert (found < 5).any()
    for i, epochs in enumerate(found + 1):
        then = bench.train(bench.members, int(epochs))[0]
        assert_same(member_of(state.best.variables, i), member_of(then.variables, i))


def test_without_validation_there_is_no_best():
    bench = Bench(make_study(select="test_accuracy", data={"validation": 0}))
    state, history = bench.train(bench.members, 1)
    assert state.best is None
    assert np.isnan(history.val_loss).all() and np.isnan(history.val_accuracy).all()


def test_predictions_are_those_of_the_weights():
    """Test logits from the weights by numpy and SciPy alone, for a network of one dense layer."""
    from cnnjax.models.specs import Dense

    LADDER["tiny"] = (Dense(),)  # the fixture puts things back
    # 200 examples in batches of 64: the epoch ends with a smaller batch.
    bench = Bench(make_study(data={"normalization": "unit"}, train={"batch_size": 64}))
    state, _ = bench.train(bench.members, 1)
    logits = bench.predict(bench.members, state)
    layer = member_of(state.variables["params"]["dense0"], 0)
    images = np.asarray(bench.splits.test.images, np.float64).reshape(len(logits[0]), -1) / 255
    expected = images @ layer["kernel"].T + layer["bias"]
    assert logits.dtype == np.float16
    np.testing.assert_allclose(logits[0], expected - expected.max(1, keepdims=True), atol=2e-3)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 2, 3, 4, 8]))
def test_member_batch_size(members, most, devices):
    size = member_batch_size(members, most, devices)
    limit = max(devices, min(most, members + -members % devices) // devices * devices)
    assert size % devices == 0
    assert devices <= size <= limit
    assert size >= limit / 2

    def copies(size):
        return -(-members // size) * size - members

    assert copies(size) < size  # no batch of copies only
    rivals = [s for s in range(devices, limit + 1, devices) if s >= limit / 2]
    assert copies(size) == min(map(copies, rivals))


@pytest.mark.parametrize(
    ("members", "most", "devices", "size"),
    [(10, 10, 1, 10), (10, 4, 1, 2), (10, 8, 1, 5), (5, 3, 1, 3), (10, 12, 4, 12), (1, 1, 4, 4), (7, 4, 2, 4)],
)
def test_member_batch_sizes_by_hand(members, most, devices, size):
    assert member_batch_size(members, most, devices) == size


def test_out_of_memory_is_recognized():
    with pytest.raises(Exception) as caught:
        jnp.zeros(1 << 46).block_until_ready()
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("shapes do not match"))


def test_augmented_test_images_are_those_of_a_training_step_and_validation_stays_plain():
    augment = ("flip_all", "crop", "rotate")
    plain, turned = (
        Bench(make_study(data={"augment": augment, "augment_test": flag}, streams={"split": 3}))
        for flag in (False, True)
    )
    state, _ = plain.train(plain.members, 1)
    there, _ = turned.train(turned.members, 1)
    assert_same(there.best, state.best)
    test = plain.splits.test
    words = jax.random.bits(jax.random.key(3), (len(test.labels),))
    images = gather_batch(
        test.images, jnp.arange(len(words)), test.scale, test.shift, augment=augment, words_B=jnp.asarray(words)
    )
    network, variables = plain.population.config.network, member_of(state.variables, 0)
    expected = logits_of(network, variables, images)
    shifted = turned.predict(turned.members, there)[0].astype(np.float32)
    np.testing.assert_allclose(shifted, expected - expected.max(-1, keepdims=True), rtol=2e-3, atol=1e-3)
    assert np.abs(shifted - plain.predict(plain.members, state)[0]).max() > 0.1


def test_a_test_split_that_validates_is_augmented_in_both_places():
    data = {"augment": ("flip_vertical_all",), "augment_test": True, "validation": 0.0}
    bench = Bench(make_study(data=data | {"validation_from": "same_as_test"}))
    assert bench.data.images["validation"] is bench.data.images["test"]
    state, history = bench.train(bench.members, 1)
    test = bench.splits.test
    labels = np.asarray(test.labels)
    upside_down = np.asarray(test.images)[:, ::-1] * test.scale + test.shift
    variables = member_of(state.variables, 0)
    expected = logits_of(bench.population.config.network, variables, upside_down).argmax(-1)
    assert history.val_accuracy[0, 0] == pytest.approx((expected == labels).mean())
    assert (bench.predict(bench.members, state)[0].argmax(-1) == expected).all()


def test_members_of_one_program_have_their_own_splits_and_normalization():
    """As studies of one split each train, whose data are no pool."""
    data = {"normalization": ("standard", "unit"), "augment": "flip+crop"}
    bench = Bench(make_study(streams={"split": (0, 7)}, data=data))
    state, history = bench.train(bench.members, 2)
    logits = bench.predict(bench.members, state)
    assert bench.population.traces == 1 and [*bench.data.images] == ["pool"]
    for place, member in enumerate(bench.members):
        trial = member.trials[0]
        kind = trial.stages[0].traced.normalization
        alone = Bench(make_study(streams={"split": trial.streams.split}, data=data | {"normalization": kind}))
        assert [*alone.data.images] == ["train", "validation", "test"]
        there, expected = alone.train(alone.members, 2)
        assert_close(member_of(state.variables, place), member_of(there.variables, 0))
        assert_close(member_of(history, place), member_of(expected, 0))
        np.testing.assert_allclose(logits[place], alone.predict(alone.members, there)[0], atol=2e-3)


def test_folds_of_unequal_size_validate_on_each_example_once():
    """1,438 images leave folds of 288 and 287: their accuracies are those of the last weights on the fold's images."""
    data = {"folds": 5, "validation": None, "train_examples": None, "stored_augment": "none"}
    study = make_study(data=data, train={"epochs": 1})
    bench, dataset = Bench(study), load_dataset(study.data)
    state, history = bench.train(bench.members, 1)
    assert bench.population.traces == 1 and len(bench.members) == 5
    network, sizes = bench.population.config.network, []
    for place, partition in enumerate(dataset.partitions.values()):
        images = dataset.pool.images[partition.validation] / np.float32(127.5) - 1
        predicted = logits_of(network, member_of(state.variables, place), images).argmax(-1)
        expected = (predicted == dataset.pool.labels[partition.validation]).mean()
        assert history.val_accuracy[place, 0] == pytest.approx(expected, abs=1e-6)
        sizes.append(len(partition.validation))
    assert sorted(sizes) == [287, 287, 288, 288, 288]


def test_each_program_trains_on_its_number_of_examples():
    study = make_study(data={"train_examples": (50, 100)}, train={"epochs": 1})
    dataset, mesh = load_dataset(study.data), make_mesh(jax.local_devices()[:1])
    together, data = make_plan(study).programs, put_data(dataset, study, mesh)
    for program in together:
        population = Population(study, program.static, dataset.image_shape, 10, mesh)
        stacked = population.stack(program.members)
        state, history = population.advance(population.init(*stacked), *stacked, data, 1)
        alone = Bench(make_study(data={"train_examples": program.static.train_examples}, train={"epochs": 1}))
        expected, there = alone.train(alone.members, 1)
        assert_close((member_of(state.variables, 0), history), (member_of(expected.variables, 0), there))
