"""Models, losses, gradients and whole training steps against PyTorch with the same weights and batches."""

import copy
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models.conv import max_pool
from cnnjax.models.ladder import LADDER
from cnnjax.models.modules import BatchNormalization, dropout
from cnnjax.models.network import build_network, initial_variables
from cnnjax.models.specs import BatchNorm, Conv, Dense
from cnnjax.training.augment.batch import gather_batch
from cnnjax.training.optimizers import make_optimizer
from cnnjax.training.stacking import Hparams
from cnnjax.training.train import Batch, loss_fn
from tests.models.test_network import PUBLISHED
from tests.support.studies import ROUGH, logits_of

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
from experiments.benchmarks import torch_models  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.slow]

MODELS = ("baseline", "medium", "complex", "base")
OTHERS = tuple(name for name in PUBLISHED if name not in MODELS)
STEPPED = (*MODELS, "dense_batchnorm", "cnn_final", "blocks_24_48_64")  # every kind of layer


def error(ours, theirs):
    """Relative error of a whole tree, |ours - theirs| / |theirs|, leaf by leaf; the largest."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12) for a, b in pairs)


def without_gradient(name):
    """The layers whose bias batch norm subtracts again.

    Its gradient is zero: in any arithmetic it is rounding, and Adam makes whole steps of it. It is compared on the
    scale of its layer.
    """
    seen, found = Counter(), []
    for layer, following in itertools.pairwise(LADDER[name]):
        if isinstance(layer, Conv | Dense):
            kind = type(layer).__name__.lower()
            if isinstance(following, BatchNorm):
                found.append(f"{kind}{seen[kind]}")
            seen[kind] += 1
    return found


def error_of_parameters(name, ours, theirs):
    """The largest relative error of a leaf, and of a bias without gradient relative to its layer's kernel."""
    ours = {layer: dict(leaves) for layer, leaves in ours.items()}
    theirs = {layer: dict(leaves) for layer, leaves in theirs.items()}
    errors = []
    for layer in without_gradient(name):
        difference = ours[layer].pop("bias") - theirs[layer].pop("bias")
        errors.append(np.linalg.norm(difference) / np.linalg.norm(theirs[layer]["kernel"]))
    return max([error(ours, theirs), *errors])


def batch_of(name, seed):
    shape, num_classes, _ = PUBLISHED[name]
    rng, count = (
        np.random.default_rng(seed),
        8 if name == "dense_batchnorm" else 4,
    )  # its statistics are those of so many numbers
    images = rng.uniform(-1, 1, (count, *shape)).astype(np.float32)
    return images, rng.integers(0, num_classes, count).astype(np.int32)


def pair(name):
    """The two implementations with equal weights; dropout off, for the two draw different masks.

    PyTorch computes in double precision: in single precision it sometimes falls on the other side of a ReLU's kink
    than exact arithmetic, and its own gradient is then wrong by more than the tolerance.
    """
    (size, _, channels), num_classes, _ = PUBLISHED[name]
    module = torch_models.build(name, channels, size, num_classes)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout | torch.nn.Dropout2d):
            part.p = 0.0
    network = build_network(name, num_classes)
    variables = initial_variables(network, (size, size, channels), "pytorch", jax.random.key(3))
    torch_models.load_flax(module, variables["params"], variables.get("batch_stats"))
    return network, variables, module.double()


def smooth_batch(module, name, seed):
    """A batch that keeps the loss smooth: in PyTorch's arithmetic nothing comes near a kink of a ReLU or a max-pool.

    Closer than float32 rounds, two right implementations may stand on two sides of it, with two right gradients.
    """
    kinks = (torch.nn.ReLU, torch.nn.LeakyReLU)

    @torch.no_grad()
    def distance(images):
        twin, nearest = copy.deepcopy(module), []  # a pass in training moves batch statistics

        def observe(layer, inputs):
            (x,) = inputs
            if isinstance(layer, kinks):
                nearest.append(x.abs().min())
            else:
                even = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
                windows = even.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
                first, second = windows.topk(2).values.unbind(-1)
                nearest.append((first - second)[first > 0].min())  # zeros behind a ReLU are no choice

        for layer in twin.modules():
            if isinstance(layer, (*kinks, torch.nn.MaxPool2d)):
                layer.register_forward_pre_hook(observe)
        twin(torch.from_numpy(images.transpose(0, 3, 1, 2)).double())
        return min(nearest)

    batches = (batch_of(name, 1000 * seed + attempt) for attempt in range(300))
    return next(batch for batch in batches if distance(batch[0]) > 5e-7)


