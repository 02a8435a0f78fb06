"""The command line: what it accepts, what it refuses and how, and what it calls."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags
from absl.testing import flagsaver

from cnnjax import commands, launch
from cnnjax.commands import launch as launching
from cnnjax.commands import run as running
from cnnjax.study import flags as study_flags
from cnnjax.study.schema import Study
from cnnjax.training import program
from cnnjax.training.machine import _may_accelerate
from cnnjax.utils.progress import Progress
from tests.support.studies import ROUGH_FLAGS

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs/quickstart.py")


def python(*arguments, cwd):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--config"]),
        (["--config=nowhere.py"], ["--config", "nowhere.py", "no file"]),
        ([f"--config={ROOT}/configs"], ["--config", "no file"]),
        ([f"--config={ROOT}/pyproject.toml"], ["--config", "pyproject.toml"]),
        ([f"--config={ROOT}/cnnjax/utils/text.py"], ["text.py", "get_config"]),
        ([f"--config={QUICKSTART}:smok"], ["--config", "'smok'", "smoke"]),
        ([f"--config={QUICKSTART}", "--workdr=x"], ["workdr", "workdir"]),
        ([f"--config={QUICKSTART}", "--seeds=1,2"], ["'--seeds=1,2'", "--config.KEY=VALUE"]),
        ([f"--config={QUICKSTART}", "--plan=maybe"], ["plan", "maybe"]),
        ([f"--config={QUICKSTART}", "stray"], ["stray"]),
        ([f"--config={QUICKSTART}", "--confirm=1"], ["confirm", "1"]),
        (
            [f"--config={QUICKSTART}", "--config.train.lerning_rate=1"],
            ["train.lerning_rate", "did you mean 'learning_rate'?"],
        ),
        ([f"--config={QUICKSTART}", "--config.sedes=1"], ["sedes", "did you mean 'seeds'?"]),
        ([f"--config={QUICKSTART}", "--config.seeds=abc"], ["seeds", "'abc'", "whole number"]),
        ([f"--config={QUICKSTART}", "--config.seeds=1.5"], ["seeds", "1.5", "whole number"]),
        ([f"--config={QUICKSTART}", "--config.data.name="], ["data.name", "()"]),
        ([f"--config={QUICKSTART}", "--config.train.precision=tf32"], ["train.precision='tf32'", "only a GPU"]),
        ([f"--config={QUICKSTART}", "--config.train.convolution=pallas"], ["train.convolution='pallas'", "only a GPU"]),
        ([f"--config={QUICKSTART}", f"--compilation_cache={QUICKSTART}"], ["--compilation_cache", "use a folder"]),
        ([f"--config={QUICKSTART}", "--config.train.epochs="], ["train.epochs", "at least one"]),
        ([f"--config={QUICKSTART}", "--config.train.epochs"], ["train.epochs", "needs a value"]),
        (
            [f"--config={QUICKSTART}", "--config.train.learning_rate", "-1"],
            ["train.learning_rate", "-1", "> 0"],
        ),
        ([f"--config={QUICKSTART}", "--config.train=5"], ["train", "5", "learning_rate"]),
        ([f"--config={QUICKSTART}", "--config.seeds.x=5"], ["seeds.x", "not a group"]),
        ([f"--config={QUICKSTART}", "--config.a\nb=5"], ["there is no such key"]),
        ([f"--config={QUICKSTART}", "--workdir=nowhere://bucket/run"], ["workdir", "Protocol not known: nowhere"]),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(arguments, words, tmp_path):
    done = python("-B", "-m", "cnnjax.launch", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert all(word in done.stderr for word in words), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source",
    ["def get_config(: pass", "1 / 0", "def get_config(arg=''):\n    raise OSError('no\\nluck')"],
)
def test_a_config_that_raises_is_a_wrong_request(source, tmp_path):
    (tmp_path / "broken.py").write_text(source)
    done = python("-B", "-m", "cnnjax.launch", "--config=broken.py", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "broken.py" in done.stderr


@pytest.mark.parametrize(
    ("body", "code", "lines"),
    [
        ("pass", 0, []),
        ("raise KeyboardInterrupt", 130, ["interrupted"]),
        ("raise RequestError('key', 1, 'must be 2')", 2, ["error: key must be 2, got 1"]),
        ("raise OSError('disk full')", 1, ["Traceback", "OSError: disk full"]),
    ],
)
def test_exit_codes(body, code, lines, tmp_path):
    script = f"""
from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError
def main(overrides):
    {body}
cli.run(main)
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == code
    assert all(line in done.stderr for line in lines)
    assert code == 1 or done.stderr.count("\n") == len(lines)


def test_libraries_log_warnings_only(tmp_path):
    script = """
import logging
from cnnjax.utils import cli
def main(overrides):
    logging.info("chatter")
    logging.warning("careful")
cli.run(main)
"""
    done = python("-c", script, cwd=tmp_path)
    assert "careful" in done.stderr and "chatter" not in done.stderr


