"""The report as Markdown: the same answer, findings and numbers, names escaped, printed by one command."""

import subprocess
import sys

import pytest

from cnnjax.analysis.read import read_run
from cnnjax.report import summarize_run
from cnnjax.report.sections import protocol
from tests.support.made_up_run import GRID, make_config, make_run, read_answer


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "grid", GRID, diverge=("t0021",), examples=60)


def test_it_says_the_answer_the_findings_and_the_ranking(grid):
    text = summarize_run(grid)
    plain = text.replace("\\", "").replace("**", "")
    assert all(sentence in plain for sentence in read_answer(grid).split(". ")[:3])
    for finding in protocol.check(read_run(grid)):
        assert f"- {finding.severity} `{finding.name}`: " in text and finding.sentence in plain
    lines = text.splitlines()
    start = lines.index("## Ranking") + 2
    width = lines[start].count(" | ")
    table = [line for line in lines[start : start + 13] if line.startswith("|")]
    assert len(table) == 12 and all(line.count(" | ") == width for line in table)  # the head, its rule, ten rows
    assert "37 more rows in report/ranking.csv." in plain
    assert "<" not in text.replace("\\<", "")


def test_names_are_escaped(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1], train={"learning_rate": [0.01, 0.03]}), examples=40)
    for name in ("trials.csv", "config.json", "data.json"):
        file = folder / name
        file.write_text(file.read_text().replace("baseline", "a|b<i>*_x").replace("cifar10", "<script>"))
    text = summarize_run(folder)
    assert "a\\|b\\<i\\>\\*\\_x" in text and "# Study of \\<script\\>" in text
    assert "a|b" not in text and "<i>" not in text


def test_a_study_that_has_just_begun(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0]), keep=0, examples=40)
    assert "No trial has finished" in summarize_run(folder)


@pytest.mark.slow
def test_the_command_prints_it_and_refuses_in_one_line(tmp_path):
    folder = make_run(tmp_path / "run", make_config([0, 1]), examples=40)
    command = [sys.executable, "-m", "cnnjax.report", str(folder)]
    done = subprocess.run([*command, "--format=markdown"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == summarize_run(folder).strip()
    assert not (folder / "report").exists()
    done = subprocess.run([*command, "--format=pdf"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pdf" in done.stderr and "markdown" in done.stderr
    assert len(done.stderr.splitlines()) == 1
