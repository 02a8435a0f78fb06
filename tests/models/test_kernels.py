"""Our own kernels in C: against sums in float64, in loops, over devices and processes, and where they do not fit."""

import functools
import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import cnnjax
from cnnjax.commands.plan_table import plan_lines
from cnnjax.models.conv import convolve, convolve_and_pool, kernels, methods, same_padding
from cnnjax.models.conv.windows import PLAIN, Window
from cnnjax.models.ladder import LADDER, check_convolution
from cnnjax.models.network import build_network, initial_variables
from cnnjax.models.specs import BatchNorm, Conv, Dense, Dropout, MaxPool, Relu
from cnnjax.training.load import load_trial
from cnnjax.training.program import load_plan, prepare_jax
from cnnjax.utils.errors import RequestError
from tests.support import runs
from tests.support.studies import make_study

TOLERANCE = 5e-6  # of the largest value
SAME = same_padding(3)

# Two devices share the members; a second process reads the compiled program from the cache.
SHARED = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp, numpy as np
from cnnjax.models.conv import convolve, kernels as own
from cnnjax.training.program import enable_compilation_cache
enable_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
own._usable_cores, own._LEAST_TILES = lambda: 6, 1  # three threads for each device
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
draw = lambda seed, *shape: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
images, kernels = draw(0, 6, 2, 8, 8, 16), draw(1, 6, 3, 3, 16, 32)
mesh, spec = jax.sharding.Mesh(jax.devices(), ("members",)), jax.sharding.PartitionSpec("members")
def grads(images, kernel):
    return jax.grad(lambda *arrays: jnp.square(convolve(*arrays, method="kernels")).sum(), (0, 1))(images, kernel)
def over_members(*arrays):
    return jax.lax.map(lambda pair: grads(*pair), arrays)
