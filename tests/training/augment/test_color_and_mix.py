"""Brightness, contrast, cutout, mixup, cutmix and alternating flips, against closed forms and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnnjax.training.augment.batch import augmented_batch, gather_batch
from cnnjax.training.augment.draws import alternate_flips
from cnnjax.training.train import Batch
from tests.support.studies import make_study

COUNT, CLASSES = 3000, 4


def random_words(count=COUNT, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2**32, count, np.uint32))


def augmented(images, augment, scale=1.0, shift=0.0, words=None, labels=None):
    """A batch in which image i has word i."""
    channels = images.shape[-1]
    words = random_words(len(images)) if words is None else words
    labels = jnp.zeros(len(images), jnp.int32) if labels is None else jnp.asarray(labels)
    constants = jnp.full(channels, scale, jnp.float32), jnp.full(channels, shift, jnp.float32)

    @jax.jit  # of a new function, so that it is traced anew
    def batch(images, labels, words):
        indices = jnp.arange(len(images))
        split = images, labels, indices, *constants
        return Batch(*augmented_batch(*split, CLASSES, augment=augment, words_B=words))

    return jax.tree.map(np.asarray, batch(jnp.asarray(images), labels, words))


def is_uniform(values, low, high):
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01


@pytest.mark.parametrize(("amount", "low", "high"), [(0.4, 0.6, 1.4), (2.0, 0.0, 3.0)])
def test_brightness_multiplies_by_a_uniform_factor(amount, low, high):
    images = np.full((COUNT, 2, 2, 1), 50, np.uint8)
    factors = augmented(images, (f"brightness:{amount}",)).images / 50
    assert np.ptp(factors, axis=(1, 2, 3)).max() == 0
    assert is_uniform(factors[:, 0, 0, 0], low, high)
    bright = augmented(np.full((COUNT, 2, 2, 1), 250, np.uint8), (f"brightness:{amount}",)).images
    np.testing.assert_allclose(bright, np.minimum(250 * factors, 255), rtol=1e-5)


def test_contrast_moves_pixels_from_the_mean_gray_value_by_a_uniform_factor():
    images = np.random.default_rng(0).integers(100, 150, (COUNT, 3, 4, 3), np.uint8)
    gray = (images @ [0.2989, 0.587, 0.114]).mean((1, 2))[:, None, None, None]
    found = augmented(images, ("contrast:0.4",)).images
    factors = np.median((found - gray) / (images - gray), (1, 2, 3))
    of_image = factors[:, None, None, None]
    np.testing.assert_allclose(found, of_image * images + (1 - of_image) * gray, atol=1e-3)
    assert is_uniform(factors, 0.6, 1.4)


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_sets_a_square_to_zero_after_normalization(side):
    """Every pixel is its center equally often, so the border cuts squares."""
    height, width = 6, 9
    white = np.full((COUNT, height, width, 1), 255, np.uint8)
    holes = augmented(white, (f"cutout:{side}",), 2 / 255, -1.0).images[..., 0] == 0
    around = np.zeros((height + 2 * side, width + 2 * side), int)
    squares = []
    for row in range(height):
        for column in range(width):
            around[:] = 0
            top, left = side + row - side // 2, side + column - side // 2
            around[top : top + side, left : left + side] = 1
            squares.append(around[side:-side, side:-side].astype(bool).ravel())
    kinds, sizes = np.unique(squares, axis=0, return_counts=True)
    found, counts = np.unique(holes.reshape(COUNT, -1), axis=0, return_counts=True)
    np.testing.assert_array_equal(found, kinds)
    assert stats.chisquare(counts, COUNT * sizes / sizes.sum()).pvalue > 0.01


def test_cutout_of_one_image_is_zero_beside_rotation_and_contrast():
    white = np.full((64, 16, 16, 1), 255, np.uint8)
    both = ("rotate", "contrast:0.4", "cutout:6")
    zeros = augmented(white, both, 2 / 255, -1.0).images == 0
    for alone in (("rotate",), ("cutout:6",)):
        assert zeros[augmented(white, alone, 2 / 255, -1.0).images == 0].all()


def test_mixup_mixes_pairs_and_their_labels_by_weights_from_a_beta_distribution():
    images = np.arange(COUNT, dtype=np.int32) % 250
    images = np.stack([images, 250 - images], -1).astype(np.uint8)[:, None, None]
    labels = np.arange(COUNT) % CLASSES
    batch = augmented(images, ("mixup:0.5",), labels=labels)
    np.testing.assert_allclose(batch.labels.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(batch.images.sum(-1), 250, atol=1e-3)  # an affine mixture keeps the sum
    single = np.arange(CLASSES) == labels[:, None]
    weights = batch.labels[single]  # of those whose partner has another label
    mixed = batch.labels.max(1) < 1 - 1e-6
    quantiles = np.quantile(weights[(batch.labels > 0).sum(1) == 2], np.linspace(0.05, 0.95, 19))
    np.testing.assert_allclose(quantiles, stats.beta(0.5, 0.5).ppf(np.linspace(0.05, 0.95, 19)), atol=0.05)
    assert mixed.mean() > 0.6
    # The images follow from the labels where classes differ: image = weight * own + (1 - weight) * partner.
    weight, own = batch.labels[single], images[:, 0, 0, 0].astype(float)
    clear = mixed & (weight < 0.9) & ((batch.labels > 0).sum(1) == 2)
    partner = (batch.images[:, 0, 0, 0] - weight * own)[clear] / (1 - weight[clear])
    np.testing.assert_allclose(partner, np.rint(partner), atol=0.02)
    others = np.argsort(batch.labels[clear], 1)
    partner_label = np.where(others[:, -1] == labels[clear], others[:, -2], others[:, -1])
    for value, label in zip(np.rint(partner), partner_label, strict=True):
        assert label in labels[own == value]


def test_cutmix_pastes_a_box_and_weighs_labels_by_pixels():
    size = 8
    images = np.tile(np.arange(COUNT, dtype=np.uint16)[:, None, None, None], (1, size, size, 2))
    images = np.stack([images[..., 0] // 256, images[..., 1] % 256], -1).astype(np.uint8)
    labels = np.random.default_rng(3).integers(0, CLASSES, COUNT)
    batch = augmented(images, ("cutmix:1",), labels=labels)
    numbers = (256 * batch.images[..., 0] + batch.images[..., 1]).astype(int)
    partners = []
    for place, of_image in enumerate(numbers):
        pasted = of_image != place
        if not pasted.any():
            assert batch.labels[place, labels[place]] == pytest.approx(1)
            continue
        (partner,) = np.unique(of_image[pasted])
        rows, columns = pasted.any(1), pasted.any(0)
        np.testing.assert_array_equal(pasted, np.outer(rows, columns))
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
        expected = np.zeros(CLASSES)
        np.add.at(expected, [labels[place], labels[partner]], [1 - pasted.mean(), pasted.mean()])
        np.testing.assert_allclose(batch.labels[place], expected, atol=1e-6)
        partners.append(partner)
    assert len(set(partners)) == len(partners)  # a permutation
    # Boxes before the border cuts them have int(side * sqrt(1 - weight)) pixels, here with 1 - weight uniform.
    generator = np.random.default_rng(0)
    sides = (size * np.sqrt(generator.random(40_000))).astype(int)
    centers = generator.integers(0, size, (2, 40_000))
    low = np.maximum(centers - sides // 2, 0)
    areas = np.maximum(np.minimum(centers - sides // 2 + sides, size) - low, 0).prod(0) / size**2
    assert (numbers != np.arange(COUNT)[:, None, None]).mean() == pytest.approx(areas.mean(), abs=0.01)


def test_flips_alternate_between_epochs_by_example():
    words, key = random_words(), jax.random.key(3)
    examples = jnp.asarray(np.random.default_rng(0).permutation(COUNT))
    epochs = [alternate_flips(words, key, examples, jnp.int32(epoch)) for epoch in range(3)]
    flips = [np.asarray(of_epoch >> 31) for of_epoch in epochs]
    np.testing.assert_array_equal(flips[0], 1 - flips[1])
    np.testing.assert_array_equal(flips[0], flips[2])
    assert stats.binomtest(int(flips[0].sum()), COUNT).pvalue > 0.01
    np.testing.assert_array_equal(epochs[0] & 0x7FFFFFFF, words & 0x7FFFFFFF)  # the crop stays
    again = alternate_flips(words[::-1], key, examples[::-1], jnp.int32(0))  # by example, not by place
    np.testing.assert_array_equal(again[::-1] >> 31, flips[0])


@pytest.mark.parametrize("padding", [1, 3, 5])
def test_a_crop_shows_its_padding(padding):
    image = np.random.default_rng(0).integers(1, 256, (6, 7, 2), np.uint8)
    for text, mode in ((f"crop:{padding}", "constant"), (f"crop:{padding}:reflect", "reflect")):
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=mode)
        windows = np.lib.stride_tricks.sliding_window_view(padded, image.shape).reshape(-1, *image.shape)
        kinds, expected = np.unique(windows.reshape(len(windows), -1), axis=0, return_counts=True)
        found = augmented(np.repeat(image[None], COUNT, 0), (text,)).images.astype(np.uint8)
        found, counts = np.unique(found.reshape(COUNT, -1), axis=0, return_counts=True)
        np.testing.assert_array_equal(found, kinds)
        assert stats.chisquare(counts, COUNT * expected / expected.sum()).pvalue > 0.01


ALL = "alternating_flip+crop:2:reflect+flip_all+flip_vertical_all+rotate+brightness:0.4+contrast:0.4+cutout:3"
RANDOM = "flip+crop+randaugment:1:9"


@pytest.mark.slow
@pytest.mark.parametrize("text", [ALL, RANDOM])
def test_an_image_depends_on_its_word_alone(text):
    """Not on its batch, on members beside it, or on the order of the names. What it is on a GPU, it is on a CPU."""
    images = np.random.default_rng(0).integers(0, 256, (6, 10, 10, 3), np.uint8)
    words, constants = random_words(6), (jnp.full(3, 2**-7), jnp.full(3, -1.0))

    @jax.jit
    def gather(indices, words):
        return gather_batch(jnp.asarray(images), indices, *constants, augment=tuple(text.split("+")), words_B=words)

    whole = gather(jnp.arange(6), words)
    np.testing.assert_allclose(gather(jnp.arange(6)[3:4], words[3:4])[0], whole[3], atol=1e-6)
    together = jax.vmap(gather)(jnp.stack([jnp.arange(6)] * 2), jnp.stack([words, words[::-1]]))
    np.testing.assert_allclose(together[0], whole, atol=1e-6)
    reversed_names = augmented(images, tuple(reversed(text.split("+"))), 2**-7, -1.0, words)
    np.testing.assert_allclose(reversed_names.images, whole, atol=1e-6)


@pytest.mark.parametrize("text", [RANDOM, "crop:2:reflect", "alternating_flip"])
@pytest.mark.slow
def test_gpus_and_cpus_augment_alike(text, monkeypatch):
    images, words = np.random.default_rng(0).integers(0, 256, (6, 10, 10, 3), np.uint8), random_words(6)
    cpu = augmented(images, tuple(text.split("+")), words=words)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_array_equal(augmented(images, tuple(text.split("+")), words=words).images, cpu.images)


def test_labels_are_soft_only_if_an_augmentation_changes_them():
    images = np.zeros((4, 5, 5, 1), np.uint8)
    assert augmented(images, ("flip", "cutout:2")).labels.ndim == 1
    assert augmented(images, ("cutmix:1",)).labels.shape == (4, CLASSES)


def test_a_study_takes_every_name():
    every = make_study(data={"augment": (ALL, "flip+crop+mixup:0.2", "randaugment:2:9+cutmix:1.0")}).data.augment
    assert sum(map(len, every)) == 8 + 3 + 2