def torch_loss(module, images, labels, smoothing):
    logits = module(torch.from_numpy(images.transpose(0, 3, 1, 2)).double())
    target = torch.from_numpy(labels).long()
    return logits, torch.nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)


def hparams_of(**values):
    usual = {
        "learning_rate": 0.01,
        "momentum": 0.0,
        "b1": np.array([0.9, 0.1]),  # with its complement, as the next
        "b2": np.array([0.999, 0.001]),
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "dropout_rate": 0.0,
    }
    numbers = {name: jnp.float32(value) for name, value in {**usual, **values}.items()}
    return Hparams(**{**dict.fromkeys(Hparams._fields, False), **numbers})


def jit_loss(options):
    return jax.jit(jax.value_and_grad(loss_fn, has_aux=True), static_argnums=5, compiler_options=options)


as_users, roughly = jit_loss(None), jit_loss(ROUGH)


def our_grads(network, variables, images, labels, hparams, loss_and_grads=as_users):
    (loss, (batch_stats, sums)), grads = loss_and_grads(
        *(variables["params"], variables.get("batch_stats", {}), Batch(images, labels)),
        *(hparams, jax.random.key(0), network),
    )
    return loss, batch_stats, sums, grads


@pytest.mark.parametrize(
    ("name", "smoothing"), [*zip(MODELS, itertools.cycle((0.1, 0.0))), *((name, 0.1) for name in OTHERS)]
)
def test_logits_loss_gradients_and_statistics(name, smoothing):
    """Programs as a user's for every kind of layer; the other models are as right if they are compiled in less time."""
    options, loss_and_grads = (None, as_users) if name in STEPPED else (ROUGH, roughly)
    network, variables, module = pair(name)
    images, labels = batch_of(name, 0)
    module.eval()
    with torch.no_grad():
        evaluated, _ = torch_loss(module, images, labels, 0.0)
    assert error(logits_of(network, variables, images, options), evaluated.numpy()) < 1e-4

    module.train()
    logits, their_loss = torch_loss(module, images, labels, smoothing)
    their_loss.backward()
    loss, batch_stats, sums, grads = our_grads(
        network, variables, images, labels, hparams_of(label_smoothing=smoothing), loss_and_grads
    )
    assert abs(float(loss) - their_loss.item()) < 1e-4 * their_loss.item()
    assert int(sums.accuracy) == int((logits.argmax(1).numpy() == labels).sum())
    theirs = torch_models.gradients(module)
    # On the scale of the layer, for a bias may have no gradient but rounding.
    for layer, leaves in theirs.items():
        scale = max(np.linalg.norm(leaf) for leaf in leaves.values())
        for leaf in leaves:
            assert np.linalg.norm(grads[layer][leaf] - leaves[leaf]) < 1e-4 * scale
    if "batch_stats" in variables:
        assert error(batch_stats, torch_models.state(module)[1]) < 1e-4


SGD = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.01}
ADAM = {"learning_rate": 1e-3, "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("name", "optimizer", "hparams"),
    [
        *((name, "sgd", SGD) for name in STEPPED),
        # Behind eight batch norms many gradients are as small as Adam's epsilon, and its step along them is rounding.
        *((name, "adam", ADAM) for name in STEPPED if name != "cnn_final"),
    ],
)
def test_five_steps(name, optimizer, hparams):
    network, variables, module = pair(name)
    theirs = (
        torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
        if optimizer == "sgd"
        else torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=0.01)
    )
    traced = hparams_of(**hparams)
    rule = make_optimizer(optimizer, traced)
    state, update = rule.init(variables["params"]), jax.jit(rule.update)
    module.train()
    for step in range(5):
        images, labels = smooth_batch(module, name, step)
        before, before_statistics = torch_models.state(module)
        theirs.zero_grad()
        _, their_loss = torch_loss(module, images, labels, 0.0)
        their_loss.backward()
        theirs.step()
        after, statistics = torch_models.state(module)

        # Each step starts from PyTorch's weights, with the moments of our own steps before it. Left to itself the
        # complex model drifts: Adam takes full steps along gradients that are all but zero, activations cross a
        # ReLU's kink, and PyTorch's own float32 is then up to 2 % from its float64 after five steps.
        variables = {"params": as_float32(before)}
        if before_statistics:
            variables["batch_stats"] = as_float32(before_statistics)
        loss, batch_stats, _, grads = our_grads(network, variables, images, labels, traced)
        updates, state = update(grads, state, variables["params"])
        params = jax.tree.map(lambda p, u: p + u, variables["params"], updates)
        assert abs(float(loss) - their_loss.item()) < 1e-4 * their_loss.item()
        assert error_of_parameters(name, params, after) < 1e-4
        for layer, leaves in after.items():  # weights hardly move in a step: the step itself must agree too
            main = "kernel" if "kernel" in leaves else "scale"
            ours = np.asarray(updates[layer][main])
            assert error(ours, leaves[main] - before[layer][main]) < 2e-3
        if before_statistics:
            assert error(batch_stats, statistics) < 1e-4


