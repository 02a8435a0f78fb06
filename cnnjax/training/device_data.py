"""The data of a study on the devices, and the splits of one member."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from cnnjax.data import Dataset
from cnnjax.data.normalization import affine_map
from cnnjax.study.hparams import NORMALIZATIONS, Streams
from cnnjax.study.schema import Study
from cnnjax.training import devices
from cnnjax.training.evaluate import DeviceSplit
from cnnjax.training.stacking import Hparams

_POOL = "pool"


class SplitTables(NamedTuple):
    """Tables in which a member finds its splits. Their first axes are the S seeds of the split stream and the F folds.

    Attributes:
        scale: float32 [S, F, normalizations, C].
        shift: float32 [S, F, normalizations, C].
        words: uint32 [S, F, examples] of each split that is augmented in evaluations.
        indices: int32 [S, F, examples] of each split: positions in the pool. Empty if there is no pool.
        counts: int32 [S, F] of each split whose sizes differ: how many of the positions count.
    """

    scale: Array
    shift: Array
    words: dict[str, Array]
    indices: dict[str, Array]
    counts: dict[str, Array]


class MemberData(NamedTuple):
    """The splits of one member."""

    train: DeviceSplit
    validation: DeviceSplit | None
    test: DeviceSplit


class DeviceData(NamedTuple):
    """The data of a study, resident on every device.

    Attributes:
        images: uint8 [N, H, W, C] of each split; of the pool alone if trials differ in their splits.
        labels: int32 [N] of the same.
        tables: one for each value of `data.train_examples`.
    """

    images: dict[str, Array]
    labels: dict[str, Array]
    tables: tuple[SplitTables, ...]

    def of_member(self, hparams: Hparams, streams: Streams, number: int) -> MemberData:
        """Returns the splits of a member.

        Args:
            hparams: of all stages of the member.
            streams: its streams.
            number: of the value of `data.train_examples` in the study.
        """
        tables = self.tables[number]
        at = streams.split, hparams.fold[0]
        normalizes = (*at, hparams.normalization[0])

        def split(name: str) -> DeviceSplit:
            source = _POOL if tables.indices else name
            words, indices, counted = (
                found[name][at] if name in found else None for found in (tables.words, tables.indices, tables.counts)
            )
            constants = tables.scale[normalizes], tables.shift[normalizes]
            return DeviceSplit(self.images[source], self.labels[source], *constants, words, indices, counted)

        validates = "validation" in (tables.indices or self.images)
        return MemberData(split("train"), split("validation") if validates else None, split("test"))


def put_data(dataset: Dataset, study: Study, mesh: Mesh) -> DeviceData:
    """Copies the data of a study to every device of a mesh."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    splits = dataset.splits if dataset.pool is None else {_POOL: dataset.pool}
    if tests_validate := dataset.pool is None and dataset.validation is dataset.test:
        del splits["validation"]
    put = {name: devices.put((split.images, split.labels), everywhere) for name, split in splits.items()}
    if tests_validate:
        put["validation"] = put["test"]
    images, labels = ({name: arrays[place] for name, arrays in put.items()} for place in (0, 1))
    tables = tuple(_tables(dataset, study, count) for count in study.data.train_examples)
    return DeviceData(images, labels, devices.put(tables, everywhere))


def _tables(dataset: Dataset, study: Study, train_examples: int | None) -> SplitTables:
    """Returns the tables of the trials with a value of `data.train_examples`, as NumPy arrays."""
    found = {cut: partition for cut, partition in dataset.partitions.items() if cut.train_examples == train_examples}
    seeds = [cut.split for cut in found] or study.split_seeds[:1]
    statistics = [(of.mean, of.std) for of in found.values()] or [(dataset.mean, dataset.std)]

    def table(rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(rows).reshape(len(set(seeds)), -1, *rows[0].shape)

    maps = [np.array([affine_map(*of, kind) for kind in NORMALIZATIONS]) for of in statistics]
    indices, counts, words = {}, {}, {}
    for name in dataset.splits if found else ():
        positions = [getattr(partition, name) for partition in found.values()]
        sizes = [len(of_trial) for of_trial in positions]
        indices[name] = table([np.resize(of_trial, max(sizes)) for of_trial in positions])
        if min(sizes) < max(sizes):
            counts[name] = table([np.array(size, np.int32) for size in sizes])
    if study.data.augment_test:
        keys = [jax.random.key(seed) for seed in seeds]
        words["test"] = table([np.asarray(jax.random.bits(key, (len(dataset.test),))) for key in keys])
        if dataset.validation is dataset.test:
            words["validation"] = words["test"]
    return SplitTables(table([of[:, 0] for of in maps]), table([of[:, 1] for of in maps]), words, indices, counts)
