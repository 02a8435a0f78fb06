"""What a batch costs: microseconds an image to gather, augment and normalize, inside a scan over an epoch.

    python -m experiments.benchmarks.augment
    python -m experiments.benchmarks.augment --names=flip+crop,randaugment:2:9 --size=64

The images are random. All augmentations are timed in turns; the table has medians. Writes augment.csv beside this file.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from cnnjax.study.augmentation import names
from cnnjax.training.augment.batch import augmented_batch
from experiments.benchmarks.tables import write_table

NAMES = flags.DEFINE_list(
    "names",
    [
        "none",
        "flip",
        "crop",
        "flip+crop",
        "alternating_flip+crop:2:reflect",
        "rotate",
        "cutout:8",
        "mixup:0.2",
        "cutmix:1",
    ]
    + ["brightness:0.4", "contrast:0.4", "randaugment:2:9", "flip+crop+randaugment:2:9+cutout:8+mixup:0.2"],
    "Which augmentations.",
)
SIZE = flags.DEFINE_integer("size", 32, "Height and width of the images.")
CHANNELS = flags.DEFINE_integer("channels", 3, "Channels of the images.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images a step.")
STEPS = flags.DEFINE_integer("steps", 50, "Steps of an epoch.")
ROUNDS = flags.DEFINE_integer("rounds", 7, "How often each is timed.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write the table (default: beside this file).")

_CLASSES = 10


def main(argv: list[str]) -> None:
    """Times each augmentation and writes the table."""
    del argv
    epochs = {name: compiled(names(name)) for name in NAMES.value}
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(ROUNDS.value):
        for name, epoch in epochs.items():
            times[name].append(seconds(epoch))
    micros = 1e6 / (STEPS.value * BATCH_SIZE.value)
    rows = [
        {
            "augment": name,
            "device": jax.devices()[0].platform,
            "size": SIZE.value,
            "channels": CHANNELS.value,
            "microseconds_an_image": round(micros * statistics.median(of_name), 2),
        }
        for name, of_name in times.items()
    ]
    for row in rows:
        print("  ".join(map(str, row.values())))
    print(f"wrote {write_table(rows, 'augment.csv', OUTPUT.value)}")


def compiled(augment: tuple[str, ...]) -> Callable[[], jax.Array]:
    """Returns an epoch that gathers and augments every batch, and sums its values."""
    count = STEPS.value * BATCH_SIZE.value
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.integers(0, 256, (count, SIZE.value, SIZE.value, CHANNELS.value), np.uint8))
    labels = jnp.asarray(generator.integers(0, _CLASSES, count, np.int32))
    order = jnp.asarray(generator.permutation(count).reshape(STEPS.value, BATCH_SIZE.value))
    words = jnp.asarray(generator.integers(0, 2**32, order.shape, np.uint32))
    scale, shift = jnp.full(CHANNELS.value, 1 / 127.5), jnp.full(CHANNELS.value, -1.0)

    @jax.jit
    def epoch(images: jax.Array, labels: jax.Array, order: jax.Array, words: jax.Array) -> jax.Array:
        def step(total: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            indices, words = batch
            found = augmented_batch(
                *(images, labels, indices, scale, shift, _CLASSES), augment=augment, words_B=words if augment else None
            )
            # The network reads a batch from memory, so it has to be there.
            held = lax.optimization_barrier(found)
            return total + sum(leaf.sum() for leaf in jax.tree.leaves(held)), None

        return lax.scan(step, jnp.zeros(()), (order, words))[0]

    run = epoch.lower(images, labels, order, words).compile()
    run(images, labels, order, words).block_until_ready()
    return lambda: run(images, labels, order, words)


def seconds(epoch: Callable[[], jax.Array]) -> float:
    """Returns the duration of an epoch."""
    start = time.perf_counter()
    epoch().block_until_ready()
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
