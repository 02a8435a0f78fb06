"""What several test files share: a private compilation cache, a tiny model, and tiny studies of digits."""

import os

import hypothesis
import pytest

from tests.support.studies import add_tiny, make_quick, make_rough

# One device, whatever test comes first: a run would otherwise take as many as there are cores.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"

# Nothing here fails because a machine is slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption("--damages", type=int, default=15, help="how many damaged copies of a run test_integrity.py tries")


@pytest.fixture(autouse=True, scope="session")
def private_compilation_cache(tmp_path_factory):
    """Tests, and the processes they start, leave the user's cache of compiled programs alone."""
    shared = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else None
    os.environ["CNNJAX_CACHE"] = str(shared / "cache" if shared else tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny(monkeypatch):
    """The model 'tiny' joins the ladder: every kind of layer, in a hundredth of a second."""
    add_tiny(monkeypatch)


@pytest.fixture
def dense(monkeypatch):
    """The model 'tiny' without convolutions, which compiles faster."""
    add_tiny(monkeypatch, convolutions=False)


@pytest.fixture
def quick(dense, monkeypatch):
    """The model of `dense`, and programs compiled once for all runs of a study."""
    make_quick(monkeypatch)


@pytest.fixture
def rough(monkeypatch):
    """Programs are hardly optimized, which compiles in a third of the time: for tests that compare no bits."""
    make_rough(monkeypatch)
