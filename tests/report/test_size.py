"""Studies of many trials: records as training writes them, pages that stay small, and their price."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cnnjax.report import build_report, html, tables
from cnnjax.report.tables import Table
from tests.support.made_up_run import make_config, make_run

ROOT = Path(__file__).parents[2]


def benchmark(name, *flags):
    """What a benchmark prints; in a process of its own, for the commands have flags of the same names."""
    command = [sys.executable, "-m", f"experiments.benchmarks.{name}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_stage_of_a_study_that_is_not_trained(tmp_path):
    table = tmp_path / "size.csv"
    benchmark("size", "--trials=96", "--examples=20", "--stages=plan,records,resume,statistics", f"--output={table}")
    # of each program's four members: a chunk of baselines, one of mediums, four of complexes
    expected = {"plan": 96, "records": 4 * (1 + 1 + 4), "resume": 96, "statistics": 48}
    assert pd.read_csv(table).set_index("stage")["counted"].to_dict() == expected


def show(table):
    return html.render("", "", [html.Section("tables", "Tables", [table])])


def test_a_long_table_is_cut_on_the_page_and_whole_beside_it():
    frame = pd.DataFrame({"n": range(400)})
    shown = show(Table("long", "Long", "", frame, foot=2))
    assert re.findall(r'data-value="(\d+)\.0"', shown)[-3:] == [str(tables.MOST_ROWS - 1), "398", "399"]
    assert f"400 rows, of which the first {tables.MOST_ROWS} are shown" in shown
    assert len(Table("long", "Long", "", frame).csv().splitlines()) == 401
    assert "are shown" not in show(Table("short", "Short", "", frame[: tables.MOST_ROWS]))


@pytest.mark.slow
def test_curves_of_many_configurations_show_the_best(tmp_path):
    rates = [0.001 * k for k in range(1, 121)]
    folder = make_run(tmp_path / "run", make_config([0], train={"learning_rate": rates, "epochs": 1}), examples=10)
    assert "one line per configuration (100 best of 120)" in build_report(folder).read_text()


@pytest.mark.parametrize("speeds", [None, "baseline=1000000,medium=100000,complex=10000"])
def test_a_price_is_of_what_was_measured(speeds):
    said = benchmark("price", *([f"--images_per_second={speeds}"] if speeds else []))
    assert ("none was measured" in said) == (not speeds)
    assert [line.split()[0] for line in said.splitlines() if " GPUs  " in line] == (["1", "8", "64"] if speeds else [])