def as_float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (2, 3)])
def test_max_pool_with_ties(size):
    images = np.random.default_rng(0).integers(0, 3, (3, *size, 2)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(3, size[0] // 2, size[1] // 2, 2))
    theirs = torch.from_numpy(images.transpose(0, 3, 1, 2)).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(theirs, 2)
    (pooled * torch.from_numpy(weights.transpose(0, 3, 1, 2))).sum().backward()
    value, pullback = jax.vjp(max_pool, images)
    np.testing.assert_array_equal(value, pooled.detach().numpy().transpose(0, 2, 3, 1))
    (gradient,) = pullback(jnp.asarray(weights, jnp.float32))
    expected = theirs.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_batch_norm_of_vectors_and_evaluation():
    module = torch.nn.BatchNorm1d(6)
    norm = BatchNormalization()
    x = np.random.default_rng(0).normal(2.0, 3.0, (9, 6)).astype(np.float32)
    variables = norm.init(jax.random.key(0), x, True)
    for step in range(3):
        ours, moved = norm.apply(variables, x + step, True, mutable=["batch_stats"])
        variables = {**variables, **moved}
        theirs = module(torch.from_numpy(x + step)).detach().numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    module.eval()
    np.testing.assert_allclose(norm.apply(variables, x, False), module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


def test_batch_norm_leaves_its_statistics_alone_where_one_row_has_no_variance():
    """A last batch of one example, behind a dense layer; PyTorch refuses it, and a variance of 0 is not the data's."""
    norm = BatchNormalization()
    rows = np.random.default_rng(0).normal(2.0, 3.0, (9, 6)).astype(np.float32)
    variables = norm.init(jax.random.key(0), rows, True)
    _, moved = norm.apply(variables, rows, True, mutable=["batch_stats"])
    normalized, kept = norm.apply({**variables, **moved}, rows[:1], True, mutable=["batch_stats"])
    np.testing.assert_array_equal(normalized, np.zeros((1, 6)))
    jax.tree.map(np.testing.assert_array_equal, kept, moved)
    # of an image it has one for each pixel
    _, other = norm.apply({**variables, **moved}, rows[None], True, mutable=["batch_stats"])
    assert error(other, moved) > 0.01


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.6])
def test_dropout_keeps_the_expectation(rate):
    x = jnp.ones((400, 500))
    dropped = dropout(x, jnp.float32(rate), jax.random.key(1), x.shape)
    count = x.size
    zeros = int((dropped == 0).sum())
    assert abs(zeros - rate * count) < 5 * (rate * (1 - rate) * count) ** 0.5 + 1e-4 * count
    kept = np.unique(np.asarray(dropped[dropped > 0]))
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-4)


def test_dropout_of_nearly_all_has_a_gradient():
    """The largest rate that a study takes, below 1, is rounded to one that keeps something."""
    rate = jnp.float32(1) - jnp.finfo(jnp.float32).epsneg
    x = jnp.ones((512, 512))
    value, gradient = jax.value_and_grad(lambda x: dropout(x, rate, jax.random.key(0), x.shape).mean())(x)
    assert np.isfinite(gradient).all()
    assert 0 < value < 5  # four of the units are kept, times 65,536


def test_crop_and_flip_are_windows_of_the_padded_image():
    images = np.random.default_rng(0).integers(1, 255, (5, 12, 10, 2), dtype=np.uint8)
    indices = np.tile(np.arange(5), 400)
    words = jax.random.bits(jax.random.key(0), (len(indices),))
    one, zero = jnp.ones(2), jnp.zeros(2)
    batch = gather_batch(
        *(jnp.asarray(images), jnp.asarray(indices), one, zero),
        augment=("flip", "crop"),
        words_B=words,
    )
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    seen = set()
    for index, image in zip(indices, np.asarray(batch), strict=True):
        found = [
            (flip, top, left)
            for flip in (False, True)
            for top in range(9)
            for left in range(9)
            if np.array_equal(image, padded[index][:, :: -1 if flip else 1][top : top + 12, left : left + 10])
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 2 * 9 * 9  # every window of both mirror images comes up
