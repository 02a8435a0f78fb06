"""References to users' files: found, hashed, copied, imported, and refused in one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnnjax.data.load import load_checked
from cnnjax.models.ladder import find_model
from cnnjax.models.specs import Conv, Dense, Relu
from cnnjax.models.summary import describe_network, parameter_count
from cnnjax.study import own_code
from cnnjax.study.overrides import load_study, read_study
from cnnjax.utils.errors import RequestError
from tests.support.studies import ROUGH_FLAGS

CONFIG = """
from cnnjax.models.specs import Dense, Relu
from nets import Net
from flax import linen as nn

TINY = (Dense(8), Relu(), Dense())

class Here(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

def get_config():
    return {"models": ("nets.py:Net", Here, TINY, "baseline"), "data": {"name": "digits"}}
"""
NETS = """
import flax.linen as nn
from widths import WIDTH

class Net(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(WIDTH)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(x)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "study.py").write_text(CONFIG)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "widths.py").write_text("WIDTH = 4\n")
    return tmp_path


def test_references_are_found_in_every_string_of_a_study():
    values = {"a": {"b": ("x", "n.py:Net", ("flip+aug.py:jitter",))}, "c": "m/metrics.py:brier:min", "d": 3}
    assert [*own_code.references(values)] == [
        ("a.b", "n.py:Net"),
        ("a.b", "aug.py:jitter"),
        ("c", "m/metrics.py:brier"),
    ]
    assert [own_code.is_reference(value) for value in ("nets.py:Net", "nets.py", 1)] == [True, False, False]


def test_a_study_has_the_hashes_of_its_files_and_of_the_modules_beside_them(folder):
    study = load_study(str(folder / "study.py"))
    assert study.models == ("nets.py:Net", "study.py:Here", "study.py:TINY", "baseline")
    assert {*study.code} == {"nets.py", "widths.py", "study.py"}
    (folder / "widths.py").write_text("WIDTH = 5\n")
    other = load_study(str(folder / "study.py"))
    assert [*own_code.changed_files(study.code, other.code)] == ["widths.py"]
    assert json.dumps(study.to_dict())  # as config.json stores it


def test_their_models_have_the_parameters_of_their_layers(folder):
    study = load_study(str(folder / "study.py"))
    own_code.prepare(study.code, study.models)
    counts = [parameter_count(describe_network(name, 10, (8, 8, 1)), (8, 8, 1)) for name in study.models[:3]]
    assert counts == [64 * 4 + 4 + 4 * 10 + 10, 64 * 10 + 10, 64 * 8 + 8 + 8 * 10 + 10]


def test_reading_a_study_runs_no_code(folder):
    (folder / "nets.py").write_text("raise SystemExit('it ran')\n")
    study = read_study({"models": f"{folder / 'nets.py'}:Net"})
    assert study.models == (f"{folder / 'nets.py'}:Net",)


def test_a_changed_file_is_refused_by_name_and_a_copy_runs_only_if_it_is_trusted(folder, tmp_path):
    study = load_study(str(folder / "study.py"))
    run = tmp_path / "run"
    for path, content in own_code.copies(study.code, run):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert (run / "code" / "nets.py").read_text() == NETS
    (folder / "nets.py").write_text(NETS.replace("relu", "gelu"))
    with pytest.raises(RequestError, match=rf"^code='{folder / 'nets.py'}': it has changed or is gone; .*--trust_code"):
        own_code.prepare(study.code, ["nets.py:Net"], run)
    own_code.prepare(study.code, ["nets.py:Net"], run, trusted=True)
    assert find_model("nets.py:Net").__name__ == "Net"
    (run / "code" / "nets.py").write_text("raise SystemExit('not what was trained')\n")
    with pytest.raises(RequestError, match="it has changed since the run trained with it"):
        own_code.prepare(study.code, ["nets.py:Net"], run, trusted=True)


def test_objects_of_a_notebook_are_used_as_they_are_and_hashed_by_their_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = (Conv(4), Relu(), Dense())
    monkeypatch.setitem(sys.modules["__main__"].__dict__, "SMALL", layers)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    study = read_study({"models": (layers, "baseline")})
    assert study.models == ("__main__.py:SMALL", "baseline")
    own_code.prepare(study.code, study.models)
    assert find_model("__main__.py:SMALL") == layers
    with pytest.raises(RequestError, match="it was defined in a notebook"):
        own_code.load("models", "__main__.py:Other")
    with pytest.raises(RequestError, match="it has no name; define it at the top level"):
        read_study({"models": ((Conv(5), Dense()), "baseline")})


