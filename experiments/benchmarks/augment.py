"""What augmentation costs: microseconds an image, inside a scan over the batches of an epoch.

    python -m experiments.benchmarks.augment
    python -m experiments.benchmarks.augment --names=flip+crop,randaugment:2:9 --size=64

The images are random. Each augmentation is timed beside none, in turns; the median of the differences is its cost.
Writes augment.csv beside this file.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from cnnjax.training.augment.batch import augmented_batch
from experiments.benchmarks.tables import write_table

NAMES = flags.DEFINE_list(
    "names",
    ["flip", "crop", "flip+crop", "alternating_flip+crop:2:reflect", "rotate", "cutout:8", "mixup:0.2", "cutmix:1"]
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
    plain = compiled(())
    rows = []
    for name in NAMES.value:
        augmented = compiled(tuple(name.split("+")))
        pairs = [(seconds(plain), seconds(augmented)) for _ in range(ROUNDS.value)]
        micros = 1e6 / (STEPS.value * BATCH_SIZE.value)
        row = {
            "augment": name,
            "device": jax.devices()[0].platform,
            "size": SIZE.value,
            "channels": CHANNELS.value,
            "microseconds_an_image": round(micros * statistics.median(after - before for before, after in pairs), 2),
            "without": round(micros * statistics.median(before for before, _ in pairs), 2),
        }
        print("  ".join(map(str, row.values())), flush=True)
        rows.append(row)
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
