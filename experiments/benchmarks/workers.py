"""The contenders of the throughput benchmark, each in a process of its own that trains when it is told to."""

import functools
import math
import os
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.models import summary

if TYPE_CHECKING:
    from cnnjax.data import Dataset
    from cnnjax.study.plan import Program
    from cnnjax.study.schema import Study
    from cnnjax.training.population import Population

EXAMPLES = 6400
_PEAK_SIZE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the machine's peak
_EPOCH_FLOP = {
    "cpu": 5e10,
    "gpu": 1e13,
}  # about what an epoch of ours computes, the unit of a round of a second or more
_MOST_EPOCHS = 10_000  # in a round


class Work(NamedTuple):
    """What a contender trains, and for how long at a time."""

    model: str
    optimizer: str
    batch_size: int
    members: int
    precision: str
    seconds: float
    convolution: str = "auto"


def answer(pipe: Connection, run: Callable[[int], float], per_step: float, seconds: float, memory: Callable) -> None:
    """Warms a contender up, fits its number of steps to the wanted time, and runs a round whenever told to.

    Args:
        pipe: gets how long it took to get ready, then for each True `per_step` over the seconds of a step; on False
            the peak memory in bytes, and the end.
        run: takes a number of steps and returns their seconds.
        per_step: what is counted.
        seconds: wanted length of a round.
        memory: returns the peak memory so far.
    """
    start = time.perf_counter()
    run(1)
    ready = time.perf_counter() - start
    steps = max(1, round(seconds / max(run(2) / 2, 1e-6)))
    run(steps)
    pipe.send(ready)
    while pipe.recv():
        pipe.send(steps * per_step / run(steps))
    pipe.send(memory())


def host_memory() -> int:
    """Returns the most memory that this process ever had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def random_images() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the shape of CIFAR-10: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (EXAMPLES, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, EXAMPLES)


def torch_device() -> tuple[str, Callable]:
    """The device that PyTorch trains on, and how to ask for its peak memory."""
    import torch

    return ("cuda", torch.cuda.max_memory_allocated) if torch.cuda.is_available() else ("cpu", host_memory)


def matrix_product(pipe: Connection, work: Work) -> None:
    """The floating-point operations a second of one large matrix product, in the precision of the contest."""
    import torch

    device, memory = torch_device()
    size = _PEAK_SIZE[device]
    if device == "cuda":
        torch.set_float32_matmul_precision("highest" if work.precision == "float32" else "high")
    dtype = torch.bfloat16 if work.precision == "bfloat16" else torch.float32
    a, b = torch.rand(2, size, size, device=device, dtype=dtype)

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    answer(pipe, run, 2 * size**3, work.seconds, memory)


def pytorch(pipe: Connection, work: Work) -> None:
    """The tuned loop: one run after another is its only way to train several, so it trains one."""
    from experiments.benchmarks.pytorch_peer import Peer

    device, memory = torch_device()
    on_gpu = device == "cuda"
    peer = Peer(
        *(work.model, work.optimizer, work.batch_size, device, *random_images()),
        compile=on_gpu,
        bfloat16=work.precision == "bfloat16",
    )
    answer(pipe, peer.run, work.batch_size, work.seconds, memory)


def torch_func(pipe: Connection, work: Work) -> None:
    """Stacked models under PyTorch's own vmap."""
    from experiments.benchmarks.torch_vmap import StackedPeer

    device, memory = torch_device()
    peer = StackedPeer(
        *(work.model, work.optimizer, work.batch_size, work.members, device, *random_images()),
        bfloat16=work.precision == "bfloat16",
    )
    answer(pipe, peer.run, work.members * work.batch_size, work.seconds, memory)


def source_loop(pipe: Connection, work: Work) -> None:
    """The source studies' loop: one PIL image at a time."""
    from experiments.benchmarks.source_loop import SourceLoop

    device, memory = torch_device()
    loop = SourceLoop(work.model, work.optimizer, work.batch_size, device, *random_images())
    answer(pipe, loop.run, work.batch_size, work.seconds, memory)


def cnnjax(
    pipe: Connection, work: Work, own: bool = False, model: str | None = None, shards: int | None = None
) -> None:
    """A population as a study trains it, in whole epochs, of which each has the same number of steps.

    `model` trains in the place of the model of `work`, which has the same operations. So many devices share each batch
    if `shards` is not None.
    """
    from cnnjax.training.devices import use_every_core
    from cnnjax.training.layout import useful_devices

    trained = work if model is None else work._replace(model=model)
    use_every_core(useful_devices([program_of(trained, 1)[1]]))
    import jax

    stats = jax.local_devices()[0].memory_stats

    def memory() -> int:
        return (stats() or {}).get("peak_bytes_in_use", 0) or host_memory()

    steps = _steps_of_an_epoch(work, jax.default_backend())
    compiled = functools.cache(
        lambda: population_of(trained, steps, _MOST_EPOCHS, own, shards)[1]
    )  # on the timed first call
    answer(pipe, lambda epochs: compiled()(epochs), steps * work.batch_size * work.members, work.seconds, memory)


