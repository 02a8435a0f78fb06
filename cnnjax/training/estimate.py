"""The time that programs take, from their operations and the speeds of earlier runs. Imports no jax."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cnnjax.data import Dataset
from cnnjax.models.summary import Architecture, ModuleParts, describe_network, layer_table, training_flops
from cnnjax.runs.speeds import Speed
from cnnjax.study.hparams import Static
from cnnjax.study.plan import Program
from cnnjax.training.machine import Machine

_OPERATIONS_PER_VALUE = 1000  # network operations that take as long as gathering and augmenting one pixel value
_OPERATIONS_PER_STEP = 1e7  # that take as long as starting a step
_SAME, _OTHER = 1.25, 1.6  # the true time is likely within this factor of the estimate
# Of the speed of a matrix product: the share that training reaches, and the factor of its error. Measured on two CPU
# cores for three networks of the ladder. On accelerators it depends much more on the network.
_ON_CPU, _ON_ACCELERATOR = (0.6, 2.5), (0.1, 5.0)
_COMPILE_SECONDS = 2.0  # for each layer with a kernel, if nothing is known


class Estimate(NamedTuple):
    """The time that a program takes.

    Attributes:
        seconds_per_image: for each training image of all members, with the evaluation after each epoch.
        compile_seconds: the time to compile it.
        factor: the true time is likely between the estimate divided and multiplied by it.
    """

    seconds_per_image: float
    compile_seconds: float
    factor: float


def training_images(program: Program, dataset: Dataset) -> int:
    """Returns the number of images that the members of a program train on, each counted in each epoch."""
    return sum(member.epochs for member in program.members) * dataset.train_size(program.static.train_examples)


def network_of(static: Static, dataset: Dataset) -> Architecture | ModuleParts:
    """Returns the layers, or the parts, of a network."""
    return describe_network(static.model, len(dataset.classes), dataset.image_shape)


def describe_speed(static: Static, dataset: Dataset, machine: Machine, members: int) -> Speed:
    """Returns the entry of a program that trains this number of members together, without its measured values."""
    network = network_of(static, dataset)
    layers = sum(bool(row.kernel) for row in layer_table(network, dataset.image_shape))
    flops = training_flops(network, dataset.image_shape)
    work = flops + _OPERATIONS_PER_VALUE * math.prod(dataset.image_shape) + _OPERATIONS_PER_STEP / static.batch_size
    precision = static.arithmetic if static.convolution == "auto" else f"{static.arithmetic}, {static.convolution}"
    return Speed(
        *(machine.device, machine.devices, static.model, layers, float(work)),
        *(static.optimizer, precision, static.batch_size, members),
    )


class Estimator:
    """Estimates the time of programs on a machine.

    The speed of a program is that of the same program before, or else that of the most similar program on the same
    kind of device, in operations per second. Without any, it is a share of the speed of a matrix product.

    Args:
        machine: the machine.
        speeds: of earlier runs, the newest last.
        product: returns the operations per second of a matrix product; called if no speed is of this device.
    """

    def __init__(self, machine: Machine, speeds: Sequence[Speed], product: Callable[[], float]):
        self._product = functools.cache(product)
        self._of_product = _ON_CPU if machine.platform == "cpu" else _ON_ACCELERATOR
        self._speeds = [speed for speed in reversed(speeds) if speed.device == machine.device]

    @property
    def is_calibrated(self) -> bool:
        """Whether no earlier run tells the speed of this machine."""
        return not self._speeds

    def estimate(self, wanted: Speed) -> Estimate:
        """Returns the estimate of a program, given as an entry without measured values."""
        if not self._speeds:
            share, factor = self._of_product
            return Estimate(wanted.work / (share * self._product()), _COMPILE_SECONDS * wanted.layers, factor)
        known = min(self._speeds, key=lambda speed: _distance(wanted, speed))
        distance = _distance(wanted, known)
        factor = _SAME if distance == 0 else min(_OTHER * math.exp(distance / 4), self._of_product[1])
        compile_seconds = known.compile_seconds * wanted.layers / known.layers
        return Estimate(wanted.work / known.operations_per_second, compile_seconds, factor)


def _distance(wanted: Speed, known: Speed) -> float:
    """Returns how different two programs are: 0 for the same, and about 1 for each factor of e in their sizes."""
    ratios = ((wanted.work, known.work), (wanted.batch_size, known.batch_size), (wanted.members, known.members))
    differ = sum(a != b for a, b in zip(wanted.key, known.key, strict=True))
    work, batch_size, members = (abs(math.log(a / b)) for a, b in ratios)
    return work + batch_size / 2 + members / 4 + 2 * (wanted.devices != known.devices) + 0.1 * differ


def time_span(low: float, high: float) -> str:
    """Returns a range of seconds in words: 'about 3 to 10 minutes'."""
    unit, size = ("seconds", 1) if high < 100 else ("minutes", 60) if high < 6000 else ("hours", 3600)
    ends = [max(end / size, 0.1) for end in (low, high)]
    first, last = (f"{end:.0f}" if end >= 9.5 else f"{end:.2g}" for end in ends)
    return f"about {last} {unit}" if first == last else f"about {first} to {last} {unit}"
