"""The code paths of a GPU, tested on a CPU: the same results, and a program that lowers for CUDA."""

import re

import jax
import numpy as np
import pytest

from cnnjax.training import population
from tests.support.studies import make_study
from tests.training.test_population import Bench, assert_close

pytestmark = pytest.mark.slow


@pytest.fixture
def gpu(monkeypatch):
    """Selects the code for a GPU: members side by side, the backend's convolutions, gathered batches."""
    return lambda: monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize(
    ("model", "augment", "split"),
    [
        ("tiny", (), 0),
        ("tiny", ("flip", "crop"), None),
        ("tiny", ("rotate", "flip_all"), 0),
        ("medium", ("flip", "crop"), 0),
    ],
)
def test_members_side_by_side_train_as_one_after_another(model, augment, split, gpu, tiny):
    train = {"learning_rate": (1e-3, 1e-2), "weight_decay": 1e-3, "momentum": (0.0, 0.9)}
    study = make_study(models=model, seeds=(0, 1), streams={"split": split}, data={"augment": augment}, train=train)
    trained = []
    for backend in (lambda: None, gpu):
        backend()
        bench = Bench(study)
        assert len(bench.members) == 8
        state, history = bench.train(bench.members, 2)
        trained.append((state.variables, history, bench.predict(bench.members, state).astype(np.float32)))
    (variables, history, logits), (other_variables, other_history, other_logits) = trained
    assert_close(variables, other_variables)
    assert_close(history, other_history)
    np.testing.assert_allclose(logits, other_logits, atol=0.01)  # they are float16


def lowered(gpu, model, precision="float32"):
    """The lowered program that trains three members of a model on a GPU."""
    gpu()
    # Without validation, whose confusion matrices are products of ones and zeros, exact in any precision.
    data = {"augment": ("flip", "crop"), "image_size": 32, "resize": "bilinear", "validation": 0}
    train = {"precision": precision}
    bench = Bench(make_study(models=model, seeds=(0, 1, 2), select="test_loss", data=data, train=train))
    population, stacked = bench.population, bench.population.stack(bench.members)
    arguments = population.abstract_state(*stacked), *stacked, bench.data, population._replicate(1)
    return population._functions["advance"].trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("model", ["complex", "lenet_64_128", "cnn_deep"])
def test_training_lowers_for_cuda_without_convolutions_in_groups(model, gpu):
    program = lowered(gpu, model)
    assert "stablehlo.convolution" in program
    assert set(re.findall(r"(?:feature|batch)_group_count = (\d+)", program)) == {"1"}


@pytest.mark.parametrize("model", ["baseline", "medium", "lenet_32_64", "cnn_dropout"])
def test_small_networks_lower_for_cuda_to_products_of_all_members(model, gpu):
    program = lowered(gpu, model)
    assert "stablehlo.convolution" not in program
    assert re.search(r"stablehlo.dot_general .*batching_dims = \[0\] x \[0\].*tensor<3x", program)


# XLA takes HIGH for tf32 on a GPU, and HIGHEST for float32.
@pytest.mark.parametrize(
    ("precision", "named", "dtype"),
    [("float32", "HIGHEST", "f32"), ("tf32", "HIGH", "f32"), ("bfloat16", "DEFAULT", "bf16")],
)
def test_every_product_is_of_the_precision(precision, named, dtype, gpu):
    program = lowered(gpu, "complex", precision)
    (products, convolutions) = (
        [line for line in program.splitlines() if f"stablehlo.{operation}" in line]
        for operation in ("dot_general", "convolution")
    )
    assert products and all(f"precision = [{named}, {named}]" in line for line in products)
    assert convolutions and all(line.count(f"precision {named}>") == 2 for line in convolutions)
    assert all(re.search(rf"\(tensor<[\dx]+x{dtype}>, tensor<[\dx]+x{dtype}>\)", line) for line in products)
    assert all(re.search(rf"\(tensor<[\dx]+x{dtype}>, tensor<[\dx]+x{dtype}>\)", line) for line in convolutions)


def test_members_are_mapped_side_by_side(gpu):
    """Otherwise a GPU would wait for the smallest kernels of one member after another."""
    gpu()
    program = jax.make_jaxpr(lambda x: population.map_members(lambda row: row * 2, x))(np.zeros((3, 4), np.float32))
    assert "scan" not in str(program) and "while" not in str(program)
