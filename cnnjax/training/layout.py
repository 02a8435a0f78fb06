"""How members, and the examples of each batch, are spread over devices. Imports no jax: a plan shows it.

Devices that members alone would leave idle share batches: each computes the gradient of a shard of the batch.
"""

import math
from collections.abc import Sequence

from cnnjax.models.ladder import find_model
from cnnjax.multihost import processes
from cnnjax.study.hparams import Static
from cnnjax.study.own_code import is_reference
from cnnjax.study.plan import Program

# Measured for three networks on two CPU cores, see experiments/benchmarks/README.md: smaller shards take almost as long
# as larger ones, and a batch in two shards .5 to .6 of the time of a whole one. Not measured on several GPUs.
_LEAST_EXAMPLES = {"cpu": 32}  # in a shard: half a batch of 32 makes small networks slower
_LEAST_ON_ACCELERATOR = 256
_LEAST_OPERATIONS = 1e7  # in a step of a shard: the devices wait for each other for some tenths of a millisecond
_GAIN = 0.75  # as a power of the number of shards


def shards_of(
    static: Static, operations: float, members: int, devices: int, platform: str, stored: tuple[int, ...] = ()
) -> int:
    """Returns the number of devices that share each batch of a member: the number that trains all members the fastest.

    The devices form groups of this size. Members are spread over the groups, and a group trains its members one after
    another.

    Args:
        static: of the members' program.
        operations: floating-point operations to train on one image.
        members: how many there are.
        devices: how many there are.
        platform: of the devices: cpu, gpu or tpu.
        stored: the shape of the mesh that the run has recorded, if any: groups and devices of a group. It is kept if
            the number of devices is the same.
    """
    most = max(1.0, operations * static.batch_size / _LEAST_OPERATIONS)
    possible = [n for n in _possible_shards(static, platform) if devices % n == 0 and n <= most]

    def duration(shards: int) -> float:
        return math.ceil(members * shards / devices) / shards**_GAIN

    is_kept = stored in [(devices // shards, shards) for shards in possible]
    return stored[1] if is_kept else min(possible, key=duration)


def useful_devices(programs: Sequence[Program], most: int | None = None) -> int:
    """Returns the number of CPU devices for the programs of a study.

    Each member has its device. There are more devices than members only if every program can split its batches: the
    core of a device without a member would not help with the matrix products of the others.

    Args:
        programs: of the study.
        most: upper bound. None stands for all cores that the process may use.
    """
    cores = min(processes.usable_cores(), most or processes.usable_cores())

    def of_program(program: Program) -> int:
        members = len(program.members)
        return members * max(n for n in _possible_shards(program.static, "cpu") if n == 1 or members * n <= cores)

    return max(*(len(program.members) for program in programs), min(map(of_program, programs)))


def _possible_shards(static: Static, platform: str) -> list[int]:
    """Returns the numbers of shards into which the batches of a program may be split.

    Only own modules and losses themselves know what they compute over a whole batch.
    """
    if callable(find_model(static.model)) or is_reference(static.loss) or processes.count() > 1:
        return [1]
    most = static.batch_size // _LEAST_EXAMPLES.get(platform, _LEAST_ON_ACCELERATOR)
    return [1, *(shards for shards in range(2, most + 1) if static.batch_size % shards == 0)]
