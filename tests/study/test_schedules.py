"""Schedules of the learning rate at each step, against PyTorch's and against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.study import own_code
from cnnjax.study.schedules import check_own, factors, has_horizon, is_by_step, is_schedule, read_plateau, total_steps
from cnnjax.utils.errors import RequestError
from tests.support.studies import make_study

EPOCHS, STEPS = 12, 7
TOTAL = EPOCHS * STEPS


def at_steps(text, epochs=EPOCHS, steps=STEPS):
    """The factor at each step, as training uses it."""
    if is_by_step(text):
        return factors(text, epochs, steps)[:, :-1].reshape(-1)[: total_steps(epochs, steps)]
    first, last = factors(text, epochs).T[..., None]
    return (first + (last - first) * (np.arange(steps) / steps)).reshape(-1)[: total_steps(epochs, steps)]


def torch_factors(make, total=TOTAL):
    """The factor at each step under a scheduler of PyTorch that is called after each."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def airbench_triangle(total, peak, start, end):
    """The schedule of airbench94 (Jordan 2024), line for line in NumPy."""
    xp, fp = np.array([0, int(peak * total), total]), np.array([start, 1, end])
    x = np.arange(1 + total)
    m = (fp[1:] - fp[:-1]) / (xp[1:] - xp[:-1])
    b = fp[:-1] - m * xp[:-1]
    indices = np.clip((x[:, None] >= xp[None]).sum(1) - 1, 0, len(m) - 1)
    return (m[indices] * x + b[indices])[:-1]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("constant", lambda by, of: by.ConstantLR(of, 1.0)),
        ("exponential:0.95", lambda by, of: by.LambdaLR(of, lambda i: 0.95 ** (i // STEPS))),
        ("piecewise:4=0.1/9=0.01", lambda by, of: by.MultiStepLR(of, [4 * STEPS, 9 * STEPS], 0.1)),
        ("warmup:3", lambda by, of: by.LambdaLR(of, lambda i: min(i / (3 * STEPS), 1))),
        ("warmup:3+warmup:5", lambda by, of: by.LambdaLR(of, lambda i: min(i / 21, 1) * min(i / 35, 1))),
        ("cosine", lambda by, of: by.CosineAnnealingLR(of, TOTAL)),
        ("linear", lambda by, of: by.LinearLR(of, 1.0, 0.0, TOTAL)),
        ("linear:0.1", lambda by, of: by.LinearLR(of, 1.0, 0.1, TOTAL)),
        ("polynomial:2", lambda by, of: by.PolynomialLR(of, TOTAL, 2.0)),
        ("polynomial:0.5", lambda by, of: by.PolynomialLR(of, TOTAL, 0.5)),
        ("onecycle", lambda by, of: by.OneCycleLR(of, 1.0, TOTAL)),
        ("onecycle:0.17", lambda by, of: by.OneCycleLR(of, 1.0, TOTAL, pct_start=0.17)),
        ("restarts:5", lambda by, of: by.CosineAnnealingWarmRestarts(of, 5 * STEPS)),
        ("restarts:1:2", lambda by, of: by.CosineAnnealingWarmRestarts(of, STEPS, 2)),
        ("restarts:2:3", lambda by, of: by.CosineAnnealingWarmRestarts(of, 2 * STEPS, 3)),
        ("restarts:50", lambda by, of: by.CosineAnnealingWarmRestarts(of, 50 * STEPS)),
    ],
)
def test_every_step_is_pytorchs(text, make):
    np.testing.assert_allclose(at_steps(text), torch_factors(make), rtol=2e-5, atol=2e-7)


@given(total=st.integers(1, 60), steps=st.integers(1, 9), peak=st.floats(0.05, 0.95))
def test_a_triangle_is_that_of_airbench(total, steps, peak):
    epochs = total / steps
    found = at_steps(f"triangle:{peak}:0.3:0.01", epochs, steps)
    if int(peak * total) == 0:  # its formula divides by zero
        np.testing.assert_allclose(found, 1 - 0.99 * np.arange(total) / total, rtol=1e-6)
    else:
        np.testing.assert_allclose(found, airbench_triangle(total, peak, 0.3, 0.01), rtol=1e-5, atol=1e-7)


def test_the_triangle_of_airbench94():
    """9.9 epochs of 48 steps are 476, of which the first 109 rise from 0.2."""
    found = at_steps("triangle:0.23", 9.9, 48)
    assert len(found) == 476 and found.argmax() == 109 and found[109] == 1
    assert found[0] == np.float32(0.2) and found[475] == pytest.approx(0.07 + 0.93 / (476 - 109))


@given(epochs=st.integers(1, 30), parts=st.integers(0, 9), steps=st.integers(1, 500))
def test_a_part_of_an_epoch_has_at_least_one_step(epochs, parts, steps):
    """The number of tenths of an epoch is whole, and so exact."""
    total = total_steps((10 * epochs + parts) / 10, steps)
    assert total == -(-(10 * epochs + parts) * steps // 10)
    assert total_steps(epochs + 1e-9, steps) == epochs * steps + 1


@given(text=st.sampled_from(("cosine", "linear", "polynomial:2", "onecycle")), total=st.integers(2, 99))
def test_only_the_number_of_steps_decides(text, total):
    """Whatever the steps of an epoch, and also if the last epoch ends early."""
    whole = at_steps(text, 1, total)
    for steps in (3, 10):
        np.testing.assert_allclose(at_steps(text, total / steps, steps), whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("text", ["onecycle", "onecycle:0.5", "triangle:0.23", "restarts:1", "polynomial:2", "cosine"])
def test_the_shortest_trainings_have_factors(text):
    for total in (1, 2, 3, 4, 5):
        found = factors(text, 1, total)
        assert found.shape == (1, total + 1) and ((found >= 0) & (found <= 1)).all()


@given(epochs=st.integers(1, 50))
def test_terms_multiply(epochs):
    product = factors("cosine", epochs, STEPS).astype(float) * factors("exponential:0.9", epochs, STEPS)
    np.testing.assert_allclose(factors("cosine+exponential:0.9", epochs, STEPS), product, rtol=1e-6)
    np.testing.assert_array_equal(factors("plateau:0.1:3+cosine", epochs, STEPS), factors("cosine", epochs, STEPS))


def test_a_factor_that_is_linear_within_each_epoch_needs_two_numbers():
    for text in ("constant", "exponential:0.9", "piecewise:2=0.1", "warmup:5+exponential:0.9", "plateau:0.1:3"):
        assert not is_by_step(text)
        np.testing.assert_allclose(at_steps(text), factors(text, EPOCHS, STEPS)[:, :-1].reshape(-1), rtol=1e-6)
    assert all(map(is_by_step, ("cosine", "warmup:2+cosine", "warmup:2+warmup:3", "linear", "triangle:0.5")))


def test_rows_behind_the_last_epoch_are_nan():
    table = factors("warmup:2", 3, length=5)
    np.testing.assert_array_equal(table, [[0, 0.5], [0.5, 1], [1, 1], [np.nan] * 2, [np.nan] * 2])


def test_steps_need_no_order():
    np.testing.assert_array_equal(factors("piecewise:30=0.01/22=0.1", 40), factors("piecewise:22=0.1/30=0.01", 40))


@pytest.mark.filterwarnings("error")
def test_a_rate_that_grows_without_end_is_infinite_without_a_warning():
    table = factors("exponential:10", 50)
    np.testing.assert_allclose(table[:30, 0], 10.0 ** np.arange(30), rtol=1e-6)
    assert np.isinf(table[40:]).all() and np.isinf(factors("exponential:1e300", 3)[2]).all()


@pytest.mark.parametrize(
    "text",
    ["", "cosin", "cosine:2", "exponential", "exponential:0", "exponential:nan", "piecewise:0=1", "piecewise:2"]
    + ["piecewise:2=-1", "warmup:0", "warmup:1.5", "constant+", "exponential:1e400", None, 3, "constant:", "linear:"]
    + ["linear:-1", "linear:1:2", "polynomial", "polynomial:0", "triangle", "triangle:0", "triangle:1"]
    + ["triangle:0.5:1", "triangle:0.5:1:1:1", "triangle:0.5:-1:0", "onecycle:0", "onecycle:1", "onecycle:0.1:0.2"]
    + ["restarts", "restarts:0", "restarts:02", "restarts:1.5", "restarts:2:0", "restarts:2:1:1", "plateau"]
    + ["plateau:0.1", "plateau:1:3", "plateau:0:3", "plateau:0.1:-1", "plateau:0.1:1.5", "plateau:0.1:3:4"]
    + ["plateau:0.1:3+plateau:0.5:2"],
)
def test_what_is_no_schedule(text):
    assert not is_schedule(text)


NAMES = ["constant", "cosine", "linear", "polynomial", "triangle", "onecycle", "restarts", "warmup", "plateau"]
PIECES = st.one_of(st.sampled_from(NAMES), st.floats(-1, 9).map(str), st.integers(-1, 9).map(str), st.just("2=0.1"))


@given(st.text(alphabet="cosinewarmuptexl:=/+.0123456789-e ", max_size=30))
@pytest.mark.parametrize("steps", [1, 5])
def test_any_text_is_answered(steps, text):
    if is_schedule(text):
        table = factors(text, 7, steps)
        assert table.shape == (7, steps + 1) and np.isfinite(table).all()


@given(st.lists(st.lists(PIECES, min_size=1, max_size=4).map(":".join), min_size=1, max_size=3).map("+".join))
def test_any_terms_are_answered(text):
    if is_schedule(text):
        table = factors(text, 4.5, 5)
        assert table.shape == (5, 6) and (table >= 0).all() and (table <= 9**9).all()
        assert isinstance(has_horizon(text), bool)


def test_a_plateau_is_read_beside_other_terms():
    assert read_plateau("warmup:2+plateau:0.5:0+cosine") == (0.5, 0)
    assert read_plateau("warmup:2+cosine") is None


def test_which_schedules_depend_on_the_end():
    ends = ("warmup:2+cosine", "exponential:1e-30+cosine", "linear", "linear:0.5", "polynomial:3", "triangle:0.23")
    assert all(map(has_horizon, (*ends, "onecycle", "plateau:0.1:3+cosine", "restarts:10+linear:0.9")))
    steady = ("constant", "exponential:0.95", "exponential:1e300", "piecewise:2=0.1", "warmup:3")
    steady += ("warmup:3+piecewise:9=2", "restarts:10", "restarts:10:2", "plateau:0.1:10", "warmup:3+plateau:0.1:10")
    assert not any(map(has_horizon, steady))
    assert math.isclose(at_steps("restarts:10", 20)[3], at_steps("restarts:10", 5)[3])


def test_a_new_form_that_depends_on_the_end_is_read_off_no_longer_training(monkeypatch):
    monkeypatch.setattr("cnnjax.study.schedules._term", lambda term, time: 1 - time.step / time.total)
    assert has_horizon("new")


WAVES = """
import math
import numpy as np

def wave(progress):
    return 1 + math.sin(progress)

def array(progress):
    return np.ones(3)

def nothing(progress):
    pass

def negative(progress):
    return 0.5 - progress

def late(progress):
    return 1 / (0.9 - progress) if progress < 0.9 else 1 / 0

nan = lambda progress: math.nan
number = 3
"""


@pytest.fixture
def own(tmp_path):
    """Returns the schedule of an own function, given its name. Its file is part of the active study."""
    file = tmp_path / "waves.py"
    file.write_text(WAVES)
    own_code.activate(own_code.find_files({"schedule": f"{file}:wave"}, tmp_path))
    return lambda name: f"{file}:{name}"


def test_an_own_function_takes_the_progress(own):
    text = own("wave")
    assert is_schedule(text) and has_horizon(text) and is_by_step(text) and is_schedule(f"{text}+warmup:2")
    np.testing.assert_allclose(at_steps(text), 1 + np.sin(np.arange(TOTAL) / TOTAL), rtol=1e-6)
    product = factors("warmup:2", EPOCHS, STEPS) * factors(text, EPOCHS, STEPS)
    np.testing.assert_allclose(factors(f"warmup:2+{text}", EPOCHS, STEPS), product, rtol=1e-6)
    check_own(("constant", text, f"{text}+cosine"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("array", r"waves\.py, line 8: it returned array\(\[1\., 1\., 1\.\]\) at 0; return a number >= 0"),
        ("nothing", r"waves\.py, line 11: it returned None at 0"),
        ("negative", r"waves\.py, line 14: it returned -0\.001.* at 0\.501"),
        ("late", r"waves\.py, line 18: ZeroDivisionError: division by zero"),
        ("nan", r"waves\.py, line 20: it returned nan at 0"),
        ("number", r"TypeError: 'int' object is not callable"),
        ("wav", r"has no 'wav'; did you mean 'wave'"),
    ],
)
def test_an_own_function_that_fails_is_refused_in_one_line(own, name, words):
    """Before training, and not where a config is read."""
    study = make_study(train={"schedule": ("constant", own(name))})
    with pytest.raises(RequestError, match=rf"^train\.schedule='.*waves\.py:{name}': .*{words}") as caught:
        check_own(study.train.schedules)
    assert "\n" not in str(caught.value)