sharded = jax.jit(jax.shard_map(over_members, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
for _ in range(20):
    found = sharded(images, kernels)
    for i in range(6):
        for one, other in zip(found, grads(images[i], kernels[i])):
            assert np.array_equal(one[i], other)
print(len(hits), np.asarray(found[1]).tobytes().hex())
"""

OTHER_PROCESSOR = """
import sys
from cnnjax.models.conv import kernels
kernels.PROCESSOR = sys.argv[1]
from tests.models import test_kernels
test_kernels.compare((2, 7, 10, 32), 64, ((1, 1), (1, 1)))
test_kernels.compare((3, 8, 8, 64), 48, ((0, 0), (2, 1)))
test_kernels.compare((2, 9, 10, 3), 32, ((1, 1), (1, 1)))
print(kernels.build(kernels.cache_folder() / "kernels"))
"""


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(images, kernel, grad, padding):
    """Output and gradients as sums over shifts, in float64."""
    images, kernel, grad = (array.astype(np.float64) for array in (images, kernel, grad))
    padded = np.pad(images, ((0, 0), *padding, (0, 0)))
    padded_grad, kernel_grad = np.zeros_like(padded), np.zeros_like(kernel)
    _, rows, columns, _ = grad.shape
    output = 0
    for y in range(3):
        for x in range(3):
            at = (slice(None), slice(y, y + rows), slice(x, x + columns))
            output = output + padded[at] @ kernel[y, x]
            padded_grad[at] += grad @ kernel[y, x].T
            kernel_grad[y, x] = np.einsum("npqc,npqf->cf", padded[at], grad)
    (above, _), (left, _) = padding
    return output, padded_grad[:, above:, left:][:, : images.shape[1], : images.shape[2]], kernel_grad


def compare(shape, features, padding):
    batch, height, width, channels = shape
    size = height + sum(padding[0]) - 2, width + sum(padding[1]) - 2
    images, kernel, grad = draw(0, *shape), draw(1, 3, 3, channels, features), draw(2, batch, *size, features)

    @jax.jit
    def value_and_grads(images, kernel, grad):
        value, pullback = jax.vjp(lambda *arrays: convolve(*arrays, padding, "kernels"), images, kernel)
        return value, *pullback(grad)

    assert text(lambda *arrays: convolve(*arrays, padding, "kernels"), images, kernel).count("ffi_call") == 1
    for one, other in zip(value_and_grads(images, kernel, grad), reference(images, kernel, grad, padding), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=TOLERANCE * max(1, np.abs(other).max()), rtol=0)


def text(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments))


def run_python(script, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        **{"capture_output": True, "text": True, "cwd": runs.ROOT, "env": {**os.environ, **environment}},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("tiles", [(2,), (4,), (2, 4)])
@pytest.mark.parametrize(
    ("shape", "features", "padding"),
    [
        ((3, 8, 8, 32), 64, SAME),
        ((2, 16, 12, 64), 32, SAME),
        ((5, 7, 10, 16), 48, SAME),
        ((1, 1, 1, 16), 16, SAME),
        ((2, 9, 6, 80), 16, ((0, 0), (0, 0))),
        ((2, 6, 5, 32), 128, ((2, 0), (1, 2))),
        ((33, 4, 4, 32), 32, SAME),
        ((3, 12, 10, 3), 48, SAME),
        ((2, 9, 16, 1), 16, SAME),
        ((2, 5, 11, 4), 32, ((0, 0), (0, 0))),
        ((2, 4, 3, 2), 64, ((2, 1), (1, 2))),
    ],
)
def test_values_and_gradients(tiles, shape, features, padding, monkeypatch):
    monkeypatch.setattr(kernels, "TILES", tiles)
    compare(shape, features, padding)


@pytest.mark.parametrize("parts", [2, 7])
@pytest.mark.parametrize(("channels", "features"), [(3, 32), (32, 48)])
def test_threads_share_a_convolution(channels, features, parts, monkeypatch):
    monkeypatch.setattr(kernels, "_usable_cores", lambda: parts)
    monkeypatch.setattr(kernels, "_LEAST_TILES", 1)
    for batch in (1, 9):
        compare((batch, 9, 12, channels), features, SAME)


@pytest.mark.slow
@settings(max_examples=40, derandomize=True)
@given(
    shape=st.tuples(*(st.integers(1, highest) for highest in (6, 14, 14))),
    channels=st.sampled_from([1, 2, 3, 4, 16, 32, 48, 64, 96]),
    features=st.integers(1, 6),
    padding=st.tuples(*[st.tuples(*[st.integers(1, 2)] * 2)] * 2),
)
def test_values_and_gradients_of_any_shape(shape, channels, features, padding):
    compare((*shape, channels), 16 * features, padding)


def test_errors_are_a_few_times_those_of_a_direct_convolution(monkeypatch):
    """Root mean square, relative: those of F(4,3) at the usual points would be four times, and in bfloat16 10,000."""
    monkeypatch.setattr(kernels, "TILES", (4,))
    images, kernel, grad = draw(0, 4, 16, 16, 64), draw(1, 3, 3, 64, 64), draw(2, 4, 16, 16, 64)
    exact = reference(images, kernel, grad, SAME)

    def errors(method):
        value, pullback = jax.vjp(lambda *arrays: convolve(*arrays, method=method), images, kernel)
        pairs = zip((value, *pullback(grad)), exact, strict=True)
        return np.array([np.sqrt(np.mean((one - other) ** 2) / np.mean(other**2)) for one, other in pairs])

    assert np.all(errors("kernels") < [1e-6, 1e-6, 1.5e-6])
    assert np.all(errors("kernels") < 5 * errors("patches"))


def test_in_a_scan_and_over_members():
    images, members = draw(0, 4, 10, 10, 16), 0.1 * draw(1, 2, 3, 3, 16, 16)

    def losses(method):
        def step(kernel, _):
            loss = lambda kernel: jnp.square(convolve(images, kernel, method=method)).mean()  # noqa: E731
            value, grad = jax.value_and_grad(loss)(kernel)
            return kernel - 0.1 * grad, value

        train = jax.vmap(lambda kernel: lax.scan(step, kernel, None, length=3)[1])
        return jax.jit(train)(members)

    np.testing.assert_allclose(losses("kernels"), losses("auto"), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "features", "padding"),
    [
        ((3, 9, 8, 32), 16, SAME),
        ((2, 6, 7, 16), 64, SAME),
        ((2, 8, 12, 64), 32, SAME),
        ((2, 11, 5, 16), 16, ((0, 0), (0, 0))),
        ((2, 16, 20, 3), 32, SAME),
        ((2, 5, 7, 3), 16, SAME),
        ((2, 12, 9, 1), 48, ((0, 0), (0, 0))),
    ],
)
@pytest.mark.parametrize("tile", [2, 4])
def test_with_bias_relu_and_pool(tile, shape, features, padding, monkeypatch):
    """F(2,3) of small integers has equal maxima, and no rounding; F(4,3) has both."""
    monkeypatch.setattr(kernels, "TILES", (tile,))
    arrays = [draw(0, *shape), draw(1, 3, 3, shape[-1], features), draw(2, features)]
    if tile == 2:
        arrays = [np.rint(array) for array in arrays]

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_grads(method, *arrays):
        value, pullback = jax.vjp(lambda *arrays: convolve_and_pool(*arrays, padding, method), *arrays)
        return value, *pullback(jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape))

    pooled = lambda *arrays: convolve_and_pool(*arrays, padding, "kernels")  # noqa: E731
    assert text(pooled, *arrays).count("ffi_call") == 1
    for one, other in zip(value_and_grads("kernels", *arrays), value_and_grads("patches", *arrays), strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE * max(1, np.abs(other).max()), rtol=0)


def test_what_is_not_a_number_stays_so():
    images = np.ones((1, 4, 4, 16), np.float32)
    images[0, 0, 0, 0] = np.nan
    pooled = convolve_and_pool(images, draw(1, 3, 3, 16, 16), np.zeros(16, np.float32), SAME, "kernels")
    assert np.isnan(pooled[0, 0, 0]).all()


UNFIT = {
    "other channels": ((2, 8, 8, 5), (3, 3, 5, 32), {}),
    "odd features": ((2, 8, 8, 16), (3, 3, 16, 24), {}),
    "other kernel": ((2, 8, 8, 16), (5, 5, 16, 16), {}),
    "pointwise": ((2, 8, 8, 16), (1, 1, 16, 16), {}),
    "strided": ((2, 8, 8, 16), (3, 3, 16, 16), {"strides": (2, 2)}),
    "dilated": ((2, 8, 8, 16), (3, 3, 16, 16), {"dilation": (2, 2)}),
    "in groups": ((2, 8, 8, 16), (3, 3, 8, 16), {"groups": 2}),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_where_they_do_not_fit_it_is_auto(kind):
    shape, kernel_shape, arguments = UNFIT[kind]
    images, kernel = draw(0, *shape), draw(1, *kernel_shape)
    ours, auto = (functools.partial(convolve, method=method, **arguments) for method in ("kernels", "auto"))
    assert text(ours, images, kernel) == text(auto, images, kernel)


def test_bfloat16_is_auto():
    images, kernel = (jnp.asarray(array, jnp.bfloat16) for array in (draw(0, 2, 8, 8, 16), draw(1, 3, 3, 16, 16)))
    assert methods.resolve("kernels", kernel.shape) == "kernels"
    for function in (convolve, lambda *arrays, method: convolve_and_pool(*arrays, images[0, 0, 0], SAME, method)):
        ours, auto = (functools.partial(function, method=method) for method in ("kernels", "auto"))
        assert text(ours, images, kernel) == text(auto, images, kernel)


def test_auto_never_takes_them(monkeypatch):
    assert "ffi_call" not in text(convolve, draw(0, 2, 8, 8, 16), draw(1, 3, 3, 16, 16))
    assert kernels.fits((3, 3, 16, 16), PLAIN, np.float32) and not kernels.fits((3, 3, 16, 16), Window((2, 1)), "f4")


@pytest.mark.slow
def test_two_devices_and_a_program_from_the_cache(tmp_path):
    first, second = (run_python(SHARED, CNNJAX_CACHE=str(tmp_path)).split() for _ in range(2))
    assert first[0] == "0" and int(second[0]) > 0
    assert first[1] == second[1]


@pytest.mark.slow
def test_two_processes_compile_at_once(tmp_path):
    script = "from cnnjax.models.conv import kernels; kernels.load()"
    started = [
        subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "CNNJAX_CACHE": str(tmp_path)})
        for _ in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    assert [file.suffix for file in (tmp_path / "kernels").iterdir()] == [".so"]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="another processor")
def test_without_avx512(tmp_path):
    said = run_python(OTHER_PROCESSOR, "x86_64_v3", CNNJAX_CACHE=str(tmp_path))
    assert Path(said.strip()) != kernels.build(tmp_path / "kernels")  # they differ in name


def without_compiler(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else find(name))


def test_without_the_extra_a_study_says_what_to_install(monkeypatch, tiny, tmp_path):
    without_compiler(monkeypatch)
    study = make_study(train={"convolution": "kernels"})
    commands = lambda: prepare_jax(load_plan(study)), lambda: list(plan_lines(study)), lambda: kernels.build(tmp_path)
    for command in commands:
        with pytest.raises(RequestError, match=r"^train.convolution='kernels': .*pip install 'cnnjax\[kernels\]'$"):
            command()


def test_on_a_gpu_a_study_says_that_they_are_for_cpus():
    with pytest.raises(RequestError, match=r"^train.convolution='kernels': they are for CPUs; use auto$"):
        check_convolution("kernels", "gpu")


def test_a_compiler_that_fails_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "kernels.c").write_text("no C")
    monkeypatch.setattr(kernels, "SOURCE", tmp_path / "kernels.c")
    with pytest.raises(RequestError, match=r"^train.convolution='kernels': they do not compile here .*; use auto$"):
        kernels.build(tmp_path / "library")
    assert list((tmp_path / "library").iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(RequestError, match=r"^train.convolution='kernels': .*Not a directory.*; set CNNJAX_CACHE"):
        kernels._load.__wrapped__()


@pytest.fixture
def small(monkeypatch):
    """The model 'tiny', with convolutions that the kernels compute."""
    layers = (Conv(16), Relu(), Conv(16), BatchNorm(), Relu(), Conv(32), Relu(), MaxPool(), Dropout(0.25), Dense())
    monkeypatch.setitem(LADDER, "tiny", layers)


@pytest.mark.slow
def test_a_crashed_run_is_resumed_bit_for_bit_and_trains_like_auto(small, tmp_path):
    whole, resumed, auto = (tmp_path / name for name in ("whole", "resumed", "auto"))
    study = make_study(train={"epochs": 3, "convolution": "kernels"}, checkpoint={"every": 1})
    runs.run(study, whole)
    with pytest.MonkeyPatch.context() as patch:
        runs.crash_at(patch, 12)
        with pytest.raises(runs.Crash):
            runs.run(study, resumed)
    runs.run(study, resumed)
    assert runs.read_all(resumed) == runs.read_all(whole)
    assert runs.read_weights(resumed) == runs.read_weights(whole)
    runs.run(make_study(train={"epochs": 3}, checkpoint={"every": 1}), auto)
    losses = [cnnjax.load_results(folder).train_loss for folder in (whole, auto)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    trial = runs.trial_ids(whole)[0]
    here = load_trial(whole, trial)
    with pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        elsewhere = load_trial(whole, trial)
    assert (here.network.convolution, elsewhere.network.convolution) == ("kernels", "auto")
    np.testing.assert_allclose(here.logits(images), elsewhere.logits(images), atol=1e-4)


class OwnNet(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(16, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.Conv(32, (3, 3), strides=2)(nn.Conv(16, (3, 3))(x))  # the second has a stride, which is for `auto`
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def test_a_module_of_the_user_takes_them(monkeypatch):
    monkeypatch.setitem(LADDER, "own", OwnNet)
    images = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype(np.float32)
    found = {}
    for method in ("auto", "kernels"):
        network = build_network("own", 10, convolution=method, image_shape=images.shape[1:])
        variables = initial_variables(network, images.shape[1:], "torch", jax.random.key(0))

        def loss(params, network=network):
            return jnp.square(network.apply({"params": params}, images, train=True)).mean()

        step = jax.value_and_grad(loss)
        assert str(jax.make_jaxpr(step)(variables["params"])).count("ffi_call[") == (5 if method == "kernels" else 0)
        found[method] = jax.jit(step)(variables["params"])
    for ours, theirs in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, float(np.abs(theirs).max())))


def test_a_training_step_of_medium_is_that_of_auto():
    images, labels = draw(0, 8, 32, 32, 3), jnp.arange(8)

    def grads(method):
        network = build_network("medium", 10, convolution=method)
        variables = initial_variables(network, (32, 32, 3), "torch", jax.random.key(0))

        def loss(params):
            rngs = {"dropout": jax.random.key(1)}
            logits, _ = network.apply(
                variables | {"params": params}, images, train=True, rngs=rngs, mutable=["batch_stats"]
            )
            return -jax.nn.log_softmax(logits)[labels, labels].mean()

        return jax.jit(jax.value_and_grad(loss))(variables["params"])

    ours, auto = grads("kernels"), grads("auto")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), ours, auto)
