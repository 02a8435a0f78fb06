"""The speeds of earlier runs, in the user's cache folder: a plan estimates its minutes from them. Imports no jax."""

import contextlib
import json
import math
from pathlib import Path
from typing import NamedTuple

from cnnjax.runs.integrity import replaced
from cnnjax.utils.paths import cache_folder

_MOST = 300  # entries; the oldest are dropped


class Speed(NamedTuple):
    """How fast a program has trained.

    Attributes:
        device: kind of the devices; of a CPU, the model of the processor.
        devices: number of devices that the members were spread over.
        model: name of the model.
        layers: number of its layers that have a kernel.
        work: operations for a training image, of the network and of feeding it, see `training.estimate`.
        optimizer: of the program.
        precision: of the program, and its method of convolutions unless that is `auto`.
        batch_size: of the program.
        members: the number that trained together.
        images_per_second: training images of all members, with the evaluation after each epoch.
        compile_seconds: the time to compile.
    """

    device: str
    devices: int
    model: str
    layers: int
    work: float
    optimizer: str
    precision: str
    batch_size: int
    members: int
    images_per_second: float = math.nan
    compile_seconds: float = math.nan

    @property
    def key(self) -> tuple:
        """What two entries of the same program on the same machine have in common."""
        return self[:-2]

    @property
    def operations_per_second(self) -> float:
        """The operations of all members in a second."""
        return self.work * self.images_per_second


def read_speeds() -> list[Speed]:
    """Returns the intact entries, the oldest first; none if the file is missing or damaged."""
    try:
        entries = json.loads(_path().read_text(encoding="utf-8"))["speeds"]
        return [Speed(*entry) for entry in entries if _is_intact(entry)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def add_speed(speed: Speed) -> None:
    """Adds an entry, which replaces an older one of the same program. A cache that cannot be written is ignored."""
    if not _is_intact([*speed]):
        return
    kept = [each for each in read_speeds() if each.key != speed.key]
    with contextlib.suppress(OSError):
        _path().parent.mkdir(parents=True, exist_ok=True)
        with replaced(_path()) as file:  # of two runs that end together one entry may be lost
            file.write(json.dumps({"speeds": [*kept, speed][-_MOST:]}).encode())


def _path() -> Path:
    return cache_folder() / "speeds.json"


def _is_intact(entry: object) -> bool:
    kinds = Speed.__annotations__.values()
    if not isinstance(entry, list) or len(entry) != len(kinds):
        return False
    pairs = zip(entry, kinds, strict=True)
    if not all(isinstance(value, (int, float) if kind is float else kind) for value, kind in pairs):
        return False
    numbers = [value for value in entry if not isinstance(value, str)]
    return all(math.isfinite(value) and value >= 0 for value in numbers) and min(entry[1], entry[4], entry[9]) > 0
