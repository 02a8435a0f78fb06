"""The time that programs are estimated to take."""

import pytest

from cnnjax.data import load_dataset
from cnnjax.runs.speeds import Speed
from cnnjax.study.plan import make_plan
from cnnjax.training.estimate import Estimator, describe_speed, time_span
from cnnjax.training.machine import COUNT_FLAG, Machine, cpu_devices, this_machine
from tests.support.studies import make_study

MACHINE = Machine("cpu", "processor", 2, 10**9)
WANTED = Speed("processor", 2, "medium", 4, 1e8, "adam", "float32", 64, 6)


def known(**changes):
    return WANTED._replace(**{"images_per_second": 500.0, "compile_seconds": 8.0, **changes})


def product():
    raise AssertionError("an earlier run tells the speed")


def test_the_same_program_takes_as_long_as_before():
    others = [known(model="complex", work=5e8, images_per_second=90.0), known(device="other", images_per_second=1e6)]
    found = Estimator(MACHINE, [known(), *others], product).estimate(WANTED)
    assert found.seconds_per_image == pytest.approx(1 / 500) and found.compile_seconds == 8.0
    assert 1 < found.factor < 1.5


def test_other_convolutions_are_another_program(tiny):
    study = make_study(train={"convolution": ("auto", "patches")})
    programs, dataset = make_plan(study).programs, load_dataset(study.data)
    auto, patches = (describe_speed(program.static, dataset, MACHINE, 1) for program in programs)
    assert (auto.precision, patches.precision) == ("float32", "float32, patches")


def test_another_program_has_the_operations_per_second_of_the_most_similar_one():
    near, far = known(model="near", work=2e8, layers=8), known(model="far", work=64e8, images_per_second=1.0)
    estimator = Estimator(MACHINE, [far, near, known(model="no", device="other")], product)
    found = estimator.estimate(WANTED)
    assert found.seconds_per_image == pytest.approx(1e8 / (2e8 * 500))
    assert found.compile_seconds == pytest.approx(8.0 * 4 / 8)
    of_the_far = estimator.estimate(WANTED._replace(work=32e8))
    assert of_the_far.seconds_per_image == pytest.approx(0.5)
    exact = estimator.estimate(near._replace(images_per_second=1.0)).factor
    assert exact < found.factor


def test_without_any_speed_a_matrix_product_tells_it_once():
    calls = []
    estimator = Estimator(MACHINE, [known(device="other")], lambda: calls.append(1) or 1e10)
    first, second = (estimator.estimate(WANTED._replace(work=work)) for work in (1e8, 2e8))
    assert estimator.is_calibrated and len(calls) == 1
    assert 1e8 / 1e10 < first.seconds_per_image == pytest.approx(second.seconds_per_image / 2)
    assert first.factor > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (20, 61, "about 20 to 61 seconds"),
        (0.4, 0.44, "about 0.4 to 0.44 seconds"),
        (180, 600, "about 3 to 10 minutes"),
        (299, 301, "about 5 minutes"),
        (3600, 36000, "about 1 to 10 hours"),
        (60, 6000, "about 0.1 to 1.7 hours"),
    ],
)
def test_a_span_of_time_in_words(low, high, words):
    assert time_span(low, high) == words


def test_a_cpu_has_a_device_for_each_core_and_member_at_most(monkeypatch):
    monkeypatch.setattr("cnnjax.multihost.processes.usable_cores", lambda: 4)
    monkeypatch.delenv("XLA_FLAGS")
    assert [cpu_devices(members) for members in (1, 3, 9)] == [1, 3, 4] and cpu_devices(9, most=2) == 2
    monkeypatch.setenv("XLA_FLAGS", f"--{COUNT_FLAG}=7")
    assert cpu_devices(1) == 7


def test_this_machine_is_the_same_with_and_without_jax(monkeypatch):
    """As long as the number of devices is that of XLA_FLAGS, here 1."""
    import jax

    asked = this_machine(5)
    monkeypatch.delitem(__import__("sys").modules, "jax")
    found = this_machine(5)
    assert found[:3] == asked[:3] == ("cpu", asked.device, 1) and jax.default_backend() == "cpu"
    assert found.memory == pytest.approx(asked.memory, rel=0.2)
