"""What several test files share: a private compilation cache, a tiny model, and tiny studies of digits."""

import copy
import functools
import os
from typing import Any

import hypothesis
import pytest

from cnnjax.models.network import LADDER
from cnnjax.study.schema import Study, from_config

# One device, whatever test comes first: a run would otherwise take as many as there are cores.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"

# Nothing here fails because a machine is slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

TINY = {
    "models": ("tiny",),
    "select": "val_loss",
    "data": {"name": "digits", "train_examples": 200, "validation": 50},
    # Whole batches, for a remainder doubles the time to compile.
    "train": {"batch_size": 50, "epochs": 2, "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9},
}


def pytest_addoption(parser):
    parser.addoption("--damages", type=int, default=15, help="how many damaged copies of a run test_damage.py tries")


@pytest.fixture(autouse=True, scope="session")
def private_compilation_cache(tmp_path_factory):
    """Tests, and the processes they start, leave the user's cache of compiled programs alone."""
    os.environ["CNNJAX_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny(monkeypatch):
    """The model 'tiny' joins the ladder: every kind of layer, in a hundredth of a second."""
    add_tiny(monkeypatch)


@pytest.fixture
def quick(tiny, monkeypatch):
    """The tiny model, and programs compiled once for all runs of a study."""
    make_quick(monkeypatch)


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fixture `quick` but for the model, for as long as `monkeypatch` lasts."""
    from cnnjax.training import program

    monkeypatch.setattr(program, "Population", _compile_once)


@functools.cache
def _compile_once(*arguments: Any) -> Any:
    from cnnjax.training.population import Population

    return Population(*arguments)


def add_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fixture `tiny`, for as long as `monkeypatch` lasts."""
    from cnnjax.models.specs import BatchNorm, Conv, Dense, Dropout, MaxPool, Relu

    convolutions = (Conv(4), BatchNorm(), Relu(), MaxPool())
    monkeypatch.setitem(LADDER, "tiny", (*convolutions, Dense(16), Relu(), Dropout(0.25), Dense()))


def make_study(**changes: Any) -> Study:
    """A study of two epochs on 200 digits; `changes` are settings, those of a group as `group=dict(...)`."""
    config = copy.deepcopy(TINY)
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    return from_config(config)
