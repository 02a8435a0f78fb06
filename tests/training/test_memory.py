"""A population that does not fit in memory: half as many members at a time give the same results."""

import ctypes
import gc
import io
import resource

import pandas as pd
import psutil
import pytest
from rich.console import Console

import cnnjax
from cnnjax.commands import run as runner
from cnnjax.models.ladder import LADDER
from cnnjax.models.specs import Dense, Relu
from cnnjax.training.population import Population
from cnnjax.utils.progress import Progress
from tests.support.runs import batch_sizes
from tests.support.studies import make_study

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A model with millions of weights, which trains fast and needs much memory."""
    monkeypatch.setitem(LADDER, "wide", (Dense(100_000), Relu(), Dense()))


def run(study, workdir):
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        runner.run(study, workdir, progress=progress)
    return console.file.getvalue()


def test_a_real_out_of_memory_halves_the_batch_of_members(tmp_path, monkeypatch):
    """The operating system refuses the memory for four members and grants the memory for two."""
    train = {"batch_size": 100, "epochs": 1, "learning_rate": 1e-3}
    study = make_study(models=("wide",), seeds=(0, 1, 2, 3), train=train, data={"train_examples": 100})
    run(study, tmp_path / "whole")
    advance = Population.advance

    def advance_with_little_memory(self, state, *arguments):
        sizes = self._compiled["advance", 4, 1].memory_analysis()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory does not count
        room = int(0.75 * (sizes.temp_size_in_bytes + sizes.output_size_in_bytes))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room, hard))
        try:
            return advance(self, state, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))

    monkeypatch.setattr(Population, "advance", advance_with_little_memory)
    said = run(study, tmp_path / "halved")
    assert "out of memory with 4 members at a time; going on with 2" in said
    sizes = batch_sizes(tmp_path / "halved")
    assert all(size < 4 for _, size in sizes) and sum(count for count, _ in sizes) == 4
    whole, halved = (cnnjax.load_results(tmp_path / name) for name in ("whole", "halved"))
    measured = ["seed", "status", "train_loss", "val_loss", "test_loss", "test_accuracy"]
    pd.testing.assert_frame_equal(whole[measured], halved[measured], rtol=1e-3)
