"""Every convolution method against XLA's own convolution: values and gradients, over members, for any shape."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from cnnjax.models.conv import avg_pool, convolve, convolve_and_pool, max_pool, methods, products, same_padding
from cnnjax.models.rewrite import with_fast_convolutions
from cnnjax.study.schema import from_config
from tests.support.studies import ROUGH

MEMBERS = 2
# Sums of up to a few hundred float32 products, in another order.
TOLERANCE = 2e-5


def reference(images, kernel, padding):
    return lax.conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def reference_pool(images):
    return lax.reduce_window(images, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def assert_equal_with_grads(ours, theirs, *arguments):
    """Both functions, mapped over members, and their gradients for one random cotangent."""
    shape = jax.eval_shape(jax.vmap(theirs), *arguments).shape
    cotangent = np.random.default_rng(9).normal(size=shape).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_grads(function):
        value, pullback = jax.vjp(jax.vmap(function), *arguments)
        return value, *pullback(cotangent)

    for one, other in zip(value_and_grads(ours), value_and_grads(theirs), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=TOLERANCE * max(1, np.abs(other).max(initial=0)), rtol=0)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=(MEMBERS, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("height", "width", "channels", "size", "same"),
    [
        (9, 6, 3, 3, True),
        (6, 9, 8, 3, False),
        (1, 2, 5, 3, True),
        (7, 8, 2, 5, False),
        (5, 4, 6, 2, True),
        (8, 7, 1, 3, True),
    ],
)
@pytest.mark.parametrize("name", sorted(methods.METHODS.keys() - {"kernels", "pallas"}))  # they have tests of their own
def test_a_method_is_a_convolution(name, height, width, channels, size, same):
    if not methods.METHODS[name].fits(size):
        pytest.skip(f"{name} is not for kernels of {size}")
    batch = 6
    padding = same_padding(size) if same else ((0, 0), (0, 0))
    images, kernel, bias = draw(0, batch, height, width, channels), draw(1, size, size, channels, 8), draw(2, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "chunk_count", lambda *shape, backwards=False: 3)
        assert_equal_with_grads(
            *(lambda x, k: convolve(x, k, padding, name), lambda x, k: reference(x, k, padding)), *(images, kernel)
        )
        if min(height, width) - (0 if same else size - 1) >= 2:
            assert_equal_with_grads(
                lambda x, k, b: convolve_and_pool(x, k, b, padding, name),
                lambda x, k, b: reference_pool(jax.nn.relu(reference(x, k, padding) + b)),
                *(images, kernel, bias),
            )


def assert_equal_grads_of_numpy_and_jax_arrays(function, *arrays):
    """The gradients by one argument at a time, for which the others are not traced. One program compiles fast."""

    @functools.partial(jax.jit, compiler_options=ROUGH)
    def grads():
        for_one = (jax.grad(lambda *a: jnp.square(function(*a)).sum(), place) for place in range(len(arrays)))
        return [[grad(*arrays), grad(*map(jnp.asarray, arrays))] for grad in for_one]

    for ours, theirs in grads():
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("name", sorted({"auto", *methods.METHODS} - {"pallas"}))  # which is for GPUs
def test_gradients_of_numpy_and_jax_arrays_are_equal(name, channels):
    if name == "kernels":
        pytest.importorskip("ziglang")
    images, kernel, bias = (
        array[0] for array in (draw(0, 2, 4, 4, channels), draw(1, 3, 3, channels, 16), draw(2, 16))
    )
    one, pooled = (
        functools.partial(function, padding=same_padding(3), method=name) for function in (convolve, convolve_and_pool)
    )
    assert_equal_grads_of_numpy_and_jax_arrays(one, images, kernel)
    assert_equal_grads_of_numpy_and_jax_arrays(pooled, images, kernel, bias)


def test_gradients_of_numpy_and_jax_arrays_are_equal_in_pools_and_rewritten_functions():
    images, kernel = draw(0, 2, 4, 4, 3)[0], draw(1, 3, 3, 3, 16)[0]
    network = lambda x, k: reference_pool(jax.nn.relu(reference(x, k, "SAME")))  # noqa: E731
    assert_equal_grads_of_numpy_and_jax_arrays(with_fast_convolutions(network), images, kernel)
    for pool in (max_pool, avg_pool, lambda x: max_pool(x, (3, 3), (2, 2), "SAME")):
        assert_equal_grads_of_numpy_and_jax_arrays(pool, images)
        assert isinstance(pool(images), jax.Array)


@pytest.mark.parametrize("channels", [3, 16])
def test_the_chosen_method_inside_a_scan(channels):
    """As training calls it: the gradient of a loss, in a compiled loop over steps."""
    images, kernel = draw(0, 4, 10, 10, channels), draw(1, 3, 3, channels, 8)

    def losses(product):
        def step(kernel, _):
            loss, grad = jax.value_and_grad(lambda k: jnp.square(product(images[0], k, same_padding(3))).mean())(kernel)
            return kernel - 0.01 * grad, loss

        return jax.jit(lambda kernel: lax.scan(step, kernel, None, length=3)[1])(kernel[0])

    np.testing.assert_allclose(losses(convolve), losses(reference), rtol=1e-5)


def test_max_pool_drops_an_odd_last_row_and_column():
    assert_equal_with_grads(max_pool, reference_pool, draw(0, 3, 7, 5, 2))


@given(floats=st.integers(0, 10**9), batch=st.integers(1, 300), features=st.integers(1, 10**6))
def test_chunks_divide_the_batch_and_nearly_fit_the_cache(floats, batch, features):
    shape = (3, 3, 1, features)
    per_pixel = methods.Method(None, None, floats_per_pixel=lambda *shape: floats)
    count = methods.chunk_count(per_pixel, shape, batch, 1)
    assert batch % count == 0
    image, aim = 4 * floats, methods._CHUNK_BYTES + 4 * math.prod(shape)  # a kernel is worth a chunk of its size
    assert batch * image > aim or count == 1
    # A power of two can be halved: a divisor further from the aim than a factor of the root of two is never nearest.
    if batch.bit_count() == 1:
        assert count == batch or batch // count * image <= 1.5 * aim
        assert count == 1 or batch // count * image >= aim / 1.5
    # A prime number can only be cut into single images, if an image is large.
    assert methods.chunk_count(per_pixel, shape, 157, 1) in (1, 157)


def test_cpu_and_gpu_choose_by_shape(monkeypatch):
    shapes = [
        *(((3, 3, 3, 32), 1024), ((3, 3, 3, 48), 1024), ((5, 5, 1, 64), 784)),
        *(((3, 3, 64, 64), 1024), ((3, 3, 256, 512), 64), ((5, 5, 64, 64), 1024), ((3, 3, 64, 64), 64)),
        *(((2, 2, 1, 64), 729), ((3, 3, 32, 64), 256), ((3, 3, 64, 32), 256)),
    ]
    assert [methods.choose(*shape) for shape in shapes] == [
        *("block_patches", "patches", "patches", "winograd", "winograd", "shifts", "shifts", "patches"),
        *("winograd", "winograd"),
    ]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [methods.choose(*shape) for shape in shapes] == [*["block_patches"] * 3, *["dense"] * 4, *["patches"] * 3]


def test_chunks_of_patches_of_blocks(monkeypatch):
    """On a CPU, if the patches are small compared with the output. A GPU computes a batch at once."""
    method, batch, pixels = methods.METHODS["block_patches"], 64, 1024

    def counts():
        return [methods.chunk_count(method, (3, 3, 3, features), batch, pixels) for features in (16, 32)]

    assert counts() == [1, 4]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert counts() == [1, 1]


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_a_wanted_method_is_chosen_if_it_supports_the_kernel(name):
    assert methods.choose((3, 3, 64, 9), 1024, name) == methods.choose((3, 3, 3, 9), 64, name) == name
    assert methods.choose((2, 2, 64, 9), 1024, name) in (name, "shifts")
    assert [study.train.convolution for study in [from_config({"train": {"convolution": name}})]] == [(name,)]