BAD = """
import flax.linen as nn
import jax

class Wide(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(7)(x.reshape(len(x), -1))

class Flow(Wide):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(self.num_classes)(x.reshape(len(x), -1))
        if x.sum() > 0:
            x = -x
        return x

class Print(Wide):
    @nn.compact
    def __call__(self, x, train):
        jax.debug.print("{}", x.sum())
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

class Call(Wide):
    @nn.compact
    def __call__(self, x, train):
        x = jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

class Drops(Wide):
    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.5, deterministic=False)(x)
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

class Required(nn.Module):
    num_classes: int
    width: int

    def __call__(self, x):
        return x

NUMBER = 5

def text(num_classes):
    return "net"

def cell(num_classes):
    return (1, 2)

class Plain(Wide):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad.py:Wide", r"bad.py, line 5: it returns logits \[2, 7\] for 2 images; they must be \[2, 10\]"),
        ("bad.py:Flow", r"bad.py, line 16: TracerBoolConversionError"),
        ("bad.py:Print", r"bad.py, line 20: debug_print \(at .*bad.py, line 23\) has an effect"),
        ("bad.py:Call", r"bad.py, line 26: pure_callback \(at .*bad.py, line 29\) has an effect"),
        ("bad.py:Drops", r"bad.py, line 35: InvalidRngError"),
        ("bad.py:Required", r"bad.py, line 38: TypeError: .*missing 1 required positional argument: 'width'"),
        ("bad.py:NUMBER", r"it is 5; use a tuple of layers, or a Flax module"),
        ("bad.py:text", r"bad.py, line 47: it returns str, not a Flax module"),
        ("bad.py:cell", r"bad.py, line 50: its layer 1 is not valid"),
        ("bad.py:Plane", r"bad.py has no 'Plane'; did you mean 'Plain'\?"),
        ("gone.py:Net", r"there is no file .*gone.py; paths are relative to the config file"),
        ("raises.py:Net", r"raises.py, line 2: ZeroDivisionError: division by zero"),
        ("syntax.py:Net", r"syntax.py, line 1: invalid syntax"),
        ("bad.py", r"models must name a network of the file, as in bad.py:Net"),
    ],
)
def test_what_cannot_train_is_refused_in_one_line_before_training(name, message, tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    (tmp_path / "raises.py").write_text("\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "study.py").write_text(f"def get_config():\n    return {{'models': {name!r}}}\n")
    with pytest.raises(RequestError, match=message) as raised:
        study = load_study(str(tmp_path / "study.py"))
        own_code.prepare(study.code, study.models)
        find_model(name)
        load_checked(study)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("key", "value"), [("initialization", "he"), ("dropout_rate", 0.3)])
def test_hyperparameters_that_a_module_decides_itself_are_refused(folder, key, value):
    study = load_study(str(folder / "study.py"), ["models=nets.py:Net", f"train.{key}={value}"])
    own_code.prepare(study.code, study.models)
    with pytest.raises(RequestError, match=rf"train.{key}={value!r}: the module nets.py:Net decides this itself"):
        load_checked(study)


@pytest.mark.slow
def test_a_run_with_own_code_is_read_without_it_and_resumed_with_it_unless_it_changed(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", ROUGH_FLAGS)

    def launch(*arguments, module="launch", cwd=folder):
        command = [sys.executable, "-m", f"cnnjax.{module}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)

    options = ["--config.train.epochs=1", "--config.data.train_examples=100", "--config.models=nets.py:Net,baseline"]
    study, run = f"--config={folder / 'study.py'}", tmp_path / "run"
    first = launch(study, f"--workdir={run}", *options)
    assert first.returncode == 0, first.stderr
    grown = launch(study, f"--workdir={run}", *options, "--config.seeds=0,1")
    assert grown.returncode == 0, grown.stderr
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    (folder / "nets.py").write_text(NETS + "\nprint('other code')\n")
    refused = launch(study, f"--workdir={run}", *options)
    assert refused.returncode == 2 and "nets.py': it has changed since" in refused.stderr
    report = launch(str(moved), module="report")
    assert report.returncode == 0 and "other code" not in report.stdout, report.stderr
    trial = next(row for row in (moved / "trials.csv").read_text().splitlines() if "nets.py:Net" in row)[:13]
    image = [f"--input={tmp_path / 'images.npy'}", f"--output={tmp_path / 'out.csv'}", f"--trial={trial}"]
    make = "import numpy as np, sys; np.save(sys.argv[1], np.zeros((3, 8, 8), np.uint8))"
    subprocess.run([sys.executable, "-c", make, str(tmp_path / "images.npy")], check=True)
    refused = launch(str(moved), *image, module="predict")
    assert refused.returncode == 2 and "--trust_code" in refused.stderr
    predicted = launch(str(moved), *image, "--trust_code", module="predict")
    assert predicted.returncode == 0, predicted.stderr
    assert len(Path(tmp_path / "out.csv").read_text().splitlines()) == 4
