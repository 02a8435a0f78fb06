"""Schedules of the learning rate, against PyTorch's and against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.study.schedules import factors, has_horizon, is_schedule

EPOCHS = 40


def torch_factors(make):
    """The factor at the beginning of each epoch under a scheduler of PyTorch."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("exponential:0.95", lambda schedulers, optimizer: schedulers.ExponentialLR(optimizer, 0.95)),
        ("piecewise:22=0.1/30=0.01", lambda schedulers, optimizer: schedulers.MultiStepLR(optimizer, [22, 30], 0.1)),
        ("cosine", lambda schedulers, optimizer: schedulers.CosineAnnealingLR(optimizer, EPOCHS)),
        (
            "warmup:4+exponential:0.9",
            lambda schedulers, optimizer: schedulers.LambdaLR(optimizer, lambda e: min(e / 4, 1) * 0.9**e),
        ),
        ("constant", lambda schedulers, optimizer: schedulers.ConstantLR(optimizer, 1.0)),
    ],
)
def test_epochs_begin_as_pytorch_has_it(text, make):
    table = factors(text, EPOCHS)
    np.testing.assert_allclose(table[:, 0], torch_factors(make), rtol=1e-5, atol=1e-7)
    if text.startswith(("exponential", "piecewise", "constant")):
        np.testing.assert_array_equal(table[:, 0], table[:, 1])  # nothing moves within an epoch
    else:
        np.testing.assert_allclose(table[1:4, 0], table[:3, 1], atol=0.11)


@given(epochs=st.integers(1, 50))
def test_a_cosine_is_a_chain_near_the_curve(epochs):
    table = factors("cosine", epochs).astype(float)
    np.testing.assert_array_equal(table[1:, 0], table[:-1, 1])
    assert table[0, 0] == 1 and abs(table[-1, 1]) < 1e-7
    middle = table.mean(1)
    curve = 0.5 * (1 + np.cos(np.pi * (np.arange(epochs) + 0.5) / epochs))
    assert np.abs(middle - curve).max() <= (np.pi / epochs) ** 2 / 16 + 1e-6


def test_rows_behind_the_last_epoch_are_nan():
    table = factors("warmup:2", 3, 5)
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
    + ["piecewise:2=-1", "warmup:0", "warmup:1.5", "constant+", "exponential:1e400", None, 3],
)
def test_what_is_no_schedule(text):
    assert not is_schedule(text)


@given(st.text(alphabet="cosinewarmuptexl:=/+.0123456789-e ", max_size=30))
def test_any_text_is_answered(text):
    if is_schedule(text):
        table = factors(text, 7)
        assert table.shape == (7, 2) and np.isfinite(table).all()


def test_only_a_cosine_depends_on_the_end():
    assert has_horizon("warmup:2+cosine")
    assert has_horizon("exponential:1e-30+cosine")
    steady = (
        "constant",
        "exponential:0.95",
        "exponential:1e300",
        "piecewise:2=0.1",
        "warmup:3",
        "warmup:3+piecewise:9=2",
    )
    assert not any(map(has_horizon, steady))


def test_a_new_form_that_depends_on_the_end_is_read_off_no_longer_training(monkeypatch):
    monkeypatch.setattr("cnnjax.study.schedules._term", lambda term, epoch, edges, epochs: 1 - edges / epochs)
    assert has_horizon("linear")
