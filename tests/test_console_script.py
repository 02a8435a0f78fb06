"""The console script: its commands are the modules, and it starts at once."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cnnjax
from cnnjax import __main__ as script

ROOT = Path(__file__).parents[1]


def call(monkeypatch, capsys, *arguments):
    """Returns the exit code and what was printed."""
    monkeypatch.setattr(sys, "argv", ["cnnjax", *arguments])
    code = 0
    try:
        script.main()
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_it_lists_its_commands(monkeypatch, capsys, arguments):
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, err) == (0, "") and len(out.splitlines()) <= 10
    assert all(f"  {name} " in out for name in ("launch", "report", "compare", "predict", "inspect"))


def test_an_unknown_command_is_one_line_with_the_nearest_name(monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, "lanch", "--config=x.py")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("error: command='lanch': did you mean 'launch'? Use one of compare,")


def test_its_version_is_that_of_the_package(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "--version") == (0, f"cnnjax {cnnjax.__version__}\n", "")


def test_a_command_gets_the_other_arguments(monkeypatch):
    calls = []
    monkeypatch.setattr(script.runpy, "run_module", lambda name, **_: calls.append((name, sys.argv[1:])))
    for command in script.COMMANDS:
        monkeypatch.setattr(sys, "argv", ["cnnjax", command, "--help", "launch"])
        script.main()
    assert calls == [(module, ["--help", "launch"]) for module, _ in script.COMMANDS.values()]


def test_it_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"cnnjax": "cnnjax.__main__:main"}


@pytest.mark.slow
@pytest.mark.parametrize("command", script.COMMANDS)
@pytest.mark.parametrize("arguments", [["--help"], ["--nonsense"]])
def test_a_command_is_its_module(command, arguments):
    def run(*start):
        return subprocess.run([sys.executable, "-m", *start, *arguments], capture_output=True, text=True, cwd=ROOT)

    ours, module = run("cnnjax", command), run(script.COMMANDS[command][0])
    assert (ours.returncode, ours.stdout, ours.stderr) == (module.returncode, module.stdout, module.stderr)
    assert ours.returncode == (0 if arguments == ["--help"] else 2)


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv[1:] = ['help']; from cnnjax.__main__ import main; main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert not {"numpy", "jax", "absl", "pandas", "rich"} & {*done.stdout.split()}, done.stderr


def test_commands_and_plan_import_nothing_heavy():
    modules = [module for module, _ in script.COMMANDS.values()]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {modules}];"
    code += "from absl import flags; flags.FLAGS(['launch', '--config=configs/quickstart.py', '--plan']);"
    code += "sys.modules['cnnjax.launch'].main([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    heavy = {"jax", "orbax", "matplotlib", "pandas", "sklearn", "scipy.stats", "torch", "optuna", "ray"}
    imported = {*done.stdout.splitlines()[-1].split()}
    assert "cnnjax.commands.plan_table" in imported, done.stderr
    assert not (heavy | {"tensorflow", "tensorflow_datasets"}) & imported
