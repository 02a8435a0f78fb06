"""Own augmentations: what they see and return, and the one line on those that return something else."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.study import augmentation, own_code
from cnnjax.study.overrides import overridden
from cnnjax.training.augment.batch import augmented_batch
from cnnjax.training.augment.own import check_augmentations
from cnnjax.training.train import Batch
from cnnjax.utils.errors import RequestError
from tests.support.studies import TINY

SHAPE, CLASSES = (5, 4, 1), 3
SOURCE = """
import jax
import jax.numpy as jnp

def jitter(images, targets, key):
    return images + jax.random.normal(key, images.shape)

def halve(images, targets, key):
    return images / 2, targets

def shift(images, targets, key):
    return images + 1

def to_first(images, targets, key):
    return images, jnp.zeros_like(targets).at[:, 0].set(1)

def crop(images, targets, key):
    return images[:, ::2]

def three(images, targets, key):
    return images, targets, key

def hard(images, targets, key):
    return images, targets.argmax(-1)

def integers(images, targets, key):
    return images.astype(int)

def nothing(images, targets, key):
    pass

def branch(images, targets, key):
    if images.mean() > 0:
        return images
    return -images

number = 3
"""


@pytest.fixture(autouse=True)
def study_of(tmp_path):
    """A study with own functions, whose file is ready to be imported."""
    (tmp_path / "augment.py").write_text(SOURCE)

    def build(*names):
        data = TINY["data"] | {"augment": tuple(names)}
        study = overridden(TINY | {"data": data}, [], tmp_path)
        own_code.prepare(study.code, study.models)
        return study

    build("augment.py:jitter")
    yield build
    own_code.prepare({}, ())


def batch_of(*augment, seed=0, count=6):
    generator = np.random.default_rng(seed)
    images, labels = np.full((count, *SHAPE), 3, np.uint8), np.arange(count) % CLASSES
    words = jnp.asarray(generator.integers(0, 2**32, count, np.uint32))
    constants = jnp.ones(1) * 2, jnp.zeros(1)
    found = augmented_batch(
        *(jnp.asarray(images), jnp.asarray(labels), jnp.arange(count), *constants, CLASSES),
        augment=augment,
        words_B=words,
    )
    return Batch(*found)


def test_functions_see_normalized_images_and_are_called_in_their_order():
    assert (batch_of("augment.py:halve", "augment.py:shift").images == 4).all()
    assert (batch_of("augment.py:shift", "augment.py:halve").images == 3.5).all()
    assert batch_of("augment.py:halve").labels.ndim == 1


def test_labels_that_a_function_changes_are_mixed_after_it():
    batch = batch_of("augment.py:to_first", "mixup:0.2")
    np.testing.assert_allclose(batch.labels, np.eye(CLASSES)[[0] * 6], atol=1e-6)


def test_keys_differ_between_batches_and_functions():
    one, other = batch_of("augment.py:jitter").images, batch_of("augment.py:jitter", seed=1).images
    assert np.unique(np.asarray(one - other)).size > 100
    np.testing.assert_array_equal(one, batch_of("augment.py:jitter").images)
    later = batch_of("augment.py:halve", "augment.py:jitter").images
    assert np.unique(np.asarray(later - one)).size > 100


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("crop", r"augment\.py, line 17: its images are float32\[50, 3, 4, 1\]; return float32\[50, 5, 4, 1\]"),
        ("three", r"augment\.py, line 20: it returns 3 values; return the images, or \(images, targets\)"),
        ("hard", r"augment\.py, line 23: its targets are int32\[50\]; return float32\[50, 3\]"),
        ("integers", r"augment\.py, line 26: its images are int32\[50, 5, 4, 1\]; return float32.*"),
        ("nothing", r"augment\.py, line 29: its images are NoneType; return float32.*"),
        ("branch", r"augment\.py, line 33: TracerBoolConversionError.*"),
        ("number", r"it is no function; use a function of \(images, targets, key\)"),
        ("jittr", r".*has no 'jittr'; did you mean 'jitter'\?"),
    ],
)
def test_other_functions_are_refused_by_file_and_line(study_of, name, problem):
    study = study_of(f"augment.py:{name}")
    with pytest.raises(RequestError) as error:
        augmentation.load_functions(study.data.augment)
        check_augmentations(study, SHAPE, CLASSES)
    assert re.fullmatch(rf"data\.augment='augment\.py:{name}': .*{problem}", str(error.value))


def test_functions_that_fit_are_accepted(study_of):
    study = study_of("flip", "augment.py:jitter", "augment.py:to_first")
    assert study.data.augment == (("flip", "augment.py:jitter", "augment.py:to_first"),)
    check_augmentations(study, SHAPE, CLASSES)
