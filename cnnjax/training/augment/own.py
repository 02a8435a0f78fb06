"""Augmentations that are functions of a user's file: `data.augment = "augment.py:jitter"`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnjax.study import own_code
from cnnjax.study.augmentation import own_functions
from cnnjax.study.schema import Study
from cnnjax.utils.errors import RequestError, UnfitCode

_KEY = "data.augment"


def call_own(
    reference: str, images: Float[Array, "B H W C"], targets: Float[Array, "B K"], key: Array
) -> tuple[Float[Array, "B H W C"], Float[Array, "B K"]]:
    """Calls an own function of (images, targets, key), which returns the images, or the images and the targets.

    Args:
        reference: `FILE.py:NAME`.
        images: float32, normalized.
        targets: float32, the share of each class; one-hot unless a function before has changed them.
        key: random key of the batch.

    Raises:
        RequestError: the function raises an exception, or returns something else; the error names the file and line.
    """
    function = own_code.load(_KEY, reference)
    if not callable(function):
        raise RequestError(_KEY, reference, "it is no function; use a function of (images, targets, key)")
    with own_code.blamed(_KEY, reference):
        found = function(images, targets, key)
        if not isinstance(found, tuple):
            found = (found, targets)
        if len(found) != 2:
            raise UnfitCode(f"it returns {len(found)} values; return the images, or (images, targets)")
        for what, before, after in zip(("images", "targets"), (images, targets), found, strict=True):
            if (shown := _shown(after)) != _shown(before):
                raise UnfitCode(f"its {what} are {shown}; return {_shown(before)}")
    return found


def _shown(array: object) -> str:
    return f"{array.dtype}{list(array.shape)}" if isinstance(array, jax.Array) else type(array).__name__


def check_augmentations(study: Study, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Calls the own functions of a study on abstract arrays. Raises RequestError as `call_own`, before training."""
    batch = max(study.train.batch_size)
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    targets = jax.ShapeDtypeStruct((batch, num_classes), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    for reference in own_functions(study.data.augment):
        jax.eval_shape(lambda *arrays, reference=reference: call_own(reference, *arrays), images, targets, key)
