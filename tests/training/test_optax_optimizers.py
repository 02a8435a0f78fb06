"""Optimizers of Optax: their steps against Optax alone, their arguments, and Muon's matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from cnnjax.training.optimizer_checks import check_groups, check_optimizers
from cnnjax.training.optimizers import make_optimizer
from cnnjax.training.stacking import TableSize, stack_members
from cnnjax.utils.errors import RequestError

SHAPES = {"conv0": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "dense0": {"kernel": (5, 8), "bias": (5,)}}
STEPS = 4

IN_TURN = [
    ("lion", {"b2": 0.95}, lambda: optax.lion(0.05, b2=0.95)),
    ("rmsprop", {"momentum": 0.9, "centered": True, "nesterov": True}, None),
    ("adagrad", {"initial_accumulator_value": 0.2}, None),
    ("nadam", {"b1": 0.8, "eps": 1e-6}, None),
    ("lamb", {"weight_decay": 0.1}, None),
    ("adabelief", {}, None),
    ("radam", {"threshold": 2.0}, None),
    ("yogi", {"b2": 0.9}, None),
    ("amsgrad", {"mu_dtype": "bfloat16"}, None),
    ("adamaxw", {"weight_decay": 0.1}, None),
    ("ademamix", {"alpha": 3}, lambda: contrib.ademamix(0.05, alpha=3.0)),
    ("prodigy", {}, lambda: contrib.prodigy(0.05)),
]


def draw(seed):
    rng = np.random.default_rng(seed)
    return [
        {layer: {n: rng.normal(size=s).astype(np.float32) for n, s in of.items()} for layer, of in SHAPES.items()}
        for _ in range(STEPS + 1)
    ]


def stacked(train):
    """The static configuration of the one program of a study, and the stacked hyperparameters of its members."""
    (program,) = make_plan(from_config({"train": {"learning_rate": 0.05, **train}})).programs
    return program.static, stack_members(program.members, TableSize(10), "val_loss", (0,))[0]


def our_steps(train, member=0, stage=0, drawn=None):
    """The parameters after each step, of one member of the program of a study."""
    static, hparams = stacked(train)
    params, *grads = drawn or draw(0)

    def make(hparams):
        return make_optimizer(static.optimizer, hparams, groups=static.groups)

    @jax.jit
    def step(hparams, params, state, grad):
        updates, state = make(hparams).update(grad, state, params)
        return optax.apply_updates(params, updates), state

    of_stage = jax.tree.map(lambda leaf: jnp.asarray(leaf[member, stage]), hparams)
    state = make(of_stage).init(params)
    for grad in grads:
        params, state = step(of_stage, params, state, grad)
    return params


def their_steps(optimizer, drawn=None):
    params, *grads = drawn or draw(0)
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **{"rtol": 1e-4, "atol": 1e-5, **tolerance}), one, other)


@pytest.mark.parametrize(
    ("name", "arguments", "make"), IN_TURN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_steps_are_those_of_optax(name, arguments, make):
    make = make or (lambda: getattr(optax, name)(0.05, **arguments))
    tolerance = {"atol": 2e-3} if "mu_dtype" in arguments else {}  # bfloat16 rounds another product
    assert_close(our_steps({"optimizer": name, "optimizer_args": arguments}), their_steps(make()), **tolerance)


def test_numbers_are_traced_and_members_differ_in_them():
    axes = {"optimizer": "lion", "optimizer_args": {"b1": (0.5, 0.9), "b2": (0.8, 0.99)}}
    for member, (b1, b2) in enumerate([(0.5, 0.8), (0.5, 0.99), (0.9, 0.8), (0.9, 0.99)]):
        assert_close(our_steps(axes, member), their_steps(optax.lion(0.05, b1=b1, b2=b2)))


def test_stages_of_own_and_of_optax_optimizers_share_a_program():
    stages = (
        {"optimizer": "adam", "optimizer_args": {"eps": 1e-3}},
        {"optimizer": "lion", "optimizer_args": {"b1": 0.5}},
        {"optimizer": "lion", "learning_rate": 0.01},
    )
    for stage, optimizer in enumerate((optax.adam(0.05, eps=1e-3), optax.lion(0.05, b1=0.5), optax.lion(0.01))):
        assert_close(our_steps({"stages": stages}, stage=stage), their_steps(optimizer))


@pytest.mark.slow
def test_muon_orthogonalizes_kernels_as_matrices_and_trains_the_rest_by_adam():
    """Against Muon on matrices [D, F] of two dimensions, whose axes are Optax's default."""
    drawn = draw(0)
    found = our_steps({"optimizer": "muon", "optimizer_args": {"beta": 0.9}}, drawn=drawn)
    as_matrix = {"conv0": lambda kernel: kernel.reshape(-1, 4), "dense0": np.transpose}

    def flat(tree):
        return {layer: {**of, "kernel": as_matrix[layer](of["kernel"])} for layer, of in tree.items()}

    assert_close(flat(found), their_steps(contrib.muon(0.05, beta=0.9), [*map(flat, drawn)]))