HEAVY = ("jax", "flax", "optax", "orbax", "pandas", "scipy", "matplotlib.pyplot", "tensorflow_datasets", "sklearn")


def imported(tmp_path, *arguments):
    """Which heavy libraries a command line imports, and its exit code."""
    script = f"""
import runpy, sys
sys.argv[1:] = {list(arguments)!r}
try:
    runpy.run_module("cnnjax.launch", run_name="__main__", alter_sys=True)
except SystemExit as end:
    print(f"exit {{end.code or 0}}", *(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = python("-c", script, cwd=tmp_path)
    _, code, *names = done.stdout.splitlines()[-1].split()
    return int(code), set(names)


def test_help_and_errors_do_not_wait_for_jax(tmp_path):
    assert imported(tmp_path, "--help") == (0, set())
    assert imported(tmp_path, f"--config={QUICKSTART}", "--config.seeds=-1") == (2, set())


@pytest.mark.skipif(_may_accelerate(), reason="on a machine with accelerators JAX has to be asked")
def test_plan_does_not_wait_for_jax(tmp_path):
    assert imported(tmp_path, f"--config={QUICKSTART}", "--plan") == (0, set())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "value"),
    [([], None), (["--plan"], "estimate"), (["--plan=measure"], "measure"), (["--plan", "--noplan"], None)],
)
def test_plan_takes_no_value_or_measure(arguments, value):
    with flagsaver.flagsaver():
        flags.FLAGS(["launch", *arguments])
        assert launch.PLAN.value == value
    with flagsaver.flagsaver(), pytest.raises(flags.IllegalFlagValueError, match=r"--plan=maybe: use --plan, --plan=m"):
        flags.FLAGS(["launch", "--plan=maybe"])


@pytest.fixture
def runner(monkeypatch):
    """A runner that records its calls."""
    calls = []

    def run(study, workdir, *, progress, overwrite, profile, engine):
        calls.append((study, workdir, overwrite, progress))

    def lines(study, workdir, measure):
        yield from (f"{len(study.seeds)} seeds in {workdir}", f"measure: {measure}")

    table = SimpleNamespace(plan_lines=lines)
    monkeypatch.setattr(commands, "plan_table", table, raising=False)
    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(program, "enable_compilation_cache", lambda folder: None)
    monkeypatch.setattr(launching, "_report", lambda workdir, build: f"{workdir}/report/index.html")
    flags.FLAGS.mark_as_parsed()
    return calls


def test_launch_runs_the_study_and_says_where_the_report_is(runner, capsys):
    with flagsaver.flagsaver(config=QUICKSTART, workdir="there", overwrite=True):
        launch.main(["seeds=5,6", "train.optimizer=sgd"])
    ((study, workdir, overwrite, progress),) = runner
    assert isinstance(study, Study) and isinstance(progress, Progress)
    assert (study.seeds, study.train.optimizer) == ((5, 6), ("sgd",))
    assert (workdir, overwrite) == (Path("there"), True)
    assert capsys.readouterr().out == "there/report/index.html\n"


def test_plan_prints_the_table_and_runs_nothing(runner, capsys):
    with flagsaver.flagsaver(config=QUICKSTART, plan="estimate"):
        launch.main(["seeds=5,6"])
    with flagsaver.flagsaver(config=QUICKSTART, plan="measure", workdir="there"):
        launch.main(["seeds=5"])
    with flagsaver.flagsaver(config=QUICKSTART, plan="estimate", workdir="s3://bucket/run"):
        launch.main(["seeds=5"])  # a store is not asked for what it holds
    assert capsys.readouterr().out.splitlines() == [
        *("2 seeds in runs/quickstart", "measure: False"),
        *("1 seeds in there", "measure: True"),
        *("1 seeds in None", "measure: False"),
    ]
    assert runner == []


@pytest.mark.parametrize(
    ("config", "workdir"),
    [("configs/grid.py", "runs/grid"), ("/a/grid.py:smoke", "runs/grid-smoke")],
)
def test_default_workdir(config, workdir, runner):
    with flagsaver.flagsaver(config=config):
        assert study_flags.default_folder("runs") == Path(workdir)


@pytest.mark.slow
def test_compiled_programs_are_kept_where_the_flag_says(tmp_path, monkeypatch):
    """The same study twice: the second start compiles nothing anew; `off` keeps nothing."""
    monkeypatch.setenv("XLA_FLAGS", ROUGH_FLAGS)
    arguments = [f"--config={QUICKSTART}:smoke", "--config.models=baseline", "--config.train.optimizer=sgd"]
    kept = tmp_path / "kept"

    def launch(workdir, cache):
        done = python(
            *("-m", "tests.support.bare_launch", *arguments),
            *(f"--workdir={tmp_path / workdir}", f"--compilation_cache={cache}"),
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        return {path.name for path in kept.glob("*-cache")}

    assert launch("none", "off") == set()
    first = launch("one", kept)
    assert any("over_members" in name for name in first)
    assert launch("two", kept) == first
