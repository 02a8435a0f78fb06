"""Ranges in the place of an axis: what they draw, and how a config with them is read and refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.study.overrides import overridden, read_value
from cnnjax.study.ranges import Range, read_range
from cnnjax.study.schema import from_config
from cnnjax.utils.errors import RequestError
from tests.support.studies import make_study

QUANTILES = st.floats(0, 1, exclude_max=True)
BOUNDS = st.tuples(st.floats(1e-6, 1e6), st.floats(1.001, 1e6)).map(lambda pair: (pair[0], pair[0] * pair[1]))


@given(bounds=BOUNDS, u=QUANTILES, is_log=st.booleans())
def test_a_number_is_in_its_range_with_four_digits(bounds, u, is_log):
    low, high = bounds
    value = Range(low, high, is_log, is_int=False).at(u)
    exact = math.exp(math.log(low) + u * math.log(high / low)) if is_log else low + u * (high - low)
    assert low <= value <= high
    assert value == pytest.approx(exact, rel=6e-4 if is_log else 0, abs=0 if is_log else 6e-4 * (high - low))


@given(low=st.integers(1, 1000), width=st.integers(1, 1000), u=QUANTILES, is_log=st.booleans())
def test_whole_numbers_are_whole_and_in_their_range(low, width, u, is_log):
    value = Range(low, low + width, is_log, is_int=True).at(u)
    assert isinstance(value, int) and low <= value <= low + width


def test_each_whole_number_is_as_probable_as_the_others():
    drawn = [Range(3, 6, is_log=False, is_int=True).at((i + 0.5) / 400) for i in range(400)]
    assert {value: drawn.count(value) for value in drawn} == {3: 100, 4: 100, 5: 100, 6: 100}


@pytest.mark.parametrize(
    ("range_", "levels"),
    [
        (Range(16, 128, is_log=True, is_int=True), (16, 32, 64, 128)),
        (Range(16, 128, is_log=False, is_int=True), (16, 53, 91, 128)),
        (Range(1, 2, is_log=False, is_int=True), (1, 2)),
    ],
)
def test_levels_of_a_range_have_even_distances(range_, levels):
    assert range_.levels(4) == levels


@pytest.mark.parametrize("text", ["uniform(0, 0.9)", "log_uniform(1e-4,1e-1)", "choice(adam, sgd)"])
def test_a_range_on_the_command_line_is_one_text(text):
    assert read_value(text) == text


def test_a_range_stays_as_it_was_written_and_its_bounds_are_values_of_the_axis():
    study = search(train={"learning_rate": "log_uniform(1e-3, 1e-1)", "batch_size": "log_uniform(16, 128)"})
    assert study.train.learning_rate == (1e-3, 1e-1) and study.train.batch_size == (16, 32, 64, 128)
    assert study.to_dict()["train"]["learning_rate"] == "log_uniform(1e-3, 1e-1)"
    assert from_config(study.to_dict()) == study


def test_a_choice_is_the_same_as_a_tuple():
    one = search(
        train={"optimizer": "choice(adam, sgd)", "momentum": "choice(0, 0.9)"},
        data={"augment": "choice(none, flip+crop)"},
    )
    other = search(train={"optimizer": ("adam", "sgd"), "momentum": (0, 0.9)}, data={"augment": ((), ("flip", "crop"))})
    assert (one.train, one.data) == (other.train, other.data)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.learning_rate=uniform(0.1, 0.01)", "the lower bound must be less than the upper; use uniform"),
        ("train.learning_rate=uniform(0.1, 0.1)", "the lower bound must be less than the upper; use a value"),
        ("train.learning_rate=log_uniform(0, 1)", "the bounds of log_uniform must be > 0"),
        ("train.learning_rate=uniform(0, 1)", r"train.learning_rate must be a number > 0, got 0.0"),
        ("train.learning_rate=loguniform(1e-4, 1)", "there is no such range; did you mean log_uniform"),
        ("train.learning_rate=uniform(1)", "a range has two bounds, both numbers"),
        ("train.learning_rate=uniform(a, b)", "a range has two bounds, both numbers"),
        ("train.learning_rate=uniform(0, 1e999)", "a range has two bounds, both numbers"),
        ("train.learning_rate=choice(0.1)", "a choice needs two values"),
        ("train.epochs=integers(1.5, 3)", "the bounds must be whole numbers"),
        ("train.optimizer=uniform(0, 1)", "it takes no range of numbers"),
        ("models=uniform(0, 1)", "use values"),
        ("seeds=integers(0, 9)", "use values"),
        ("train.optimizer=choice(adam, sgf)", "there is no such optimizer; did you mean .sgd"),
    ],
)
def test_a_wrong_range_is_refused(override, problem):
    with pytest.raises(RequestError, match=problem):
        overridden({"search": {"method": "random"}, "data": {"name": "digits"}}, [override])


def test_a_range_stands_alone():
    with pytest.raises(RequestError, match="a range stands alone"):
        search(train={"learning_rate": (0.1, "uniform(0.1, 1)")})


def test_a_grid_takes_no_range():
    with pytest.raises(RequestError, match=r"train.momentum='uniform\(0, 0.9\)': a range needs a search"):
        make_study(train={"momentum": "uniform(0, 0.9)"})


def test_read_range():
    assert read_range("train.momentum", "uniform(0, 0.9)") == Range(0.0, 0.9, is_log=False, is_int=False)
    assert read_range("train.epochs", "log_uniform(1, 100)") == Range(1, 100, is_log=True, is_int=True)


def search(**changes):
    return make_study(search={"method": "random"}, **changes)
