"""Augmentation on the device: against NumPy's flips and crops, and the rotations of Pillow and torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from cnnjax.training.augment.batch import gather_batch
from cnnjax.training.augment.geometry import ANGLES, angle_numbers
from tests.support.studies import make_study

NAMES = ("crop", "flip", "flip_all", "flip_vertical_all", "rotate")
SHAPES = [(32, 32, 3), (28, 28, 1), (8, 8, 1), (9, 14, 2)]


def random_images(shape, count=6, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (count, *shape), np.uint8)


def random_words(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)


def augmented(images, words, augment, scale=1.0, shift=0.0):
    """One batch in which image i has word i."""
    channels = images.shape[-1]
    constants = jnp.full(channels, scale, jnp.float32), jnp.full(channels, shift, jnp.float32)
    indices = jnp.arange(len(words)) % len(images)
    batch = gather_batch(jnp.asarray(images), indices, *constants, augment=augment, words_B=jnp.asarray(words))
    return np.asarray(batch)


def rotated(image, degrees):
    """Pillow's rotation of a float image, to the nearest pixel, with zeros outside."""
    channels = [
        Image.fromarray(image[..., c]).rotate(degrees, Image.Resampling.NEAREST) for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def one_by_one(image, word, augment, scale, shift):
    """What augmentation makes of one image: each step alone, in the documented order."""
    height, width = image.shape[:2]
    if "crop" in augment:
        top, left = (int(word) & 0x7FFF) * 9 // 2**15, (int(word) >> 15 & 0x7FFF) * 9 // 2**15
        image = np.pad(image, ((4, 4), (4, 4), (0, 0)))[top : top + height, left : left + width]
    if "flip" in augment and word >= 2**31:
        image = np.fliplr(image)
    if "flip_all" in augment:
        image = np.fliplr(image)
    if "flip_vertical_all" in augment:
        image = np.flipud(image)
    image = np.float32(image) * np.float32(scale) + np.float32(shift)
    return rotated(image, ANGLES[angle_numbers(jnp.array([word]))[0]]) if "rotate" in augment else image


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(augment=st.lists(st.sampled_from(NAMES), min_size=1, unique=True), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("shape", [(12, 12, 1), (9, 14, 3)])
def test_every_combination_is_its_steps_in_order(shape, augment, seed):
    images, words = random_images(shape, seed=seed), random_words(6, seed)
    scale, shift = 2**-7, -1.0  # so that float32 holds every product and sum exactly
    expected = [one_by_one(image, word, augment, scale, shift) for image, word in zip(images, words, strict=True)]
    np.testing.assert_array_equal(augmented(images, words, tuple(augment), scale, shift), expected)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_rotation_is_pillows_to_the_pixel(shape):
    (image,), words = random_images(shape, count=1), random_words(500)
    degrees = ANGLES[angle_numbers(jnp.asarray(words))]
    for result, angle in zip(augmented(image[None], words, ("rotate",)), degrees, strict=True):
        np.testing.assert_array_equal(result, rotated(np.float32(image), angle))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_rotation_is_torchvisions_but_on_the_edges_of_pixels(shape):
    torch = pytest.importorskip("torch")
    (image,), words = random_images(shape, count=1), random_words(300)
    height, width, _ = shape
    angles, compared = ANGLES[angle_numbers(jnp.asarray(words))], 0.0
    for result, degrees in zip(augmented(image[None], words, ("rotate",)), angles, strict=True):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        # torchvision's grid for images that are tensors already: pixels from the middle, then shares of half a side.
        theta = [[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]
        size = (1, shape[-1], height, width)
        grid = torch.nn.functional.affine_grid(torch.tensor([theta]).double(), size, align_corners=False)
        pixels = torch.from_numpy(np.moveaxis(image, -1, 0)[None]).double()
        sampled = torch.nn.functional.grid_sample(pixels, grid, mode="nearest", align_corners=False)
        theirs = np.moveaxis(sampled[0].numpy(), 0, -1)
        source = (grid[0].numpy() + 1) * [width / 2, height / 2]  # an edge of a pixel is a whole number
        from_edge = np.abs(source - np.rint(source)).min(-1)
        clear = from_edge > 2**-10
        np.testing.assert_array_equal(result[clear], theirs[clear])
        compared += clear.mean() / len(words)
    assert compared > 0.98


def test_what_a_rotation_brings_in_is_zero_after_normalization_and_a_crops_padding_before():
    white, words = np.full((1, 32, 32, 1), 255, np.uint8), random_words(200)
    assert set(np.unique(augmented(white, words, ("rotate",), 2 / 255, -1.0).round(5))) == {0, 1}
    assert set(np.unique(augmented(white, words, ("crop",), 2 / 255, -1.0).round(5))) == {-1, 1}


def test_angles_are_uniform_and_independent_of_flip_and_crop():
    words = random_words(40_000)
    angles = ANGLES[angle_numbers(jnp.asarray(words))]
    assert stats.kstest(angles, stats.uniform(-45, 90).cdf).pvalue > 0.01
    parts = np.digitize(angles, np.linspace(-45, 45, 17)[1:-1])
    for others in (words >> 31, (words & 0x7FFF) * 9 >> 15, (words >> 15 & 0x7FFF) * 9 >> 15):
        table = np.histogram2d(parts, others, bins=(16, others.max() + 1))[0]
        assert stats.chi2_contingency(table).pvalue > 0.01


def test_neighboring_words_have_unlike_angles():
    numbers = np.asarray(angle_numbers(jnp.arange(20_000, dtype=jnp.uint32)))
    assert stats.kstest(ANGLES[numbers], stats.uniform(-45, 90).cdf).pvalue > 0.01
    assert abs(stats.spearmanr(numbers[:-1], numbers[1:]).statistic) < 0.03


@pytest.mark.parametrize("augment", [("rotate",), NAMES])
def test_vmapped_equals_alone(augment):
    images, words = jnp.asarray(random_images((32, 32, 3))), jnp.asarray(random_words(4 * 6)).reshape(4, 6)

    @jax.jit
    def batch(words_B):
        constants = jnp.full(3, 2**-7), jnp.full(3, -1.0)
        return gather_batch(images, jnp.arange(6), *constants, augment=augment, words_B=words_B)

    together = np.asarray(jax.vmap(batch)(words))
    np.testing.assert_array_equal(together, [batch(row) for row in words])


def test_a_study_takes_every_name():
    (augment,) = make_study(data={"augment": NAMES}).data.augment
    assert sorted(augment) == sorted(NAMES)
