"""Imports go down only, as the table in the README says."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = {"jax", "flax", "optax", "orbax"}


class Row(NamedTuple):
    level: int
    libraries: frozenset[str]


def read_table() -> dict[str, Row]:
    """The README's table: a row for each module or subpackage of cnnjax."""
    text = (ROOT / "README.md").read_text()
    (table,) = re.findall(r"<!-- layers -->\n(.*?)<!-- /layers -->", text, re.DOTALL)
    rows = {}
    for line in table.splitlines()[2:]:
        level, modules, libraries, _ = (cell.strip() for cell in line.strip("|").split("|"))
        for module in modules.split(", "):
            assert module not in rows, f"{module} stands twice in the table"
            rows[module] = Row(int(level), frozenset(filter(None, libraries.split(", "))))
    return rows


def read_imports(source: str, package: str = "cnnjax") -> set[str]:
    """Every module that a source imports, at whatever depth: `cnnjax.x`, or a library's name."""
    imports = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: from the package, as many dots up as are written
                base = ".".join([*package.split(".")[: 1 - node.level or None], base]).strip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            imports.add(".".join(parts[:2]) if parts[0] == "cnnjax" else parts[0])
    return imports


TABLE = read_table()
FILES = [f for f in sorted((ROOT / "cnnjax").rglob("*.py")) if f != ROOT / "cnnjax/__init__.py"]


def find_faults(module: str, imports: set[str]) -> list[str]:
    """What `module` imports and may not."""
    row = TABLE[module]
    ours = {name.partition(".")[2] for name in imports if name.startswith("cnnjax")} - {module}
    faults = [f"cnnjax.{name}" for name in ours if name not in TABLE or TABLE[name].level >= row.level]
    return sorted([*faults, *((imports & LIBRARIES) - row.libraries)])


def test_every_module_stands_in_the_table():
    modules = {file.relative_to(ROOT / "cnnjax").with_suffix("").parts[0] for file in FILES}
    assert modules == set(TABLE)


def test_the_table_keeps_the_rules():
    assert {m for m, row in TABLE.items() if "flax" in row.libraries} == {"models", "layers"}
    assert {m for m, row in TABLE.items() if "orbax" in row.libraries} == {"checkpoints"}
    without = {"plan", "records", "stats", "report", "study", "types", "data"}
    assert not any(TABLE[module].libraries for module in without)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down_only(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    imports = read_imports(file.read_text(), ".".join(parts[:-1]))
    assert find_faults(parts[1], imports) == []


@pytest.mark.parametrize(
    ("module", "source", "faults"),
    [
        ("types", "from cnnjax import study", ["cnnjax.study"]),
        ("types", "from cnnjax.study import Study", ["cnnjax.study"]),
        ("types", "from .study import Study", ["cnnjax.study"]),
        ("types", "def f():\n    import cnnjax.study as s", ["cnnjax.study"]),
        ("study", "import jax.numpy as jnp", ["jax"]),
        ("train", "from flax import linen\nimport orbax.checkpoint", ["flax", "orbax"]),
        ("study", "from cnnjax.nowhere import x", ["cnnjax.nowhere"]),
        ("plan", "from cnnjax.records import x", ["cnnjax.records"]),  # of the same level
        ("study", "import numpy\nfrom cnnjax.types import Trial", []),
    ],
)
def test_what_goes_up_is_found(module, source, faults):
    assert find_faults(module, read_imports(source)) == faults


def test_what_may_not_import_jax_does_not_reach_it_either():
    """Imported in one fresh process, since an import may reach jax through another library."""
    above = {"launch", "chunks"}  # these reach it: launch when it runs, chunks through population
    modules = [m for m, row in TABLE.items() if not row.libraries and m not in above] + ["launch"]
    lines = [f"import cnnjax.{module}" for module in modules]
    script = "\n".join([*lines, f"import sys; print(*({LIBRARIES!r} & set(sys.modules)))"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_training_imports_no_report():
    script = (
        "import sys, cnnjax.runner; print(*(m for m in sys.modules if m.startswith(('cnnjax.report', 'matplotlib'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
