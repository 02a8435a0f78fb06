"""The two programs of docs/how-to/from-pytorch.md, as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cnnjax

PAGE = Path(__file__).parents[2] / "docs/how-to/from-pytorch.md"


@pytest.mark.slow
@pytest.mark.torch
def test_the_script_and_the_study_train_the_same_network(tmp_path):
    pytest.importorskip("torch")
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None
        (tmp_path / name[1]).write_text(block)
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    script = float(done.stdout.removeprefix("accuracy "))
    run = cnnjax.run(tmp_path / "study.py", tmp_path / "run", progress=False)
    trials = run.trials
    assert len(trials) == 12 and {*trials.model} == {"nets.py:Net", "baseline"}
    same = trials[(trials.model == "nets.py:Net") & (trials.learning_rate == 0.05)]
    assert script > 0.8 and same.test_accuracy.min() > 0.8
