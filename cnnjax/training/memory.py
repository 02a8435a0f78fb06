"""How many members train together, and the memory that they need. Imports no jax: a plan takes no time for it."""

import itertools
import math
from collections.abc import Callable, Iterator

from cnnjax.data import Dataset
from cnnjax.models.fusion import ConvPool, fused
from cnnjax.models.specs import Conv, Gelu, Layers, MaxPool, Residual, Silu, flatten
from cnnjax.models.summary import Architecture, ModuleParts, apply_layer, describe_network, parameter_count
from cnnjax.study.hparams import Static

EVALUATION_BATCH = 256  # the largest number of images at a time; it changes results by rounding only
MEMORY_SHARE = 0.8  # of a device's memory that a population may plan to use
# A CPU trains members one after another anyway. A small batch of members gives a line of progress and a checkpoint
# every few minutes.
_CPU_FLOPS_PER_EPOCH = 240 * 50e9
_FLOAT = 4  # bytes
_TRAINING_COPIES, _IMAGE_COPIES, _CHUNK_BYTES = 1.5, 6, 3_000_000  # fitted, see `training_memory`


def member_batch_size(members: int, most: int, devices: int = 1) -> int:
    """Returns how many members train together.

    All batches of members have one size, so that one program serves them all; copies of a member fill the last batch.
    Of the sizes from half of `most` to `most`, this is the one with the fewest copies.

    Args:
        members: how many there are.
        most: how many fit.
        devices: the size is a multiple of it.
    """
    most = max(devices, min(most, members + -members % devices) // devices * devices)
    sizes = range(most, max(-(-most // 2), devices) - 1, -devices)
    return min(sizes, key=lambda size: -members % size)


def fitting_size(count: int, most: int, devices: int, budget: float, memory: Callable[[int], float]) -> int:
    """Returns the number of members that train together: as many as fit.

    Args:
        count: number of members.
        most: upper bound.
        devices: the size is a multiple of it.
        budget: bytes of memory on one device.
        memory: returns the bytes on one device that this number of members needs.
    """
    while True:
        size = member_batch_size(count, most, devices)
        needed = memory(size)
        if needed <= budget or size <= devices:
            return size
        most = min(int(size * budget / needed), size - 1)


def most_members(platform: str, count: int, devices: int, operations: float) -> int:
    """Returns the largest number of members that should train together, whatever the memory.

    Args:
        platform: of the devices.
        count: number of members.
        devices: number of devices.
        operations: of a member's epoch.
    """
    most = count + -count % devices
    return min(most, max(1, int(_CPU_FLOPS_PER_EPOCH / max(operations, 1)))) if platform == "cpu" else most


def training_memory(static: Static, dataset: Dataset, members: int, platform: str) -> float:
    """Estimates the memory that training takes on one device, without compiling it.

    It has the data; the states of all members (weights, moments of the optimizer, best weights) before and after; two
    more copies of the weights that the loop over epochs carries; and what a step needs: the gradients and updates, or
    the arrays between the layers of a batch, or of a batch of the evaluation. The factors of the last two are fitted to
    the compiler's figures. On a CPU one member after another takes a step.

    Args:
        static: of the program.
        dataset: its data.
        members: on the device.
        platform: of the device: cpu, gpu or tpu.

    Returns:
        Bytes. On a CPU they are within 30 % of the compiler's figure for every model of the ladder, on data of the size
        of CIFAR-10 or MNIST.
    """
    network = describe_network(static.model, len(dataset.classes), dataset.image_shape)
    weights = _FLOAT * parameter_count(network, dataset.image_shape)
    keeps_best = static.keeps_best or dataset.validation is not None
    moments = sum(2 if name.startswith("adam") else 1 for name in static.optimizer.split("+"))
    resident = dataset.splits if dataset.pool is None else {"pool": dataset.pool}
    splits = {id(split): split for split in resident.values()}.values()
    data = sum(split.images.nbytes + _FLOAT * len(split) for split in splits)
    state = weights * (1 + moments + keeps_best)
    evaluated = 0 if dataset.validation is None else min(EVALUATION_BATCH, len(dataset.validation))
    step = max(2 * weights, _between_layers(network, static, dataset.image_shape, evaluated))
    return data + members * (2 * state + 2 * weights) + step * (1 if platform == "cpu" else members)


def _between_layers(
    network: Architecture | ModuleParts, static: Static, image_shape: tuple[int, ...], evaluated: int
) -> float:
    """Returns the bytes of the arrays between the layers: all of a training batch, or two of an evaluation batch."""
    if isinstance(network, ModuleParts):  # with activations and sums between the parts: each input is counted twice
        arrays = [(image_shape, True), *((row.output, True) for row in network.rows)]
    else:
        arrays = [(image_shape, False), *_arrays(network.layers, network.num_classes, image_shape)]
    sizes = [math.prod(shape) for shape, _ in arrays]
    inputs = sum(size for size, (_, needs_input) in zip(sizes, arrays[1:], strict=False) if needs_input)
    value = 2 if static.arithmetic == "bfloat16" else _FLOAT
    training = _TRAINING_COPIES * value * static.batch_size * (sum(sizes) + inputs)
    evaluation = value * evaluated * max(map(sum, itertools.pairwise(sizes)))
    convolves = isinstance(network, ModuleParts) or any(isinstance(layer, Conv) for layer in flatten(network.layers))
    batch = max(static.batch_size, evaluated)
    # A convolution pads the images, and splits them into blocks or patches.
    around = _CHUNK_BYTES + _IMAGE_COPIES * _FLOAT * batch * sizes[0] if convolves else 0
    return max(training, evaluation + around)


def _arrays(layers: Layers, num_classes: int, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Yields the shape of each layer's output, and whether its gradient needs its input, too."""
    for layer in fused(layers):
        if isinstance(layer, Residual):
            yield from _arrays(layer.shortcut, num_classes, shape)
            branch = [*_arrays(layer.layers, num_classes, shape)]
            yield from branch
            shape, _ = branch[-1]
        else:
            for part in (layer.conv, MaxPool()) if isinstance(layer, ConvPool) else (layer,):
                shape = apply_layer(part, num_classes, shape).output
        yield shape, isinstance(layer, Gelu | Silu)
