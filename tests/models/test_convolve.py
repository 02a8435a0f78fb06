"""`convolve` with strides, dilation, groups and kernels of any shape, and `max_pool` with any windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from cnnjax.models.conv import convolve, max_pool, methods
from cnnjax.models.conv.windows import Window

TOLERANCE = 1e-5


def reference(images, kernel, padding, *, strides, dilation, groups):
    return lax.conv_general_dilated(
        *(images, kernel, strides, padding),
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def reference_pool(images, shape, strides, padding):
    if not isinstance(padding, str):
        padding = [(0, 0), *padding, (0, 0)]
    return lax.reduce_window(images, -jnp.inf, lax.max, (1, *shape, 1), (1, *strides, 1), padding)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def value_and_grads(function, *arrays):
    @jax.jit
    def compiled(*arrays):
        value, pullback = jax.vjp(function, *arrays)
        return value, *pullback(jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape))

    return compiled(*arrays)


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=TOLERANCE * max(1, np.abs(other).max(initial=0)), rtol=0)


KINDS = {
    "strided": ((8, 7, 20), (3, 3, 20, 4), "SAME", {"strides": (2, 2)}),
    "strided, few channels": ((9, 8, 3), (5, 5, 3, 4), ((2, 2), (2, 2)), {"strides": (2, 2)}),
    "pointwise": ((4, 5, 6), (1, 1, 6, 3), "VALID", {}),
    "strided pointwise": ((5, 5, 6), (1, 1, 6, 3), "SAME", {"strides": (2, 2)}),
    "patches of an image": ((9, 8, 3), (4, 4, 3, 6), "SAME", {"strides": (4, 4)}),
    "depthwise": ((6, 7, 4), (3, 3, 1, 4), "SAME", {"groups": 4}),
    "strided depthwise, two kernels a channel": ((6, 7, 3), (3, 3, 1, 6), "SAME", {"groups": 3, "strides": (2, 2)}),
    "grouped": ((5, 6, 6), (3, 3, 3, 4), "SAME", {"groups": 2}),
    "dilated": ((8, 9, 5), (3, 3, 5, 4), "SAME", {"dilation": (2, 3)}),
    "dilated and strided": ((9, 9, 5), (3, 2, 5, 4), "SAME", {"dilation": (2, 1), "strides": (1, 3)}),
    "rectangular": ((6, 7, 5), (1, 4, 5, 3), "SAME", {}),
    "cropped and padded far": ((9, 9, 20), (3, 3, 20, 4), ((4, 5), (-1, 3)), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_over_members(kind):
    shape, kernel_shape, padding, arguments = KINDS[kind]
    arguments = {"strides": (1, 1), "dilation": (1, 1), "groups": 1} | arguments
    images, kernels = draw(0, 2, 3, *shape), draw(1, 2, *kernel_shape)
    ours = functools.partial(convolve, padding=padding, **arguments)
    theirs = functools.partial(reference, padding=padding, **arguments)
    assert_equal(value_and_grads(jax.vmap(ours), images, kernels), value_and_grads(jax.vmap(theirs), images, kernels))


@pytest.mark.parametrize("kind", ["strided", "depthwise", "dilated"])
def test_gradients_inside_a_scan(kind):
    shape, kernel_shape, padding, arguments = KINDS[kind]
    images, kernel = draw(0, 3, *shape), draw(1, *kernel_shape)

    def step(kernel, _=None):
        output = convolve(images, kernel, padding, **arguments)
        return kernel - 0.1 * jax.grad(lambda k: jnp.square(convolve(images, k, padding, **arguments)).mean())(
            kernel
        ), (output.mean())

    def plain_step(kernel):
        arguments_ = {"strides": (1, 1), "dilation": (1, 1), "groups": 1} | arguments
        return kernel - 0.1 * jax.grad(lambda k: jnp.square(reference(images, k, padding, **arguments_)).mean())(kernel)

    ours = jax.jit(lambda kernel: lax.scan(step, kernel, None, length=2)[0])(kernel)
    np.testing.assert_allclose(ours, jax.jit(plain_step)(jax.jit(plain_step)(kernel)), rtol=1e-5, atol=1e-6)


@pytest.mark.torch
@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_convolution_is_that_of_pytorch(data):
    torch = pytest.importorskip("torch")
    one_to = lambda highest: st.tuples(*[st.integers(1, highest)] * 2)  # noqa: E731
    strides, dilation, size = data.draw(one_to(3)), data.draw(one_to(2)), data.draw(one_to(4))
    groups, depth, width = (data.draw(st.integers(1, highest)) for highest in (4, 3, 3))
    padding = data.draw(st.tuples(*[st.integers(0, 4)] * 2))
    extents = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    image = [max(1, e - 2 * p) + data.draw(st.integers(0, 5)) for e, p in zip(extents, padding, strict=True)]
    images, kernel = draw(0, 2, *image, groups * depth), draw(1, *size, depth, groups * width)

    ours = value_and_grads(
        lambda x, k: convolve(x, k, [(p, p) for p in padding], strides=strides, dilation=dilation, groups=groups),
        *(images, kernel),
    )
    x, k = (
        torch.tensor(array.transpose(axes), requires_grad=True)
        for array, axes in [(images, (0, 3, 1, 2)), (kernel, (3, 2, 0, 1))]
    )
    output = torch.nn.functional.conv2d(x, k, None, strides, padding, dilation, groups)
    value = output.permute(0, 2, 3, 1)
    value.backward(torch.cos(torch.arange(value.numel(), dtype=torch.float32)).reshape(value.shape))
    theirs = value.detach(), x.grad.permute(0, 2, 3, 1), k.grad.permute(2, 3, 1, 0)
    assert_equal(ours, [array.numpy() for array in theirs])


@pytest.mark.parametrize(
    ("shape", "strides", "padding"),
    [
        ((3, 3), (2, 2), "SAME"),
        ((3, 3), (2, 2), ((1, 1), (1, 1))),
        ((2, 2), (2, 2), "SAME"),
        ((3, 2), (3, 2), "VALID"),
        ((2, 3), (1, 3), "SAME"),
        ((2, 2), (3, 3), "VALID"),
    ],
)
def test_max_pool_equals_reduce_window(shape, strides, padding):
    """Also for equal maxima, which small integers have."""
    images = np.random.default_rng(0).integers(0, 4, (2, 7, 9, 3)).astype(np.float32)
    ours = value_and_grads(lambda x: max_pool(x, shape, strides, padding), images)
    theirs = value_and_grads(lambda x: reference_pool(x, shape, strides, padding), images)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["dense", "patches"])
def test_methods_for_any_window(name):
    """A GPU chooses its own convolution for many channels, and patches for few."""
    arguments = {"strides": (2, 3), "dilation": (1, 2), "groups": 1}
    images, kernels = draw(0, 2, 3, 9, 9, 4), draw(1, 2, 3, 3, 4, 5)
    ours = functools.partial(convolve, padding="SAME", method=name, **arguments)
    theirs = functools.partial(reference, padding="SAME", **arguments)
    assert_equal(value_and_grads(jax.vmap(ours), images, kernels), value_and_grads(jax.vmap(theirs), images, kernels))


def test_a_method_that_does_not_support_a_window_is_not_chosen(monkeypatch):
    strided = Window((2, 2))
    assert methods.choose((3, 3, 64, 64), 1024, "winograd", strided) == "shifts"
    assert methods.choose((3, 1, 64, 64), 1024, "winograd") == "shifts"
    assert methods.choose((3, 3, 3, 64), 1024, window=strided) == "patches"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert methods.choose((3, 3, 64, 64), 1024, window=strided) == "dense"


def test_arguments_that_do_not_fit():
    with pytest.raises((TypeError, ValueError), match="feature_group_count"):
        convolve(draw(0, 1, 4, 4, 3), draw(0, 3, 3, 3, 4), groups=2)
