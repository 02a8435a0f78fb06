"""The documentation is true where a program can tell: its links, commands, tests and numbers."""

import csv
import importlib
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from absl import flags

import cnnjax
from cnnjax.study.overrides import load_study
from cnnjax.study.plan import make_plan
from cnnjax.study.schema import from_config
from experiments import published

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [ROOT / "README.md", CONTRIBUTING, ROOT / "CHANGELOG.md", ROOT / "configs/README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TESTS = {file: file.read_text() for file in (ROOT / "tests").rglob("*.py")}
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def headings(page):
    """Returns the anchors of a page's headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def find_dead_links(page):
    """Returns the relative links of a page whose file or heading does not exist."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            dead.append(link)
    return dead


def commands_of(page):
    """Returns the module and the flags of each `python -m` of a page."""
    text = page.read_text().replace("\\\n", " ")
    calls = re.findall(r"python -m ((?:cnnjax|experiments|tests)[\w.]*)([^\n`]*)", text)
    return [(module, re.findall(r"--([a-z_]+)", rest.partition("#")[0])) for module, rest in calls]


def flags_of(module, capsys):
    """Returns the flags that a command of the package takes."""
    command = importlib.import_module(f"{module}.__main__" if module == "cnnjax.report" else module)
    if hasattr(command, "parse"):
        with pytest.raises(SystemExit):
            command.parse([module, "--help"])
        return set(re.findall(r"--([a-z_]+)", capsys.readouterr().out))
    return {flag.name for flag in flags.FLAGS.get_key_flags_for_module(command)}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    assert find_dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    links = "[a](nowhere.md) [b](#one-title) [c](#another) [d](https://example.org/x) [e](page.md#one-title)"
    page.write_text(f"# One title\n{links}")
    assert find_dead_links(page) == ["nowhere.md", "#another"]


def test_every_page_is_in_the_index():
    index = ROOT / "docs/README.md"
    links = re.findall(r"\]\(([^)#]+)", index.read_text())
    pages = {page for page in PAGES if ROOT / "docs" in page.parents}
    assert pages - {index} <= {(index.parent / link).resolve() for link in links}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_their_flags_exist(page, capsys):
    for module, named in commands_of(page):
        assert importlib.util.find_spec(module), module
        if module.startswith("cnnjax"):
            assert {*named} <= {*flags_of(module, capsys), "help"}, module


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_tests_that_are_named_exist(page):
    defined = {name for text in TESTS.values() for name in re.findall(r"def (test_\w+)", text)}
    assert {*re.findall(r"`(test_\w+)`", page.read_text())} <= defined
    places = [*defined, *(str(file.relative_to(ROOT)) for file in TESTS)]
    for chosen in re.findall(r'-k ("[^"]+"|\w+)', page.read_text()):
        words = chosen.strip('"').split(" or ")
        assert any(word in place for word in words for place in places), chosen


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_modules_that_are_named_exist(page):
    named = re.findall(r"`(cnnjax/[a-z0-9_/.]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_speeds_are_those_of_the_benchmark():
    with (ROOT / "experiments/benchmarks/throughput.csv").open() as file:
        of_batch = [row for row in csv.DictReader(file) if row["batch_size"] == "64"]
    rows = {(row["model"], row["contender"], int(row["members"])): row for row in of_batch}
    written = re.findall(r"^\| (baseline|medium|complex) \| ([\d,]+) \| (.*) \|$", README, re.MULTILINE)
    assert len(written) == 3
    for model, speed, ratios in written:
        assert float(speed.replace(",", "")) == round(float(rows[model, "cnnjax", 4]["images_per_second"]))
        contenders = ("pytorch", 1), ("torch.func", 4), ("source loop", 1)
        for contender, ratio in zip(contenders, ratios.split(" | "), strict=True):
            assert float(ratio) == pytest.approx(float(rows[model, *contender]["cnnjax_4_ratio"]), abs=0.0051)
        (alone,) = re.findall(rf"([\d.]+) \({model}\)", README)
        assert float(alone) == pytest.approx(float(rows[model, "pytorch", 1]["cnnjax_1_ratio"]), abs=0.0051)


def test_the_speeds_of_the_kernels_are_those_of_the_benchmark():
    with (ROOT / "experiments/benchmarks/throughput_kernels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["contender"] == "pytorch"]
    assert [row["model"] for row in rows] == ["baseline", "medium", "complex"]
    found = re.findall(r"(?:reach|alone) ([\d.]+),\s+([\d.]+)\s+and\s+([\d.]+)\b", README)
    for members, ratios in zip((4, 1), found, strict=True):
        expected = [float(row[f"cnnjax_{members}_ratio"]) for row in rows]
        assert [*map(float, ratios)] == pytest.approx(expected, abs=0.0051)


@pytest.mark.slow
def test_the_studies_are_those_of_the_experiments():
    row = r"^\| .*\| `(\w[\w/]*)` \| .*? \| (\d+) \| (.*) \| (.*) \| (.*) \| (yes|no) \|$"
    written = re.findall(row, README, re.MULTILINE)
    assert len(written) == 7
    for folder, *cells in written:
        place = ROOT / "experiments" / folder
        trials, history = pd.read_csv(place / "trials.csv"), pd.read_json(place / "metrics.jsonl", lines=True)
        found = [
            [
                *(str(row["n"]), f"{row['mean']:.2f} ± {row['std']:.2f}", str(row["published"])),
                f"{row['one new seed, low']:.2f} to {row['high']:.2f}",
                {"inside": "yes", "outside": "no"}[row[""]],
            ]
            for row in published.compare(trials, history).to_dict("records")
        ]
        assert cells in found, found


def test_the_studies_of_the_readme_and_the_quickstart_have_as_many_trials_as_is_said(monkeypatch):
    ten, five = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert (ten.strip().count("\n"), sum(map(bool, five.splitlines()))) == (9, 5)
    scope, calls = {}, []
    run = SimpleNamespace(verdict=lambda: "", report=lambda: calls.append("report"))
    monkeypatch.setattr(cnnjax, "run", lambda config: calls.append(config) or run, raising=False)
    exec(ten + five, scope)
    assert from_config(calls[0]).models == ("baseline", "medium") and calls[1:] == ["report"]
    plan = make_plan(from_config(scope["get_config"]().to_dict()))
    assert f"{len(plan.trials)} trials in {len(plan.programs)} programs" in README
    plan = make_plan(load_study(str(ROOT / "configs/quickstart.py")))
    tutorial = (ROOT / "docs/tutorial.md").read_text()
    assert f"{len(plan.trials)} trials in {len(plan.programs)} programs" in " ".join(tutorial.split())
    assert f"trains {plan.trained} networks" in README