@pytest.mark.slow
def test_stacked_members_train_by_muon_as_each_alone():
    static, hparams = stacked(
        {"optimizer": "muon", "learning_rate": (0.01, 0.05), "optimizer_args": {"beta": (0.8, 0.9)}}
    )
    params, grad, *_ = draw(0)

    def step(hparams):
        optimizer = make_optimizer(static.optimizer, hparams)
        updates, _ = optimizer.update(grad, optimizer.init(params), params)
        return updates

    of_stage = jax.tree.map(lambda leaf: jnp.asarray(leaf[:, 0]), hparams)
    together, in_turn = jax.vmap(step)(of_stage), jax.lax.map(step, of_stage)
    for member in range(4):
        alone = step(jax.tree.map(lambda leaf, member=member: leaf[member], of_stage))
        for stack in (together, in_turn):
            assert_close(jax.tree.map(lambda leaf, member=member: leaf[member], stack), alone, rtol=1e-3)


@pytest.mark.torch
def test_groups_are_parameter_groups_of_pytorch():
    torch = pytest.importorskip("torch")
    groups = {"bias": {"learning_rate": 4}, "conv|bias": {"weight_decay": 0.5}, "dense": {"weight_decay": 0}}
    train = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1, "groups": groups}
    rates = {("conv0", "kernel"): (0.05, 0.05), ("conv0", "bias"): (0.2, 0.05)}
    rates |= {("dense0", "kernel"): (0.05, 0.0), ("dense0", "bias"): (0.2, 0.0)}
    start, *grads = draw(0)
    weights = {key: torch.tensor(start[key[0]][key[1]], requires_grad=True) for key in rates}
    each = [{"params": [weights[key]], "lr": lr, "weight_decay": decay} for key, (lr, decay) in rates.items()]
    optimizer = torch.optim.SGD(each, lr=1, momentum=0.9)
    for grad in grads:
        for (layer, leaf), weight in weights.items():
            weight.grad = torch.tensor(grad[layer][leaf])
        optimizer.step()
    found = our_steps(train)
    for (layer, leaf), weight in weights.items():
        np.testing.assert_allclose(found[layer][leaf], weight.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_groups_of_optax_optimizers_are_those_of_partition():
    for name in ("lion", "muon"):
        make = getattr(optax, name, None) or getattr(contrib, name)
        decays = {"weight_decay": 0.1} | ({"adam_weight_decay": 0.2} if name == "muon" else {})
        rest = make(0.05, **decays)
        if name == "muon":  # of matrices of two dimensions, Muon's are the kernels [D, F]
            decays["nesterov"], rest = False, make(0.05, nesterov=False, **decays)
        biases = make(0.05 * 64, **{key: 0 if "decay" in key else value for key, value in decays.items()})
        label = {layer: {"kernel": "rest", "bias": "biases"} for layer in SHAPES}
        drawn = [
            {layer: {**of, "kernel": of["kernel"].reshape(-1, 4)} for layer, of in tree.items()} for tree in draw(0)
        ]
        groups = {"bias$": {"learning_rate": 64, "weight_decay": 0}}
        train = {"optimizer": name, "optimizer_args": decays, "groups": groups}
        expected = optax.partition({"rest": rest, "biases": biases}, label)
        if name == "muon":
            drawn = [{"a": tree["conv0"], "b": tree["dense0"]} for tree in drawn]  # not named as the ladder's layers
            expected = optax.partition({"rest": rest, "biases": biases}, dict(zip("ab", label.values(), strict=True)))
        assert_close(our_steps(train, drawn=drawn), their_steps(expected, drawn), rtol=1e-3)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            {"optimizer": "amsgrad", "optimizer_args": {"mu_dtype": "float99"}},
            "train.optimizer='amsgrad(mu_dtype=float99)'",
        ),
        ({"optimizer": "muon", "optimizer_args": {"preconditioning": "no"}}, "Optax refuses it with these arguments ("),
        ({"groups": {"norm": {"learning_rate": 2}}}, "train.groups='norm': it matches no parameter; the names are "),
    ],
)
def test_what_optax_or_the_models_refuse_is_told_before_training(train, said):
    study = from_config({"train": train})
    with pytest.raises(RequestError) as error:
        check_optimizers(study)
        check_groups(study, (8, 8, 1), 10)
    assert said in str(error.value) and "\n" not in str(error.value)
