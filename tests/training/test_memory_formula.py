"""The memory of a program by a formula, against the figure of the compiler."""

import dataclasses

import jax
import numpy as np
import pytest

from cnnjax.data import Dataset, Split
from cnnjax.models.ladder import LADDER
from cnnjax.models.specs import BatchNorm, Conv, Dense, GlobalAvgPool, GroupNorm, MaxPool, Relu, Residual, Silu
from cnnjax.study.plan import make_plan
from cnnjax.training.device_data import put_data
from cnnjax.training.devices import make_mesh
from cnnjax.training.memory import fitting_size, most_members, training_memory
from cnnjax.training.population import Population
from tests.models.test_network import PUBLISHED
from tests.support.studies import make_study


def make_dataset(name):
    """Images of no memory, in the numbers of MNIST and CIFAR-10, in the shape that the model was published for."""
    shape, num_classes, _ = PUBLISHED[name]

    def split(count):
        return Split(np.broadcast_to(np.uint8(0), (count, *shape)), np.broadcast_to(np.int32(0), count))

    train = split(50_000 if shape[-1] == 3 else 60_000)
    return Dataset("noise", train, split(5_000), split(10_000), tuple(map(str, range(num_classes))))


def compiled_memory(study, program, dataset):
    """The bytes of arguments, results and temporaries. Without LLVM's optimizations, which do not change them."""

    def abstract(arrays):
        return {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()}

    mesh = make_mesh(jax.local_devices())
    population = Population(study, program.static, dataset.image_shape, len(dataset.classes), mesh)
    hparams, streams = population.stack(program.members)
    small = dataclasses.replace(dataset, **{name: split.take(slice(1)) for name, split in dataset.splits.items()})
    images = abstract({name: split.images for name, split in dataset.splits.items()})
    labels = abstract({name: split.labels for name, split in dataset.splits.items()})
    data = put_data(small, study, mesh)._replace(images=images, labels=labels)
    arguments = (population.abstract_state(hparams, streams), hparams, streams, data, 0)
    lowered = population._functions["advance"].lower(*arguments)
    sizes = lowered.compile(compiler_options={"xla_backend_optimization_level": 0}).memory_analysis()
    return sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes


def check(name, members=2, **train):
    study = make_study(models=(name,), seeds=tuple(range(members)), train={"batch_size": 64, **train})
    (program,) = make_plan(study).programs
    dataset = make_dataset(name)
    found = training_memory(program.static, dataset, members, "cpu")
    assert found == pytest.approx(compiled_memory(study, program, dataset), rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PUBLISHED][::5])  # tests/campaigns/memory_formula.py takes all of them
def test_the_formula_is_within_30_percent_of_the_compiler(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["medium"])
@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": "adam", "batch_size": 256, "members": 1},
        {"batch_size": 16, "members": 6},
        {"precision": "bfloat16"},
    ],
    ids=["large batch", "many members", "bfloat16"],
)
def test_also_of_other_batches_and_members(name, train):
    check(name, **train)


@pytest.mark.slow
def test_also_of_residuals_norms_and_strides(monkeypatch):
    first, second, around = Conv(32, stride=2, bias=False), Conv(32, bias=False), (Conv(32, 1, stride=2),)
    block = (Residual(first, BatchNorm(), Relu(), second, GroupNorm(4), shortcut=around), Silu())
    layers = (Conv(16), Relu(), *block, MaxPool(3, 2), GlobalAvgPool(), Dense())
    monkeypatch.setitem(LADDER, "medium", layers)
    check("medium")


def test_more_of_anything_needs_more_memory():
    study, dataset = make_study(models=("medium",)), make_dataset("medium")
    (program,) = make_plan(study).programs

    def memory(members=4, platform="cpu", of=dataset, **static):
        return training_memory(dataclasses.replace(program.static, **static), of, members, platform)

    assert memory() < memory(members=5) < memory(members=5, platform="gpu")
    assert memory() < memory(optimizer="adam") < memory(optimizer="adam+sgd")
    assert memory() < memory(batch_size=1024) and memory(arithmetic="bfloat16", batch_size=1024) < memory(
        batch_size=1024
    )
    no_best = dataclasses.replace(dataset, validation=None)
    weights = 4 * PUBLISHED["medium"][2]
    assert memory(1) - memory(1, of=no_best, keeps_best=False) >= 2 * weights + dataset.validation.images.nbytes


def test_as_many_members_train_together_as_fit():
    assert fitting_size(10, 10, 1, 1e9, lambda size: size * 1e8) == 10
    assert fitting_size(10, 10, 1, 5e8, lambda size: size * 1e8) == 5
    assert fitting_size(8, 8, 2, 5e8, lambda size: size * 1e8) == 4
    assert fitting_size(10, 10, 2, 1, lambda size: size * 1e8) == 2  # less than one for each device is not possible
    assert most_members("gpu", 5, 2, 1e15) == 6 and most_members("cpu", 5, 1, 1e15) == 1
