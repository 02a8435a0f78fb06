"""Averages of the weights: against PyTorch and Optax, several decays of one training, and their records."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cnnjax
from cnnjax.analysis.read import read_run
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.training.stacking import Hparams
from cnnjax.training.train_state import Averages, TrainState, average_weights
from cnnjax.utils.errors import RequestError
from tests.support.runs import Crash, assert_equal_numbers, crash_at, read_all, run
from tests.support.studies import logits_of, make_study
from tests.training.test_population import Bench, assert_close, assert_same, member_of

SHAPE, STEPS = (4, 3), 7


def draw():
    rng = np.random.default_rng(0)
    return [
        {name: rng.normal(size=SHAPE).astype(np.float32) for name in ("weights", "stats")} for _ in range(STEPS + 1)
    ]


def begin(start, ema, lookahead=(0, 0)):
    """A state before its first step with an average for each decay, and its hyperparameters."""
    variables = {"params": {"w": start["weights"]}, "batch_stats": {"m": start["stats"]}}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(ema)), variables)
    hparams = Hparams(**dict.fromkeys(Hparams._fields))
    hparams = hparams._replace(
        ema=jnp.array([(d, 1 - d) for d in ema], jnp.float32), lookahead=jnp.array(lookahead, float)
    )
    absent = dict.fromkeys(TrainState._fields)
    return TrainState(**{**absent, **variables, "averages": Averages(**stacked)}), hparams


@pytest.mark.torch
def test_each_decay_averages_as_pytorch_does():
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    decays, (start, *steps) = (0.5, 0.99), draw()
    state, hparams = begin(start, decays)
    model = torch.nn.Module()
    model.weights = torch.nn.Parameter(torch.tensor(start["weights"]))
    model.register_buffer("stats", torch.tensor(start["stats"]))
    theirs = [AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(d), use_buffers=True) for d in decays]
    for number, step in enumerate(steps, 1):
        state = state._replace(params={"w": step["weights"]}, batch_stats={"m": step["stats"]})
        state = jax.jit(average_weights)(state, hparams, number)
        with torch.no_grad():
            model.weights.copy_(torch.tensor(step["weights"]))
            model.stats.copy_(torch.tensor(step["stats"]))
        for averaged in theirs:
            averaged.update_parameters(model)
        assert_same(state.params["w"], step["weights"])
    for place, averaged in enumerate(theirs):
        assert_close(state.averages.params["w"][place], averaged.module.weights.detach().numpy())
        assert_close(state.averages.batch_stats["m"][place], averaged.module.stats.numpy())


def test_lookahead_is_that_of_optax():
    start, *grads = (each["weights"] for each in draw())
    optimizer = optax.lookahead(optax.sgd(0.1), sync_period=3, slow_step_size=0.4)
    theirs = optax.LookaheadParams.init_synced(start)
    opt_state = optimizer.init(theirs)
    state, hparams = begin({"weights": start, "stats": start}, (np.nan,), lookahead=(3, 0.4))
    for number, grad in enumerate(grads, 1):
        state = state._replace(params={"w": state.params["w"] - 0.1 * grad})
        state = jax.jit(average_weights)(state, hparams, number)
        updates, opt_state = optimizer.update(grad, opt_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        assert_close((state.params["w"], state.averages.params["w"][0]), (theirs.fast, theirs.slow))


def test_several_decays_are_read_off_one_training():
    study = from_config(
        {"train": {"ema": (None, 0.9, 0.99), "epochs": (1, 2), "early_stopping": ("off", "val_loss:1")}}
    )
    plan = make_plan(study)
    shared = [len(member.decays) for program in plan.programs for member in program.members if program.static.averages]
    assert (len(plan.trials), sorted(shared)) == (12, [1, 1, 2])  # what is measured on an average may stop a training
    many = make_plan(from_config({"train": {"ema": tuple(np.linspace(0.1, 0.9, 11))}}))
    assert [len(member.decays) for program in many.programs for member in program.members] == [8, 3]


def test_the_default_changes_no_id():
    plain, averaged = (make_plan(from_config({"train": {"ema": ema}})).trials for ema in (None, (None, 0.9)))
    assert plain == averaged[:1]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"ema": 1.0}, "train.ema must be a number >= 0 and < 1, or None, got 1.0"),
        ({"lookahead": "5"}, "train.lookahead must be off, or STEPS:RATE"),
        ({"lookahead": "0:0.5"}, "train.lookahead must be off, or STEPS:RATE"),
        ({"lookahead": "5:nan"}, "train.lookahead must be off, or STEPS:RATE"),
        ({"lookahead": 5}, "train.lookahead must be off, or STEPS:RATE"),
        ({"lookahead": ("off", "5:0.5"), "ema": 0.9}, "train.ema averages the weights, too; use one of them"),
    ],
)
def test_what_is_not_an_average_is_refused(train, said):
    with pytest.raises(RequestError, match=r"one of them|must be") as error:
        from_config({"train": train})
    assert said in str(error.value)


@pytest.mark.slow
def test_a_training_does_not_depend_on_its_averages(dense):
    averaged, plain = (Bench(make_study(train={"ema": ema})) for ema in ((0.5, 0.9), None))
    assert (len(averaged.members), len(plain.members)) == (1, 1)
    (state, history), (none, trained) = (bench.train(bench.members, 2) for bench in (averaged, plain))
    assert_close(state.variables, none.variables)
    assert_close(history.train_loss[..., 1], trained.train_loss)
    assert not np.allclose(history.val_loss[..., 0], history.val_loss[..., 1])
    logits = averaged.predict(averaged.members, state)
    for place in (0, 1):  # each average is evaluated as a network of its own
        weights = member_of(state.averages.variables, (0, place))
        measured = logits_of(plain.population.config.network, weights, images_of(plain))
        np.testing.assert_allclose(logits[0, place], measured - measured.max(-1, keepdims=True), atol=0.02)


def images_of(bench):
    test = bench.splits.test
    return test.images[test.examples(jnp.arange(test.size))] * test.scale + test.shift


@pytest.mark.slow
def test_a_study_grows_by_decays_arguments_and_epochs(quick, tmp_path):
    first = {"optimizer": "nadam", "momentum": 0.0, "optimizer_args": {"eps": 1e-4}, "ema": 0.9}
    last = {**first, "ema": (0.5, 0.9), "optimizer_args": {"eps": (1e-4, 1e-8)}, "epochs": (2, 3)}
    rows = {}
    for train in (first, {**first, "ema": (0.5, 0.9)}, {**last, "ema": 0.5}, last):
        run(make_study(train=train), tmp_path / "grown")
        table = cnnjax.load_results(tmp_path / "grown").set_index("trial")
        for trial in rows.keys() & {*table.index}:
            assert table.loc[trial].equals(rows[trial])
        rows |= dict(table.iterrows())
    run(make_study(train=last), tmp_path / "whole")
    assert_equal_numbers(tmp_path / "grown", tmp_path / "whole", rtol=0, atol=1e-5)
    found = read_run(tmp_path / "grown")
    assert len(rows) == 8 and found.varying == ["epochs", "ema", "optimizer_eps"]
    assert found.epochs.groupby("member").size().tolist() == [3] * 4
    images = digits_of(make_study())
    for trial in rows:
        logits = cnnjax.load_trial(tmp_path / "grown", trial).logits(images)
        stored = np.load(tmp_path / "grown" / "predictions" / f"{trial}.npz")["logits"]
        np.testing.assert_allclose(logits - logits.max(-1, keepdims=True), stored, atol=0.02)


def digits_of(study):
    from cnnjax.data import load_dataset

    return load_dataset(study.data, study.split_seeds).test.images


@pytest.mark.slow
def test_averages_resume_with_the_same_bits(quick, tmp_path):
    study = make_study(train={"ema": (0.5, 0.9), "epochs": (1, 3)})
    run(study, tmp_path / "whole")
    expected = read_all(tmp_path / "whole")
    for number in (6, 9):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            crash_at(patch, number)
            run(study, tmp_path / str(number))
        assert read_metrics(tmp_path / str(number)) != read_metrics(tmp_path / "whole")
        run(study, tmp_path / str(number))
        assert read_all(tmp_path / str(number)) == expected


def read_metrics(workdir):
    return [file.read_bytes() for file in workdir.glob("programs/*/metrics.jsonl")]
