"""The Pallas convolution: interpreted against XLA's own, and lowered for CUDA without a GPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnjax.models.conv import convolve, pallas, same_padding
from cnnjax.training import program
from cnnjax.training.load import load_trial
from tests.support.runs import run, trial_ids
from tests.support.studies import make_study


def reference(images, kernel, padding):
    return lax.conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("members", "size", "height", "width", "channels", "features", "same"),
    [(1, 3, 7, 9, 3, 20, True), (3, 3, 5, 6, 18, 70, False), (1, 5, 5, 7, 18, 8, True), (3, 5, 9, 6, 1, 5, False)],
)
def test_values_and_gradients_over_members(members, size, height, width, channels, features, same, monkeypatch):
    monkeypatch.setattr(pallas, "_ROWS_OF_PART", 64)  # several parts, of which the last is not full
    rng = np.random.default_rng(0)
    images = rng.normal(size=(members, 5, height, width, channels)).astype(np.float32)
    kernels = rng.normal(size=(members, size, size, channels, features)).astype(np.float32)
    padding = same_padding(size) if same else ((0, 0), (0, 0))

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_grads(function):
        value, pullback = jax.vjp(jax.vmap(function), images, kernels)
        return value, *pullback(jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape))

    ours = value_and_grads(lambda images, kernel: convolve(images, kernel, padding, "pallas"))
    theirs = value_and_grads(lambda images, kernel: reference(images, kernel, padding))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-6 * np.abs(other).max(), rtol=0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_lowers_for_cuda_with_members_as_an_axis_of_the_grid(dtype, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def loss(images, kernel):
        return jnp.square(convolve(images, kernel, same_padding(3), "pallas")).sum()

    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((3, 4, 9, 9, 3), (3, 3, 3, 3, 20))]
    grads = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))
    text = grads.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in text.splitlines() if "xla.gpu.triton" in line]
    assert len(calls) == 3  # output, gradient of the images, gradient of the kernel
    assert all("grid_z = 3" in line for line in calls)


def test_a_kernel_larger_than_the_images_has_no_output_and_zero_gradients():
    images, kernel = jnp.ones((2, 2, 2, 3)), jnp.ones((5, 5, 3, 4))
    value, pullback = jax.vjp(lambda images, kernel: convolve(images, kernel, "VALID", "pallas"), images, kernel)
    assert value.shape == (2, 0, 0, 4)
    assert [(grad.shape, bool(grad.any())) for grad in pullback(value)] == [(a.shape, False) for a in (images, kernel)]


@pytest.mark.usefixtures("tiny", "rough")
def test_a_network_trained_by_it_on_a_gpu_is_loaded_without_one(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(program, "check_convolution", lambda method, platform: None)
        run(make_study(train={"convolution": "pallas", "epochs": 1}), tmp_path)
    trained = load_trial(tmp_path, trial_ids(tmp_path)[0])
    assert (trained.trial.static.convolution, trained.network.convolution) == ("pallas", "auto")
    with np.load(tmp_path / "predictions/images.npz") as stored:
        logits = trained.logits(stored["images"])
    expected = np.load(tmp_path / f"predictions/{trained.trial.id}.npz")["logits"]
    np.testing.assert_allclose(logits - logits.max(-1, keepdims=True), expected, atol=1e-3)  # stored in float16
