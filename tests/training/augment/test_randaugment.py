"""RandAugment: each operation against Pillow's, with torchvision's magnitudes, and which ones are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from cnnjax.training.augment.batch import gather_batch
from cnnjax.training.augment.randaugment import OPERATIONS, apply_operation

ENHANCED = {"color": "Color", "brightness": "Brightness", "contrast": "Contrast", "sharpness": "Sharpness"}
ONE_LEVEL_OFF = (*ENHANCED, "autocontrast")  # Pillow rounds in other places


def pillows(pixels, name, sign, magnitude):
    """What Pillow makes of an image, as torchvision's RandAugment calls it (31 magnitudes)."""
    strength = magnitude / 30
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    width, height = image.size

    def affine(*coefficients):
        return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)

    match name:
        case "identity":
            found = image
        case "shear_x":
            found = affine(1, sign * 0.3 * strength, 0, 0, 1, 0)
        case "shear_y":
            found = affine(1, 0, 0, sign * 0.3 * strength, 1, 0)
        case "translate_x":
            found = affine(1, 0, -int(sign * 150 / 331 * width * strength), 0, 1, 0)
        case "translate_y":
            found = affine(1, 0, 0, 0, 1, -int(sign * 150 / 331 * height * strength))
        case "rotate":
            found = image.rotate(sign * 30 * strength, Image.Resampling.NEAREST)
        case "posterize":
            found = ImageOps.posterize(image, 8 - round(magnitude / 7.5))
        case "solarize":
            found = ImageOps.solarize(image, 255 - 255 * strength)
        case "autocontrast" | "equalize":
            found = getattr(ImageOps, name)(image)
        case _:
            found = getattr(ImageEnhance, ENHANCED[name])(image).enhance(1 + sign * 0.9 * strength)
    return np.asarray(found).reshape(pixels.shape)


@pytest.fixture(scope="module")
def applied():
    """Each operation by its number, compiled once for a magnitude and a shape."""
    compiled = jax.jit(apply_operation, static_argnums=3)
    return lambda image, *arguments: np.asarray(compiled(jnp.asarray(image, jnp.int32), *arguments))


@pytest.mark.slow
@pytest.mark.parametrize("magnitude", [1, 9, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_are_pillows(applied, channels, magnitude):
    noise = np.random.default_rng(0).integers(0, 256, (17, 22, channels), np.uint8)
    gentle = (np.add.outer(np.arange(17), 3 * np.arange(22))[..., None] + 40 + noise // 16).astype(np.uint8)
    for image in (noise, gentle, np.full_like(noise, 77)):
        for number, name in enumerate(OPERATIONS):
            for sign in (1, -1):
                ours = applied(image, jnp.int32(number), jnp.uint32(sign < 0), magnitude)
                apart = np.abs(ours - pillows(image, name, sign, magnitude).astype(int))
                assert apart.max() <= (name in ONE_LEVEL_OFF), name
                assert (apart > 0).mean() < 0.02, name


@pytest.mark.slow
def test_every_operation_and_direction_is_drawn_equally_often():
    """Of an image on which all of them differ, each result of one operation."""
    image = np.random.default_rng(0).integers(1, 200, (20, 20, 3), np.uint8)
    words = jnp.asarray(np.random.default_rng(1).integers(0, 2**32, 6000, np.uint32))
    indices, constants = jnp.zeros(len(words), jnp.int32), (jnp.ones(3), jnp.zeros(3))
    gather = jax.jit(
        lambda: gather_batch(image[None], indices, *constants, augment=("randaugment:1:9",), words_B=words)
    )
    found = np.asarray(gather()).astype(np.uint8)
    kinds, counts = np.unique(found.reshape(len(words), -1), axis=0, return_counts=True)
    unsigned = {"identity", "posterize", "solarize", "autocontrast", "equalize"}
    expected = []
    for kind in kinds:
        of_kind = [
            (name, sign)
            for name in OPERATIONS
            for sign in (1, -1)
            if np.abs(pillows(image, name, sign, 9).ravel().astype(int) - kind).max() <= (name in ONE_LEVEL_OFF)
        ]
        expected.append(len(words) / len(OPERATIONS) / 2 * len(of_kind))
    assert len(kinds) == 2 * len(OPERATIONS) - len(unsigned)
    assert stats.chisquare(counts, expected).pvalue > 0.01
