"""The PyTorch loops that cnnjax is timed against: they augment and train as they say."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from experiments.benchmarks import pytorch_peer, source_loop, torch_models, torch_vmap  # noqa: E402

pytestmark = pytest.mark.torch

SIZE, PADDING = 8, 4


def all_crops(image):
    """Every (mirrored, top, left) crop of one image, in NumPy."""
    padded = np.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    offsets = range(2 * PADDING + 1)
    plain = {(0, t, x): padded[t : t + SIZE, x : x + SIZE] for t in offsets for x in offsets}
    return plain | {(1, t, x): crop[:, ::-1] for (_, t, x), crop in plain.items()}


def which_crop(crop, image):
    """The one augmentation of `image` that gives `crop`."""
    found = [key for key, other in all_crops(image).items() if np.array_equal(crop, other)]
    assert len(found) == 1, found
    return found[0]


def assert_uniform(draws):
    """Mirrorings, rows and columns are each drawn equally often (5 sigma), and independently."""
    assert len(set(draws)) > 150  # of 162; 161.4 expected of 900 draws
    for values, count in zip(np.transpose(draws), (2, 9, 9), strict=True):
        frequency = np.bincount(values, minlength=count) / len(values)
        sigma = np.sqrt((1 / count) * (1 - 1 / count) / len(values))
        np.testing.assert_allclose(frequency, 1 / count, atol=5 * sigma)


@pytest.fixture
def images():
    # No pixel is 0 and all differ, so that every crop tells where it comes from.
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (3, SIZE, SIZE, 3)).astype("uint8")


@pytest.fixture
def toy():
    """Ten classes, one gray level each, and some noise: a line separates neighbors."""
    rng = np.random.default_rng(0)
    labels = np.arange(640) % 10
    noise = rng.integers(0, 6, (640, SIZE, SIZE, 3))
    return (25 * labels[:, None, None, None] + noise).astype("uint8"), labels


def test_peer_crops_and_flips_as_numpy_does(images):
    torch.manual_seed(0)
    indices = torch.arange(900) % 3
    crops = pytorch_peer.random_crops(pytorch_peer.crop_windows(torch.from_numpy(images)), indices)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    rows = crops.permute(0, 2, 3, 1).numpy()
    # A crop is looked for in the image that was asked for: a mixed-up index fails here too.
    assert_uniform([which_crop(row, images[i]) for row, i in zip(rows, indices, strict=True)])


def test_source_transform_crops_flips_and_scales_as_numpy_does(images):
    torch.manual_seed(0)
    transform = source_loop.train_transform(SIZE)
    draws = []
    for i in range(900):
        tensor = transform(Image.fromarray(images[i % 3]))
        assert tensor.dtype == torch.float32
        pixels = (tensor.permute(1, 2, 0).numpy().astype("float64") * 0.5 + 0.5) * 255
        rounded = np.rint(pixels)
        np.testing.assert_allclose(pixels, rounded, atol=1e-3)
        draws.append(which_crop(rounded.astype("uint8"), images[i % 3]))
    assert_uniform(draws)


@pytest.mark.parametrize("name", ["baseline", "medium", "complex", "base"])
def test_pool_before_relu_changes_neither_logits_nor_gradients(name):
    model = torch_models.build(name, image_size=16).double().eval()
    swapped = pytorch_peer.pool_before_relu(model)
    assert [*swapped] != [*model] and len(swapped) == len(model)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    results = []
    for module in (model, swapped):
        module.zero_grad()
        logits = module(images)
        logits.logsumexp(1).sum().backward()
        results.append((logits.detach().numpy(), torch_models.gradients(module)))
    (logits, gradients), (other_logits, other_gradients) = results
    np.testing.assert_array_equal(logits, other_logits)
    for layer, leaves in gradients.items():
        for leaf, gradient in leaves.items():
            np.testing.assert_allclose(other_gradients[layer][leaf], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_peer_feeds_the_model_scaled_images(toy):
    """With black images every pixel, padding too, is -1."""
    images, labels = toy
    peer = pytorch_peer.Peer("baseline", "sgd", 64, "cpu", np.zeros_like(images), labels)
    seen = []
    peer.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    peer.run(1)
    assert all((batch == -1).all() and batch.shape == (64, 3, SIZE, SIZE) for batch in seen)


def test_peer_visits_every_example_once_an_epoch(toy):
    images, labels = toy
    peer = pytorch_peer.Peer("baseline", "sgd", 60, "cpu", images, labels)
    visited = []
    peer._step = visited.extend
    peer._train(10)  # 600 of 640: ten full batches
    assert len(visited) == len(set(map(int, visited))) == 600
    peer._train(1)
    assert len(visited) == 660


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_both_loops_learn_the_toy(toy, optimizer):
    torch.manual_seed(0)
    peer = pytorch_peer.Peer("baseline", optimizer, 64, "cpu", *toy)
    source = source_loop.SourceLoop("baseline", optimizer, 64, "cpu", *toy)
    means = {}
    for name, loop, total in (
        ("peer", peer, lambda: peer.loss_sum.item()),
        ("source", source, lambda: source.running_loss),
    ):
        loop.run(1)
        first, first_steps = total(), loop.steps
        assert loop.run(150) > 0
        assert loop.steps == first_steps + 150
        before = total()
        loop.run(50)
        means[name] = (first / first_steps, (total() - before) / 50)
    for start, end in means.values():
        assert end < start - 0.3
    # Same data, model and rule: the two loops reach about the same loss.
    assert means["peer"][1] == pytest.approx(means["source"][1], rel=0.15)
    assert peer.hits.item() > 0.15 * 64 * peer.steps  # chance is 0.10


@pytest.mark.slow
def test_stacked_members_learn_the_toy_each_for_itself(toy):
    torch.manual_seed(0)
    stacked = torch_vmap.StackedPeer("complex", "sgd", 64, 3, "cpu", *toy)
    start = {name: value.clone() for name, value in stacked.parameters.items()}
    stacked.run(1)
    first = stacked.loss_sum.item() / stacked.steps
    stacked.run(60)
    before = stacked.loss_sum.item()
    stacked.run(10)
    assert (stacked.loss_sum.item() - before) / 10 < first - 0.3
    assert stacked.hits.item() > 0.15 * 3 * 64 * stacked.steps  # chance is 0.10
    for name, value in stacked.parameters.items():
        assert value.shape[0] == 3
        assert not torch.equal(value, start[name])
        if name.endswith("0.weight"):
            assert not torch.equal(value[0], value[1])


def test_a_stacked_member_takes_the_step_it_takes_alone(toy):
    """One step of two stacked models against each by plain PyTorch, on the same images."""
    images, labels = toy
    stacked = torch_vmap.StackedPeer("medium", "sgd", 64, 2, "cpu", np.zeros_like(images), labels)
    for layer in stacked.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    before = {name: value.clone() for name, value in stacked.parameters.items()}
    indices = torch.randperm(len(labels))[:128]
    stacked._step(indices)
    for member in range(2):
        alone = copy.deepcopy(stacked.model)
        alone.load_state_dict({name: value[member] for name, value in before.items()})
        optimizer = pytorch_peer.make_optimizer("sgd", alone.parameters())
        black = torch.full((64, 3, SIZE, SIZE), -1.0)
        labels_of_member = torch.as_tensor(labels)[indices[64 * member : 64 * (member + 1)]]
        torch.nn.functional.cross_entropy(alone(black), labels_of_member).backward()
        optimizer.step()
        for name, value in alone.named_parameters():
            torch.testing.assert_close(stacked.parameters[name][member], value.detach(), rtol=1e-4, atol=1e-6)


def test_stacked_models_in_bfloat16_move_as_in_float32(toy):
    images, labels = toy
    steps = []
    for bfloat16 in (True, False):
        torch.manual_seed(0)
        stacked = torch_vmap.StackedPeer("baseline", "sgd", 64, 2, "cpu", np.zeros_like(images), labels, bfloat16)
        before = {name: value.clone() for name, value in stacked.parameters.items()}
        stacked._step(torch.arange(128))
        assert all(value.dtype == torch.float32 for value in stacked.parameters.values())
        steps.append(torch.cat([(stacked.parameters[name] - before[name]).flatten() for name in before]))
    assert not torch.equal(*steps)
    assert torch.nn.functional.cosine_similarity(*steps, dim=0) > 0.99


def test_failed_compilation_falls_back_with_a_note(toy, monkeypatch):
    def broken(model):
        def fail(*_):
            raise RuntimeError("no C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    peer = pytorch_peer.Peer("baseline", "sgd", 64, "cpu", *toy, compile=True)
    with pytest.warns(UserWarning, match=r"running eagerly: no C\+\+ compiler"):
        peer.run(1)
    assert not peer.compiled
    assert peer.steps == pytorch_peer.WARM_UP_STEPS + 1


def test_source_loop_with_worker_processes(toy):
    loop = source_loop.SourceLoop("baseline", "adam", 64, "cpu", *toy, num_workers=2)
    assert loop.run(12) > 0  # past the end of an epoch
    assert loop.steps == source_loop.WARM_UP_STEPS + 12
