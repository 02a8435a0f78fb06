"""Random numbers of an image. Its random word, from the augment stream, seeds them: an image draws alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from cnnjax.study.augmentation import NAMES

_FIRST_OWN = 2**16  # the streams of functions of files follow those of names
EVERY_EPOCH = 2**31 - 1  # in place of the number of an epoch


def draw(words_B: UInt32[Array, " B"], name: str, count: int) -> Float[Array, "count B"]:
    """Returns `count` uniform numbers in [0, 1) for each image. Each name has a stream of its own."""
    return uniform(draw_bits(words_B, name, count).T)


def draw_bits(words_B: UInt32[Array, " B"], name: str, count: int) -> UInt32[Array, "B count"]:
    """Returns `count` random words for each image. Each name has a stream of its own."""
    number = NAMES.index(name)
    return jax.vmap(lambda word: jax.random.bits(jax.random.fold_in(jax.random.key(word), number), (count,)))(words_B)


def batch_key(words_B: UInt32[Array, " B"], number: int) -> Array:
    """Returns the key of the function of a file with this number for one batch."""
    return jax.random.fold_in(jax.random.key(words_B[0]), _FIRST_OWN + number)


def uniform(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Returns uniform numbers in [0, 1): multiples of 2^-24."""
    return (bits >> 8).astype(jnp.float32) * 2**-24


def whole(uniform: Float[Array, "..."], count: int) -> Int[Array, "..."]:
    """Returns whole numbers in [0, count), given uniform numbers."""
    return jnp.minimum((uniform * count).astype(jnp.int32), count - 1)


def alternate_flips(
    words_n: UInt32[Array, " n"], key: Array, examples_n: Int[Array, " n"], epoch: Int[Array, ""]
) -> UInt32[Array, " n"]:
    """Returns random words whose top bit, which decides a flip, is that of the example in even epochs.

    In odd epochs it is the opposite (Jordan 2024, arXiv:2404.00498): in two epochs, training sees both
    versions of each image.

    Args:
        words_n: the words of an epoch.
        key: of the run's augment stream. With the number of an example it gives its bit.
        examples_n: numbers of the examples.
        epoch: completed epochs.
    """
    bits = jax.vmap(lambda example: jax.random.bits(jax.random.fold_in(key, example)))(examples_n)
    flips = (bits ^ epoch.astype(jnp.uint32)) & 1
    return (words_n & 0x7FFFFFFF) | (flips << 31)
