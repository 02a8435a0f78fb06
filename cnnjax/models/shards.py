"""A batch that several devices share: each holds one shard, which has as many examples as every other."""

from typing import Any, TypeVar

from jax import lax
from jaxtyping import Array

AXIS = "batch"  # of the mesh
Tree = TypeVar("Tree", bound=Any)


def mean_over_shards(tree: Tree, shards: int) -> Tree:
    """Returns the mean of every array over the shards of a batch. The same arrays if there is one shard."""
    return tree if shards == 1 else lax.pmean(tree, AXIS)


def sum_over_shards(tree: Tree, shards: int) -> Tree:
    """Returns the sum of every array over the shards of a batch. The same arrays if there is one shard."""
    return tree if shards == 1 else lax.psum(tree, AXIS)


def shard_of(whole: Array, shards: int) -> Array:
    """Returns the part of this device of an array whose first axis runs over a whole batch."""
    if shards == 1:
        return whole
    size = whole.shape[0] // shards
    return lax.dynamic_slice_in_dim(whole, lax.axis_index(AXIS) * size, size)


def gather_shards(shard: Array, shards: int) -> Array:
    """Returns the array whose parts along the first axis the devices hold: the inverse of `shard_of`."""
    return shard if shards == 1 else lax.all_gather(shard, AXIS, tiled=True)