def own_splits(pipe: Connection, work: Work) -> None:
    """The same population, but each member takes its own half of a pool of images by a table of indices."""
    cnnjax(pipe, work, own=True)


def plain_flax(pipe: Connection, work: Work) -> None:
    """The same population of the same network, but as a user writes it in Flax."""
    file = Path(__file__).with_name("plain_networks.py")
    cnnjax(pipe, work, model=f"{file}:{work.model.title()}")


def one_device(pipe: Connection, work: Work) -> None:
    """The same population on one device, whose matrix products take all cores."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1".strip()
    cnnjax(pipe, work)


def in_shards(pipe: Connection, work: Work) -> None:
    """The same population, of which two devices share each batch of a member."""
    cnnjax(pipe, work, shards=2)


def deterministic(pipe: Connection, work: Work) -> None:
    """The same population with operations that give equal bits each time, where a GPU has faster ones that do not."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    cnnjax(pipe, work)


def training_flops(model: str) -> int:
    """Returns the operations to train on one image of CIFAR-10."""

    return summary.training_flops(summary.describe_network(model, 10, (32, 32, 3)), (32, 32, 3))


def _steps_of_an_epoch(work: Work, backend: str) -> int:
    a_step = training_flops(work.model) * work.batch_size * work.members
    epoch = _EPOCH_FLOP[backend] * min(work.seconds, 1.0)
    return min(max(1, round(epoch / a_step)), EXAMPLES // work.batch_size)


def random_dataset(train_examples: int, test_examples: int) -> "Dataset":
    """Returns data in the shape of CIFAR-10: speed does not depend on what the images show."""
    from cnnjax.data import Dataset, Split

    images, labels = random_images()

    def split(count: int) -> Split:
        return Split(np.resize(images, (count, *images.shape[1:])), np.resize(labels.astype(np.int32), count))

    train, test = split(train_examples), split(test_examples)
    return Dataset("random", train, None, test, tuple("0123456789"))


def program_of(work: Work, steps: int, most: int = 1, own_splits: bool = False) -> tuple["Study", "Program"]:
    """Returns a study whose epoch has so many steps, of at most so many epochs at a time, and its one program."""
    from cnnjax.study import own_code
    from cnnjax.study.overrides import read_study
    from cnnjax.study.plan import make_plan

    rule: dict[str, Any] = {"optimizer": work.optimizer, "momentum": 0.9, "batch_size": work.batch_size}
    study = read_study(
        {
            "models": work.model,
            "seeds": tuple(range(work.members)),
            "select": "train_loss",
            "data": {"augment": ("flip", "crop"), "validation": 0, "train_examples": steps * work.batch_size},
            "streams": {"split": None if own_splits else 0},
            "train": {**rule, "learning_rate": 1e-3, "precision": work.precision, "convolution": work.convolution},
            "checkpoint": {"every": most},
        }
    )
    own_code.prepare(study.code, study.models)
    (program,) = make_plan(study).programs
    return study, program


def population_of(
    work: Work, steps: int, most: int = 1, own_splits: bool = False, shards: int | None = None
) -> tuple["Population", Callable[[int], float]]:
    """Compiles a study whose epoch has so many steps; returns it and what times some epochs, at most so many.

    So many devices share each batch if `shards` is not None.
    """
    import jax

    from cnnjax.data.dataset import Source
    from cnnjax.data.splits import make_splits
    from cnnjax.training.device_data import put_data
    from cnnjax.training.devices import make_mesh
    from cnnjax.training.layout import shards_of
    from cnnjax.training.population import Population

    study, program = program_of(work, steps, most, own_splits)
    dataset = random_dataset((1 + own_splits) * steps * work.batch_size, work.batch_size)
    if own_splits:
        source = Source(dataset.train, dataset.test, dataset.classes)
        dataset = make_splits(source, study.data, dataset.name, study.split_seeds)
    devices = jax.local_devices()
    operations, backend = training_flops(work.model), jax.default_backend()
    shards = shards or shards_of(program.static, operations, work.members, len(devices), backend)
    groups = math.gcd(work.members, len(devices) // shards)  # as many as share the members equally
    mesh = make_mesh(devices[: groups * shards], shards)
    data = put_data(dataset, study, mesh)
    population = Population(study, program.static, dataset.image_shape, 10, mesh)
    hparams, streams = population.stack(program.members)
    state = population.init(hparams, streams)
    population.advance(state, hparams, streams, data, 1)

    def timed(epochs: int) -> float:
        start = time.perf_counter()
        population.advance(state, hparams, streams, data, epochs)
        return time.perf_counter() - start

    return population, timed
